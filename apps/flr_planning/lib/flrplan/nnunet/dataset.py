"""From labelled cases to a raw nnU-Net data set of one stage, through the one function that builds a stage's input.

One sigmoid channel: nnU-Net 2.8 builds that only for regions, a label with more than one value. So the target is declared
as ``[1, 2]`` although 2 never occurs. Mask channels are called ``noNorm``; any unknown name would be z-scored.

A target need not nest in the region that masks the CT (raw labels do not, nor do predicted regions). The target stays whole; a
case of which the network is not shown all gets a second label, ``shownTr/<case>``, from which nnU-Net's fingerprint takes the
intensities (:class:`flrplan.nnunet.planning.ShownFingerprint`): outside the region it would find ``outside_hu``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from flrplan import __version__
from flrplan.errors import FlrError, LabelError
from flrplan.io import write_json, write_label_map
from flrplan.nnunet.processes import map_cases
from flrplan.nnunet.sharing import write_shared
from flrplan.stage_input import InputSettings, build_stage_input
from flrplan.stages import STAGES, Stage
from flrplan.training_cases import LabelledCase

if TYPE_CHECKING:
    from flrplan.input_masks import MaskErrors

logger = logging.getLogger(__name__)

FILE_ENDING = ".nii.gz"
OWN_BLOCK = "flrplan"
"""Key of our own block in ``dataset.json`` (stage, input) and ``plans.json`` (architecture, size); nnU-Net ignores keys unknown to it."""
SHOWN_NAME = "shownTr"
"""Beside ``labelsTr``: the target where the network is shown the CT, of the cases in which that is not all of it."""


@dataclass(frozen=True)
class TargetVoxels:
    """Voxels of one case's target: where the network is shown the CT, and outside of that (masked, or cut off by the crop)."""

    shown: int
    outside: int


def dataset_name(stage: Stage) -> str:
    """nnU-Net's name of a stage's data set, for example ``Dataset502_crlm``."""
    return f"Dataset{501 + list(STAGES).index(stage.name)}_{stage.name}"


def dataset_json(stage: Stage, settings: InputSettings, cases: int) -> dict[str, Any]:
    """The content of ``dataset.json`` for one stage."""
    names = ["CT", *("noNorm" for _ in settings.mask_channels(stage))]
    return {
        "channel_names": {str(i): name for i, name in enumerate(names)},
        "labels": {"background": 0, stage.target.value: [1, 2]},
        "regions_class_order": [1],
        "numTraining": cases,
        "file_ending": FILE_ENDING,
        OWN_BLOCK: {"stage": stage.name, "input": settings.to_json(), "version": __version__},
    }


def convert_case(
    case: LabelledCase,
    stage: Stage,
    settings: InputSettings,
    folder: Path,
    shared: Path | None = None,
    errors: MaskErrors | None = None,
) -> TargetVoxels:
    """Writes one case of one stage; returns its target voxels (0 for an empty target, which is allowed).

    ``settings.input_masks`` says which masks are the inputs; the target is always the truth. A case whose files are all there is left
    as it is. errors: what perturbed masks are drawn from (None: the default).
    shared: folder of channels by their content; stages whose channel is the same to the last voxel share one file.
    Raises: EmptyLiverError, GridError, ImageError, LabelError, each naming the case.
    """
    from flrplan.input_masks import masks_for_training  # who predicts only does not need it

    label_path = folder / "labelsTr" / f"{case.case_id}{FILE_ENDING}"
    try:
        ct, masks = case.load({*stage.needs, stage.target})
        inputs = masks_for_training(case, ct, masks, stage, settings.input_masks, errors)
        given = build_stage_input(ct.array_zyx, ct.geometry, inputs, stage, settings)
        target = given.crop(masks[stage.target])
        shown = target & given.shown_zyx
        count = int(np.count_nonzero(shown))
        voxels = TargetVoxels(count, int(np.count_nonzero(masks[stage.target])) - count)
        if not label_path.is_file():
            for index, channel in enumerate(given.channels_czyx):
                path = folder / "imagesTr" / f"{case.case_id}_{index:04d}{FILE_ENDING}"
                write_shared(path, channel.astype(np.int16), given.geometry, shared)
            if (shown != target).any():
                write_label_map(folder / SHOWN_NAME / label_path.name, shown.astype(np.uint8), given.geometry)
            write_label_map(label_path, target.astype(np.uint8), given.geometry)
    except FlrError as error:
        raise type(error)(f"case {case.case_id}: {error}") from error
    return voxels


def convert_dataset(
    cases: Sequence[LabelledCase],
    stage: Stage,
    settings: InputSettings,
    raw_folder: Path,
    workers: int = 1,
    shared: Path | None = None,
    errors: MaskErrors | None = None,
) -> dict[str, TargetVoxels]:
    """Writes the raw data set of one stage, ``<raw_folder>/<Dataset50x_stage>``; returns the target voxels of each case.

    Raises: LabelError where there is no case, or no case shows a voxel of the target: nothing could be learned.
    """
    if not cases:
        raise LabelError(f"stage {stage}: no labelled case to train on")
    folder = raw_folder / dataset_name(stage)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob("*/.part-*"):  # of a run that was killed; nnU-Net would count it as a case
        left_over.unlink()
    convert = partial(convert_case, stage=stage, settings=settings, folder=folder, shared=shared, errors=errors)
    bar = partial(tqdm, total=len(cases), desc=f"{stage}: inputs", unit="case", disable=None)
    voxels = list(bar(map_cases(convert, cases, workers)))
    if not any(v.shown for v in voxels):
        files = [case.masks.get(stage.target, case.label) for case in cases]
        folders = dict.fromkeys(str(file.parent) for file in files if file is not None)
        raise LabelError(
            f"stage {stage}: the target {stage.target} is empty in all {len(cases)} cases of {', '.join(list(folders)[:3])}"
            f"{', or lies outside the ' + stage.region if stage.region and any(v.outside for v in voxels) else ''}, expected "
            f"voxels of it in some; nothing can be learned. Label {stage.target} where it is to be seen, or add cases that show it"
        )
    found = {case.case_id: count for case, count in zip(cases, voxels, strict=True)}
    empty = [case_id for case_id, count in found.items() if not count.shown]
    if empty:
        logger.info("stage %s: %d of %d cases show no %s: %s", stage, len(empty), len(cases), stage.target, empty)
    outside = {case_id: count.outside for case_id, count in found.items() if count.outside}
    if outside:
        logger.warning(
            "stage %s: %d voxels of %s (%.2g %% of all) in %d of %d cases lie outside the %s that the network is shown; they stay in "
            "the target and are left out of the intensity statistics: %s",
            *(stage, sum(outside.values()), stage.target, 100 * outside_share(found.values()), len(outside), len(cases)),
            *(stage.region, shortened(outside)),
        )
    write_json(folder / "dataset.json", dataset_json(stage, settings, len(cases)))
    return found


def outside_share(voxels: Iterable[TargetVoxels]) -> float:
    """The share of the pooled target voxels, 0..1, that the network is not shown; NaN where there is no target."""
    shown, outside = (sum(values) for values in zip(*((v.shown, v.outside) for v in voxels), strict=True))
    return outside / (shown + outside) if shown + outside else float("nan")
