"""What strategies go by, measured of one case: its image and the label that it came with; and how far masks differ."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from flrplan.anatomy import Mask, PlanningLabel
from flrplan.image import CT
from flrplan.qc import QcCase, Severity, check_case

SPECK_ML = 1.0
"""Smaller structures are measured against this volume: folds that differ about one speck do not disagree wholly."""
UNREADABLE = 4.0
"""``qc`` of a label that cannot be read, above every other."""
_VOXELS = 2_000_000
"""Of an image whose HU are looked at, about."""


def measure_image(ct: CT) -> dict[str, float]:
    """What the image alone tells: how it was scanned, and what it shows, as a few numbers. All are finite.

    extents and slice distance in mm; quartiles of the HU of soft tissue (-150 to 250); shares (0..1) of air, fat and bone.
    """
    step = max(round((ct.array_zyx.size / _VOXELS) ** (1 / 3)), 1)
    hu = np.asarray(ct.array_zyx[::step, ::step, ::step], np.float32)
    soft = hu[(hu > -150) & (hu < 250)]
    low, middle, high = np.percentile(soft, (25, 50, 75)) if soft.size else (0.0, 0.0, 0.0)
    shape, spacing = ct.geometry.shape_zyx, ct.geometry.spacing_zyx_mm
    found = {
        "extent_z_mm": shape[0] * spacing[0],
        "extent_y_mm": shape[1] * spacing[1],
        "slice_mm": max(spacing),
        "soft_hu_25": low,
        "soft_hu_50": middle,
        "soft_hu_75": high,
        "air": np.mean(hu < -300),
        "fat": np.mean((hu > -150) & (hu < -30)),
        "bone": np.mean(hu > 250),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def measure_label(label: PlanningLabel, ct: CT) -> dict[str, Any]:
    """What label QC finds: ``qc`` (:attr:`flrplan.qc.registry.Checked.score`), counts by severity, and the messages, the worst first."""
    checked = check_case(QcCase(ct.name, ct.geometry, dict(label.masks), ct))
    counts = {f"{severity}s": checked.count(severity) for severity in Severity}
    return {"qc": round(checked.score, 4), **counts, "messages": [f.message for f in checked.findings]}


def disagreement(masks: Sequence[Mask], voxel_ml: float) -> float:
    """How far masks ``(Z, Y, X) bool`` of one structure differ: the mean over their pairs of 1 - Dice, 0 (the same) to 1; 0 where all are empty.

    A ratio of volumes: a large image or a large liver has no more of it. Two that hold less than :data:`SPECK_ML` each are measured
    against that.
    """
    sizes = [np.count_nonzero(mask) * voxel_ml for mask in masks]
    found = [
        np.count_nonzero(masks[a] ^ masks[b]) * voxel_ml / max(sizes[a] + sizes[b], 2 * SPECK_ML)
        for a, b in combinations(range(len(masks)), 2)
    ]
    return float(np.mean(found)) if found else 0.0
