"""What a lesion looks like: a washed-out margin, a rim, a darker core, clumps of calcium."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flrplan.cohort.fields import FineGrid
from flrplan.cohort.lesions import Lesion
from flrplan.cohort.organs import Organ
from flrplan.image.smooth_noise import AxisArray, FloatArray

_CALCIUM_FROM, _CALCIUM_FULL = 1.4, 2.0


def draw_lesions(
    hu: FloatArray,
    grid: FineGrid,
    first_slice: int,
    labels: NDArray[np.uint8],
    numbers: NDArray[np.uint8],
    lesions: list[Lesion],
    mean_hu: FloatArray,
) -> None:
    """Draws lesions into the slices ``hu`` ``(Z, Y, X)`` from ``first_slice`` on, within liver and tumour.

    ``numbers`` are those of the lesions from 1 on; they decide which of two overlapping lesions is seen.
    """
    z, y, x = grid.axes_mm
    slices = FineGrid((z[first_slice : first_slice + hu.shape[0]], y, x))
    for number, lesion in enumerate(lesions):
        box = lesion.box(slices, lesion.edge_mm)
        if 0 in (cut.stop - cut.start for cut in box):
            continue
        axes = tuple(axis[cut] for axis, cut in zip(slices.axes_mm, box, strict=True))
        depth = lesion.depth_mm(*axes)
        own = numbers[box] == number + 1
        margin = (labels[box] == Organ.LIVER) & (depth > -lesion.edge_mm / 2)
        seen = np.clip(0.5 + depth / np.float32(lesion.edge_mm), 0, 1) * (own | margin)
        part = hu[box]
        part += seen * (_profile_hu(lesion, float(mean_hu[number]), depth, axes) - part)


def _profile_hu(lesion: Lesion, mean_hu: float, depth_mm: FloatArray, axes: tuple[AxisArray, ...]) -> FloatArray:
    hu = np.full(depth_mm.shape, mean_hu, np.float32)
    if lesion.rim_hu:
        width = np.float32(lesion.rim_mm)
        hu += np.float32(lesion.rim_hu) * np.clip(2 - depth_mm / width, 0, 1)
    if lesion.core_hu:
        hu -= np.float32(lesion.core_hu) * np.clip((depth_mm / lesion.diameter_mm - lesion.core_from) * 10, 0, 1)
    if lesion.mottle_hu:
        # Four sines have a variance of 2.
        hu += np.float32(lesion.mottle_hu / 2**0.5) * lesion.clumps(axes[0], axes[1], axes[2], finer=0.6)
    if lesion.calcium_hu:
        clump = np.clip((lesion.clumps(axes[0], axes[1], axes[2]) - _CALCIUM_FROM) / (_CALCIUM_FULL - _CALCIUM_FROM), 0, 1)
        hu += np.float32(lesion.calcium_hu) * clump * (depth_mm > 0.06 * lesion.diameter_mm)
    return hu
