"""What the liver looks like in a CT, for the rules that compare with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask

SMOOTH_MM = 2.0
_CLIP_HU = (-200, 400)
_INSIDE_MM = 4.0
_LEAST_VOXELS = 200


@dataclass(frozen=True, eq=False)
class LiverLook:
    """smooth: HU after a Gaussian of :data:`SMOOTH_MM`, ``(Z, Y, X) float32``. median, spread: of it in parenchyma below the capsule,
    away from metastases; the spread is the standard deviation of a normal distribution with the same quartiles, at least 1 HU.
    """

    smooth: NDArray[np.float32]
    median: float
    spread: float


def liver_look(
    hu: NDArray[Any], depth_mm: NDArray[np.float32], crlm: Mask | None, spacing_zyx_mm: tuple[float, float, float]
) -> LiverLook | None:
    """How a liver looks; None where too little parenchyma is left to tell. depth_mm: below the liver's surface, 0 outside."""
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(
        np.clip(hu, *_CLIP_HU).astype(np.float32), [SMOOTH_MM / s for s in spacing_zyx_mm], truncate=2.5
    )
    inside = depth_mm > _INSIDE_MM
    if crlm is not None and crlm.any():
        inside &= ~ndimage.binary_dilation(crlm, iterations=2)
    if np.count_nonzero(inside) < _LEAST_VOXELS:
        return None
    low, median, high = np.percentile(smooth[inside], (25, 50, 75))
    return LiverLook(smooth, float(median), max(float(high - low) / 1.349, 1.0))
