"""The preprocessed arrays of a stage: made case by case, each whole or made again, and how much room they take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from flrplan.errors import OutputError
from flrplan.workfolder import map_cases

KEPT_FRACTION = 0.25
"""Compressed over plain size; 0.20 was measured for the resampled CT of a patient (docs/training.md), the rest is reserve."""


def arrays_folder(folder: Path, plans: Mapping[str, Any], configuration: str) -> Path:
    """Where nnU-Net looks for the arrays of a configuration in a data set's preprocessed folder."""
    return folder / str(plans["configurations"][configuration]["data_identifier"])


def preprocess_cases(raw: Path, folder: Path, plans: Mapping[str, Any], configuration: str, workers: int) -> None:
    """nnU-Net's preprocessing of every case of a raw data set. Cases that are whole already are left as they are.

    An error comes through as it is, its case in a note (``__notes__``); processes that die leave their cases to fewer.
    Raises: OutputError where a case, read back, is not whole.
    """
    dataset = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    cases = list(get_filenames_of_train_images_and_targets(str(raw), dataset).items())
    arrays = arrays_folder(folder, plans, configuration)
    arrays.mkdir(parents=True, exist_ok=True)
    one = partial(_preprocess_case, arrays=arrays, plans=dict(plans), configuration=configuration, dataset=dataset)
    for _ in map_cases(one, cases, workers, f"{raw.name}: preprocessing", name=itemgetter(0)):
        pass


def _preprocess_case(
    case: tuple[str, Mapping[str, Any]], arrays: Path, plans: dict[str, Any], configuration: str, dataset: dict[str, Any]
) -> None:
    case_id, files = case
    if is_whole(arrays, case_id):
        return
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    for left_over in (arrays / f"{case_id}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")):
        left_over.unlink(missing_ok=True)
    preprocessor = settings.preprocessor_class(verbose=False)
    try:
        preprocessor.run_case_save(str(arrays / case_id), files["images"], files["label"], manager, settings, dataset)
    except Exception as error:  # nnU-Net and its libraries raise many kinds; each keeps its own, which tells a full disk
        error.add_note(f"case {case_id} (made into {', '.join(map(str, files['images']))})")
        raise
    require_whole(arrays, [case_id])


def expected_bytes(folder: Path, plans: Mapping[str, Any], configuration: str) -> int:
    """Estimated size on disk of all preprocessed cases, from nnU-Net's fingerprint and the planned spacing."""
    fingerprint = json.loads((folder / "dataset_fingerprint.json").read_text(encoding="utf-8"))
    plan = plans["configurations"][configuration]
    forward = plans["transpose_forward"]
    voxels = 0.0
    for shape, spacing_mm in zip(fingerprint["shapes_after_crop"], fingerprint["spacings"], strict=True):
        voxels += float(np.prod(np.array(shape)[forward] * np.array(spacing_mm)[forward] / np.array(plan["spacing"])))
    return round(voxels * (4 * len(plan["normalization_schemes"]) + 2) * KEPT_FRACTION)  # float32 channels, int16 labels


def require_whole(arrays: Path, case_ids: Sequence[str]) -> None:
    """Reads every array of these cases to its end. Raises: OutputError naming a case that is missing or cut short."""
    for case_id in case_ids:
        reason = _damage(arrays, case_id)
        if reason:
            raise OutputError(
                f"{arrays / case_id}: the preprocessed case cannot be read back ({reason}); check that the disk has room, then "
                "start again"
            )


def is_whole(arrays: Path, case_id: str) -> bool:
    """Whether data, labels and properties of a case are there, and readable to their end."""
    return (arrays / f"{case_id}.pkl").is_file() and not _damage(arrays, case_id)


def _damage(arrays: Path, case_id: str) -> str:
    """What is wrong with a preprocessed case; empty where nothing is."""
    try:
        data, labels, _, properties = nnUNetDatasetBlosc2(str(arrays), [case_id]).load_case(case_id)
        if data.shape[1:] != labels.shape[1:] or "class_locations" not in properties:
            return "its parts do not fit"
        for array in (data, labels):
            for first in range(0, array.shape[1], 64):
                if not np.isfinite(array[:, first : first + 64]).all():
                    return "it holds values that are not finite"
    except Exception as error:  # blosc2 and pickle raise many kinds
        return f"{type(error).__name__}: {error}"
    return ""
