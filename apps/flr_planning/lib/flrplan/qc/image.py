"""What the liver looks like in a CT, measured once for the rules that need the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Structure
from flrplan.qc.case import Grid

SMOOTH_MM = 2.0
_INSIDE_MM = 4.0
_LEAST_VOXELS = 200


@dataclass(frozen=True, eq=False)
class LiverLook:
    """smooth: HU after a Gaussian of :data:`SMOOTH_MM`, ``(Z, Y, X) float32``. median, spread: of it in parenchyma below the capsule,
    away from metastases; the spread is the standard deviation of a normal distribution with the same quartiles.
    """

    smooth: NDArray[np.float32]
    median: float
    spread: float


_KEPT: dict[int, tuple[Grid, LiverLook | None]] = {}


def liver_look(grid: Grid) -> LiverLook | None:
    """How the liver of a grid looks; None without a CT, or where too little parenchyma is left to tell. Kept for the last grid."""
    if (kept := _KEPT.get(id(grid))) is not None and kept[0] is grid:
        return kept[1]
    _KEPT.clear()
    _KEPT[id(grid)] = (grid, _look(grid))
    return _KEPT[id(grid)][1]


def _look(grid: Grid) -> LiverLook | None:
    if grid.hu is None:
        return None
    smooth: NDArray[Any] = ndimage.gaussian_filter(
        np.clip(grid.hu, -200, 400).astype(np.float32), [SMOOTH_MM / s for s in grid.spacing_zyx_mm], truncate=2.5
    )
    inside = grid.depth_mm > _INSIDE_MM
    crlm = grid.masks.get(Structure.CRLM)
    if crlm is not None and crlm.any():
        inside &= ~ndimage.binary_dilation(crlm, iterations=2)
    if np.count_nonzero(inside) < _LEAST_VOXELS:
        return None
    low, median, high = np.percentile(smooth[inside], (25, 50, 75))
    return LiverLook(smooth, float(median), max(float(high - low) / 1.349, 1.0))
