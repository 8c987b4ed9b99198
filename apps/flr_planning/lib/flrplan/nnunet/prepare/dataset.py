"""From labelled cases to a raw nnU-Net data set of one stage, through the one function that builds a stage's input.

One sigmoid channel a target, since targets overlap: nnU-Net's regions. A label map holds them as bits (:func:`region_values`). Mask
channels are called ``noNorm``; any unknown name would be z-scored.

A target need not nest in the region that masks the CT (raw labels do not, nor do predicted regions). The target stays whole; a
case of which the network is not shown all gets a second label, ``shownTr/<case>``, from which nnU-Net's fingerprint takes the
intensities (:class:`flrplan.nnunet.prepare.planning.ShownFingerprint`): outside the region it would find ``outside_hu``.

Channels that several stages need are on the disk once, under all their names (hard links): the whole CT of ``liver`` and ``flr_e2e``, the
CT in the liver of ``crlm`` and ``flr``. What decides is the content, so a setting that changes a channel parts them. Preprocessed arrays are
shared by the architectures of a stage, not by stages: nnU-Net normalises a CT with the intensities inside the target.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flrplan import __version__
from flrplan.anatomy import Structure
from flrplan.errors import FlrError, LabelError
from flrplan.files import link, write_json
from flrplan.image import Geometry, write_label_map, write_volume
from flrplan.method import InputSettings, Stage, build_stage_input
from flrplan.nnunet.model.model_folder import OWN_BLOCK
from flrplan.workfolder import Case, map_cases

if TYPE_CHECKING:
    from flrplan.input_masks import MaskErrors

logger = logging.getLogger(__name__)

FILE_ENDING = ".nii.gz"
SHOWN_NAME = "shownTr"
"""Beside ``labelsTr``: the target where the network is shown the CT, of the cases in which that is not all of it."""
CHANNELS_NAME = "shared_channels"
"""Folder of channels in the work folder; a file is called by the SHA-256 of its voxels and geometry."""


@dataclass(frozen=True)
class TargetVoxels:
    """Voxels of one case's target: where the network is shown the CT, and outside of that (masked, or cut off by the crop)."""

    shown: int
    outside: int


def dataset_name(stage: Stage) -> str:
    """nnU-Net's name of a stage's data set, for example ``Dataset502_crlm``."""
    return f"Dataset{stage.number}_{stage.name}"


def region_values(targets: int) -> list[list[int]]:
    """For each of so many targets the values of a label map in which it lies: those with its bit, 1 for the first, 2, 4.

    nnU-Net 2.8 takes only a label of more than one value for a region; so a single target is declared as ``[1, 2]``, and 2 never occurs.
    """
    if targets == 1:
        return [[1, 2]]
    return [[value for value in range(1, 2**targets) if value >> bit & 1] for bit in range(targets)]


def dataset_json(stage: Stage, settings: InputSettings, cases: int) -> dict[str, Any]:
    """The content of ``dataset.json`` for one stage."""
    names = ["CT", *("noNorm" for _ in settings.mask_channels(stage))]
    return {
        "channel_names": {str(i): name for i, name in enumerate(names)},
        "labels": {"background": 0, **dict(zip(map(str, stage.targets), region_values(len(stage.targets)), strict=True))},
        "regions_class_order": [2**bit for bit in range(len(stage.targets))],
        "numTraining": cases,
        "file_ending": FILE_ENDING,
        OWN_BLOCK: {"stage": stage.name, "input": settings.to_json(), "version": __version__},
    }


def convert_case(
    case: Case,
    stage: Stage,
    settings: InputSettings,
    folder: Path,
    shared: Path | None = None,
    errors: MaskErrors | None = None,
) -> dict[Structure, TargetVoxels]:
    """Writes one case of one stage; returns the voxels of each target (0 for an empty one, which is allowed).

    ``settings.input_masks`` says which masks are the inputs; the target is always the truth. A case whose files are all there is left
    as it is. errors: what perturbed masks are drawn from (None: the default).
    shared: folder of channels by their content; stages whose channel is the same to the last voxel share one file.
    Raises: EmptyLiverError, GridError, ImageError, LabelError, each naming the case.
    """
    from flrplan.input_masks import masks_for_training  # who predicts only does not need it

    label_path = folder / "labelsTr" / f"{case.case_id}{FILE_ENDING}"
    try:
        ct, masks = case.load(dict.fromkeys((*stage.needs, *stage.targets)))
        inputs = masks_for_training(case, ct, masks, stage, settings.input_masks, errors)
        given = build_stage_input(ct.array_zyx, ct.geometry, inputs, stage, settings)
        target = np.zeros(given.geometry.shape_zyx, np.uint8)
        voxels = {}
        for bit, structure in enumerate(stage.targets):
            mask = given.crop(masks[structure])
            target[mask] |= 1 << bit
            count = int(np.count_nonzero(mask & given.shown_zyx))
            voxels[structure] = TargetVoxels(count, int(np.count_nonzero(masks[structure])) - count)
        shown = np.where(given.shown_zyx, target, np.uint8(0))
        if not label_path.is_file():
            for index, channel in enumerate(given.channels_czyx):
                path = folder / "imagesTr" / f"{case.case_id}_{index:04d}{FILE_ENDING}"
                _write_shared(path, channel.astype(np.int16), given.geometry, shared)
            if (shown != target).any():
                write_label_map(folder / SHOWN_NAME / label_path.name, shown, given.geometry)
            write_label_map(label_path, target, given.geometry)
    except FlrError as error:
        raise type(error)(f"case {case.case_id}: {error}") from error
    return voxels


def convert_dataset(
    cases: Sequence[Case],
    stage: Stage,
    settings: InputSettings,
    raw_folder: Path,
    workers: int = 1,
    shared: Path | None = None,
    errors: MaskErrors | None = None,
) -> dict[Structure, dict[str, TargetVoxels]]:
    """Writes the raw data set of one stage, ``<raw_folder>/<Dataset50x_stage>``; returns by target the voxels of each case.

    Raises: LabelError where there is no case, or no case shows a voxel of a target: nothing could be learned of it.
    """
    if not cases:
        raise LabelError(f"stage {stage}: no labelled case to train on")
    folder = raw_folder / dataset_name(stage)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("*/.part-*"):  # of a run that was killed; nnU-Net would count it as a case
        left_over.unlink()
    convert = partial(convert_case, stage=stage, settings=settings, folder=folder, shared=shared, errors=errors)
    voxels = list(map_cases(convert, cases, workers, f"{stage}: inputs", name=attrgetter("case_id")))
    found = {target: {case.case_id: of[target] for case, of in zip(cases, voxels, strict=True)} for target in stage.targets}
    for target, counts in found.items():
        _require_shown(counts, target, stage, cases)
    write_json(folder / "dataset.json", dataset_json(stage, settings, len(cases)))
    return found


def _require_shown(counts: Mapping[str, TargetVoxels], target: Structure, stage: Stage, cases: Sequence[Case]) -> None:
    """Says in which cases a target is empty or not all shown. Raises: LabelError where no case shows a voxel of it."""
    if not any(count.shown for count in counts.values()):
        files = [case.truth.file_of(target) for case in cases]
        folders = dict.fromkeys(str(file.parent) for file in files if file is not None)
        lies_outside = stage.region and any(count.outside for count in counts.values())
        raise LabelError(
            f"stage {stage}: the target {target} is empty in all {len(cases)} cases of {', '.join(list(folders)[:3])}"
            f"{f', or lies outside the {stage.region}' if lies_outside else ''}, expected "
            f"voxels of it in some; nothing can be learned. Label {target} where it is to be seen, or add cases that show it"
        )
    empty = [case_id for case_id, count in counts.items() if not count.shown]
    if empty:
        logger.info("stage %s: %d of %d cases show no %s: %s", stage, len(empty), len(cases), target, empty)
    outside = {case_id: count.outside for case_id, count in counts.items() if count.outside}
    if outside:
        logger.warning(
            "stage %s: %d voxels of %s (%.2g %% of all) in %d of %d cases lie outside the %s that the network is shown; they stay in "
            "the target and are left out of the intensity statistics: %s",
            *(stage, sum(outside.values()), target, 100 * outside_share(counts.values()), len(outside), len(cases)),
            *(stage.region, shortened(outside)),
        )


def outside_share(voxels: Iterable[TargetVoxels]) -> float:
    """The share of the pooled target voxels, 0..1, that the network is not shown; NaN where there is no target."""
    shown, outside = (sum(values) for values in zip(*((v.shown, v.outside) for v in voxels), strict=True))
    return outside / (shown + outside) if shown + outside else float("nan")


def _write_shared(path: Path, array_zyx: NDArray[Any], geometry: Geometry, shared: Path | None) -> None:
    """Writes a channel ``(Z, Y, X)``, or links it to the file in ``shared`` with the same voxels and geometry."""
    if shared is None:
        write_volume(path, array_zyx, geometry, compression_level=1)
        return
    digest = hashlib.sha256(f"{geometry}{array_zyx.dtype}{array_zyx.shape}".encode())
    digest.update(np.ascontiguousarray(array_zyx).data)
    source = shared / f"{digest.hexdigest()}.nii.gz"
    if not source.is_file():
        write_volume(source, array_zyx, geometry, compression_level=1)
    link(source, path)
