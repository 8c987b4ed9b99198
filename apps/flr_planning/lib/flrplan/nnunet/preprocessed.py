"""The preprocessed arrays on disk: how much room they take, and whether every one is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from flrplan.errors import OutputError
from flrplan.nnunet.planning import CONFIGURATION

KEPT_FRACTION = 0.6
"""Compressed over plain size of a noisy CT as float32 with its labels; a rough figure, see docs/training.md."""


def expected_bytes(folder: Path, plans: Mapping[str, Any]) -> int:
    """Estimated size on disk of all preprocessed cases, from nnU-Net's fingerprint and the planned spacing."""
    fingerprint = json.loads((folder / "dataset_fingerprint.json").read_text(encoding="utf-8"))
    target_mm = np.array(plans["configurations"][CONFIGURATION]["spacing"])
    forward = plans["transpose_forward"]
    channels = len(plans["configurations"][CONFIGURATION]["normalization_schemes"])
    voxels = 0.0
    for shape, spacing_mm in zip(fingerprint["shapes_after_crop"], fingerprint["spacings"], strict=True):
        voxels += float(np.prod(np.array(shape)[forward] * np.array(spacing_mm)[forward] / target_mm))
    return round(voxels * (4 * channels + 2) * KEPT_FRACTION)


def require_whole(folder: Path, case_ids: Sequence[str]) -> None:
    """Reads every array of these cases to its end. Raises: OutputError naming a file that is missing or cut short."""
    arrays = (
        folder
        / json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))["configurations"][CONFIGURATION][
            "data_identifier"
        ]
    )
    cases = nnUNetDatasetBlosc2(str(arrays), list(case_ids))
    for case_id in case_ids:
        try:
            data, labels, _, properties = cases.load_case(case_id)
            whole = data.shape[1:] == labels.shape[1:] and "class_locations" in properties
            for array in (data, labels):
                for first in range(0, array.shape[1], 64):
                    whole = whole and bool(np.isfinite(array[:, first : first + 64]).all())
        except Exception as error:  # blosc2 and pickle raise many kinds
            raise OutputError(
                f"{arrays / case_id}: the preprocessed case cannot be read back ({error}); check that the disk has room, then "
                "start again"
            ) from error
        if not whole:
            raise OutputError(f"{arrays / case_id}: the preprocessed case is not whole; check the disk, then start again")
