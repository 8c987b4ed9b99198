"""Two readers' labels of one case: how far they agree, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk

from flrplan.anatomy import PLANNED, Mask, PlanningLabel, Structure, to_label_map
from flrplan.errors import LabelError
from flrplan.image import Geometry, require_same_grid, write_label_map
from flrplan.metrics import Region, score_mask
from flrplan.studies.folder import StudiesFolder
from flrplan.studies.names import FINAL
from flrplan.studies.review import CaseReview, Version
from flrplan.studies.stored import StoredLabel
from flrplan.studies.submission import ReadLabel, submit

_SHOWN = ("dice", "nsd", "volume_reference_ml", "volume_prediction_ml")
_CUT = ("cut_mean_mm", "cut_hd95_mm", "cut_nsd_5mm", "flr_percent_reference", "flr_percent_own_prediction")


class Join(StrEnum):
    """``staple``: the reference that the labels most likely come from (Warfield 2004). ``majority``: what more than half of them say."""

    STAPLE = "staple"
    MAJORITY = "majority"


@dataclass(frozen=True)
class Reading:
    """One reader's label of a case."""

    version: Version
    label: PlanningLabel
    grid: Geometry


def readings(folder: StudiesFolder, case: str, read: ReadLabel, tags: Sequence[str] = ()) -> list[Reading]:
    """The labels with these tags; without tags the newest one of each annotator, the first annotator first.

    Raises: LabelError where there are fewer than two; GridError where they lie on different grids.
    """
    labels = folder.labels_of(case)
    for tag in tags:
        folder.require_label(case, tag)
    versions = CaseReview.of({tag: label.info for tag, label in labels.items()}).versions
    if tags:
        chosen = [Version.of(tag, labels[tag].info) for tag in dict.fromkeys(tags)]
    else:
        chosen = list({v.by: v for v in versions}.values())
    if len(chosen) < 2:
        who = ", ".join(f"{v.tag} by {v.who}" for v in versions) or "none"
        raise LabelError(f"case {case}: two labels of different annotators are needed; there are {who}. Name two with --labels")
    found = []
    for version in chosen:
        label, grid = read(labels[version.tag].path, version.info)
        found.append(Reading(version, label, grid))
        require_same_grid(found[0].grid, grid, f"{case} {chosen[0].tag}", f"{case} {version.tag}")
    return found


def agreement(first: Reading, second: Reading) -> dict[str, dict[str, float]]:
    """By structure that both hold: Dice, NSD at the structure's tolerance, and both volumes in ml; of the FLR also both FLR% and the cut.

    NaN is undefined (:data:`flrplan.metrics.EMPTY_MASKS`). FLR% are each of the reader's own liver and metastases.
    """
    spacing = first.grid.spacing_mm[::-1]
    one, two = ({s: Region.of(m, spacing) for s, m in r.label.masks.items()} for r in (first, second))
    found = {}
    for structure in sorted(one.keys() & two.keys()):
        if structure is Structure.FLR and not all(s in one and s in two for s in PLANNED):
            continue
        own = two if structure is Structure.FLR else None
        values = score_mask(structure, one, two[structure], own).values
        found[structure.value] = {name: values[name] for name in (*_SHOWN, *_CUT) if name in values}
    return found


def joined(found: Sequence[Reading], how: Join) -> PlanningLabel:
    """What all readings say together, per structure that each of them holds; metastases and remnant stay inside the liver.

    Majority of an even number: what more than half hold. Raises: LabelError where they hold no structure in common.
    """
    common = [s for s in Structure if all(s in r.label.masks for r in found)]
    if not common:
        raise LabelError("the labels hold no structure in common, so they cannot be joined")
    masks: dict[Structure, Mask] = {s: _join([r.label.masks[s] for r in found], how) for s in common}
    if Structure.LIVER in masks:
        masks = {s: m & masks[Structure.LIVER] for s, m in masks.items()}
    if all(s in masks for s in PLANNED):
        masks.pop(Structure.LRS, None)  # the liver without the FLR
    return PlanningLabel(masks)


def join(folder: StudiesFolder, case: str, found: Sequence[Reading], how: Join, read: ReadLabel, by: str = "") -> StoredLabel:
    """Submits the joined label as ``final``; the readers' own stay as versions. Raises: LabelError, OutputError."""
    array, names = to_label_map(joined(found, how), f"the joined label of {case}")
    info: dict[str, Any] = {
        "label_info": [{"name": name, "idx": value} for name, value in names.items()],
        "client_id": by or how.value,
        "joined": {"how": how.value, "labels": [{"by": r.version.by, "saved": r.version.saved} for r in found]},
    }
    with TemporaryDirectory(prefix="flrplan_join_") as temporary:
        path = Path(temporary) / "joined.nii.gz"
        write_label_map(path, array, found[0].grid)
        return submit(folder, case, FINAL, path, info, read)


def _join(masks: Sequence[Mask], how: Join) -> Mask:
    if all(np.array_equal(mask, masks[0]) for mask in masks):
        return masks[0]
    if how is Join.MAJORITY or not all(mask.any() for mask in masks):  # STAPLE is undefined for an empty mask
        return np.asarray(2 * np.sum(masks, axis=0) > len(masks))
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    return np.asarray(sitk.GetArrayFromImage(sitk.STAPLE(images, 1.0)) >= 0.5)


def in_words(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line a structure, and one for the cut."""
    lines = []
    for structure, values in found.items():
        lines.append(
            f"{structure:6} Dice {values['dice']:.3f}  NSD {values['nsd']:.3f}  {values['volume_reference_ml']:.1f} and "
            f"{values['volume_prediction_ml']:.1f} ml"
        )
        if "cut_mean_mm" in values:
            lines.append(
                f"cut    mean distance {values['cut_mean_mm']:.1f} mm, 95 % {values['cut_hd95_mm']:.1f} mm  FLR "
                f"{values['flr_percent_reference']:.1f} % and {values['flr_percent_own_prediction']:.1f} %"
            )
    return lines
