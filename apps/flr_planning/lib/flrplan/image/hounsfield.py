"""Are these Hounsfield units, and of a grid that a CT can have? Each refusal says what the image looks like instead."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import ImageError
from flrplan.image.finite import count_non_finite, require_finite
from flrplan.image.geometry import Geometry

MIN_SPACING_MM = 0.2
"""Finest voxel edge of a body CT; below it a unit is wrong, or it is a specimen scan."""

MAX_IN_PLANE_SPACING_MM = 5.0
"""Coarsest pixel; a full field of view of 500 mm on 128 pixels has 3.9 mm."""

MAX_SLICE_SPACING_MM = 15.0
"""Coarsest distance of slices; beyond it a tumour can lie between two slices."""

MIN_VOXELS = 1000
"""Fewer cannot show a liver (a liver of 1 l at 15 x 5 x 5 mm has 2700)."""

OFFSET_HU = 1024
"""What a lost rescale intercept adds: no voxel of the body is below 0 then, and bone lies above it."""

PADDINGS = 2
"""Values at most that corners (-2000, -3024) and what lies beside the picture (-1024, -1000) were filled with; a body has hundreds below 0 HU."""

AIR_BELOW_HU = -200
"""Every CT of the abdomen has voxels below it (air around the body, gas in the bowel); MR and windowed pictures do not."""

SOFT_TISSUE_HU = (-150, 250)
"""Fat to enhanced organs and vessels; most of a body lies here."""

MIN_SOFT_TISSUE_FRACTION = 0.01
"""A body CT has 10 % of its voxels in the soft-tissue range even with a wide field of view; a shifted one next to none."""


def as_hu(array: NDArray[Any], source: str) -> NDArray[Any]:
    """The same values as int16 where that loses nothing, else as float32.

    Raises: ImageError for 8-bit pictures, NaN and infinity.
    """
    if array.dtype.itemsize == 1:
        raise ImageError(f"{source}: expected HU in 12 bits or more, found an 8-bit picture or a mask; export the original CT")
    if array.dtype == np.int16:
        return array
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        require_finite(count_non_finite(array), array.size, source)
    limits = np.iinfo(np.int16)
    fits = limits.min <= low and high <= limits.max
    if fits and (array.dtype.kind in "iu" or all((plane == np.rint(plane)).all() for plane in array)):
        return array.astype(np.int16)
    return array.astype(np.float32, copy=False)


def check_hu(array_zyx: NDArray[Any], source: str) -> None:
    """Raises ImageError unless the values look like HU of a body; the message says what they look like."""
    low, high = float(array_zyx.min()), float(array_zyx.max())
    found = f"found values {low:g} to {high:g}"
    if low == high:
        raise ImageError(f"{source}: every voxel is {low:g}; expected a CT, export it again")
    if high > OFFSET_HU and (padding := _padding(array_zyx)):
        low = float(array_zyx.min(where=array_zyx >= 0, initial=high))
        found = f"found values {low:g} to {high:g} beside padding of {' and '.join(f'{value:g}' for value in padding)}"
    if low >= AIR_BELOW_HU:
        raise ImageError(
            f"{source}: expected HU with air below {AIR_BELOW_HU}, {found}: {_resemblance(low, high)}; give the CT in HU"
        )
    inside = (array_zyx >= SOFT_TISSUE_HU[0]) & (array_zyx <= SOFT_TISSUE_HU[1])
    fraction = np.count_nonzero(inside) / array_zyx.size
    if fraction < MIN_SOFT_TISSUE_FRACTION:
        raise ImageError(
            f"{source}: expected a body, but only {100 * fraction:.2g} % of the voxels lie in {SOFT_TISSUE_HU[0]}.."
            f"{SOFT_TISSUE_HU[1]} HU ({found}): values shifted or scaled, or no patient in view; give the CT in HU"
        )


def check_grid(geometry: Geometry, source: str) -> None:
    """Raises ImageError where no body CT has such a grid: one slice, few voxels, an absurd spacing, no finite origin."""
    size = "x".join(map(str, geometry.size_xyz))
    if min(geometry.size_xyz) < 2:
        raise ImageError(f"{source}: expected a volume, found a single slice (size {size}); give the whole series")
    if int(np.prod(geometry.size_xyz)) < MIN_VOXELS:
        raise ImageError(f"{source}: expected a volume of at least {MIN_VOXELS} voxels, found size {size}")
    if not np.isfinite(geometry.origin_mm).all():
        raise ImageError(f"{source}: the origin {geometry.origin_mm} is not finite; export the image again")
    smallest, middle, largest = sorted(geometry.spacing_mm)
    if smallest < MIN_SPACING_MM or middle > MAX_IN_PLANE_SPACING_MM or largest > MAX_SLICE_SPACING_MM:
        spacing = " x ".join(f"{s:.4g}" for s in geometry.spacing_mm)
        raise ImageError(
            f"{source}: expected a spacing of {MIN_SPACING_MM}..{MAX_IN_PLANE_SPACING_MM:g} mm in the plane and up to "
            f"{MAX_SLICE_SPACING_MM:g} mm between slices, found {spacing} mm; check the unit in its header (mm, not m or cm)"
        )


def _padding(array_zyx: NDArray[Any]) -> list[float]:
    """The values below 0, where they are so few that none of them was measured."""
    for part in (array_zyx[len(array_zyx) // 2], array_zyx):  # one slice tells of nearly every CT
        below = np.unique(part[part < 0])
        if len(below) > PADDINGS:
            return []
    return [float(value) for value in below]


def _resemblance(low: float, high: float) -> str:
    if high <= 255 and low >= 0:
        return "this looks like a picture scaled to grey values, or a mask"
    if low >= 0:
        return "this looks like a CT stored as HU + 1024 (rescale intercept lost), or an MR"
    if high - low <= 50:
        return "this looks like normalised intensities"
    return "this looks like a CT cut to a window, or an MR"
