"""Remnants that need no model, from a liver and its tumours: all that is far from tumour, the other side, one side of a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.image import Geometry
from flrplan.metrics import Region
from flrplan.metrics.lesions import components

TUMOUR_MARGIN_MM = 10.0
"""What is resected around each tumour: the margin that surgeons aim for."""

RIGHT_FRACTION = 0.65
"""The part of a liver's volume on its right side, split by a sagittal plane: about that of the right liver (Abdalla 2004, Surgery
135:404: two thirds). Cantlie's plane itself cannot be drawn without vessels."""

TOWARDS_LEFT = (1.0, 0.0, 0.0)
"""The patient's left in LPS; the normal of sagittal planes."""


@dataclass(frozen=True)
class Plane:
    """One plane for every patient: the remnant is the part ``flr_fraction`` of the liver's volume that lies farthest along the normal.

    normal_lps: unit vector in patient axes. cases, dice: how many training cases chose it, and its mean Dice on samples of them.
    """

    normal_lps: tuple[float, float, float]
    flr_fraction: float
    cases: int
    dice: float


def heights_mm(region: Region, geometry: Geometry, normal_lps: tuple[float, float, float]) -> NDArray[np.float64]:
    """``(Z, Y, X)``: how far each voxel of a region's crop lies along a direction of the patient, whatever the file's axes."""
    along_zyx = (np.array(normal_lps) @ geometry.direction_matrix)[::-1]
    total = np.zeros((1, 1, 1))
    for axis in range(3):
        steps = region.start_zyx[axis] + np.arange(region.crop_zyx.shape[axis])
        shape = [-1 if a == axis else 1 for a in range(3)]
        total = total + (steps * (region.spacing_zyx_mm[axis] * along_zyx[axis])).reshape(shape)
    return np.asarray(total)


def farthest_part(liver: Region, geometry: Geometry, normal_lps: tuple[float, float, float], fraction: float) -> Region:
    """The part of a liver's volume that lies farthest along a direction; voxels that lie equally far stay together.

    An empty liver gives an empty region.
    """
    count = round(fraction * liver.voxels)
    if count == 0:
        return liver.kept(np.zeros_like(liver.crop_zyx))
    heights = heights_mm(liver, geometry, normal_lps)
    inside = heights[liver.crop_zyx]
    return liver.kept(heights >= np.partition(inside, len(inside) - count)[len(inside) - count])


def without_tumour(liver: Region, crlm: Region, margin_mm: float = 0.0) -> Region:
    """The liver without its tumours and all that lies within a distance of them (from voxel to voxel, inclusive)."""
    keep = ~crlm.on_crop_of(liver)
    if margin_mm == 0.0 or crlm.is_empty:
        return liver.kept(keep)
    labels, _ = components(crlm)
    reach = [int(margin_mm / s) for s in liver.spacing_zyx_mm]
    padded = np.pad(labels, [(r, r) for r in reach])
    near = np.zeros(padded.shape, np.bool_)
    for number, box in enumerate(ndimage.find_objects(padded), start=1):
        wide = tuple(slice(s.start - r, s.stop + r) for s, r in zip(box, reach, strict=True))
        near[wide] |= ndimage.distance_transform_edt(padded[wide] != number, sampling=liver.spacing_zyx_mm) <= margin_mm
    start = [a - r for a, r in zip(crlm.start_zyx, reach, strict=True)]
    # The margin may reach beyond the image: cut it to the grid.
    low = [max(0, -s) for s in start]
    high = [min(n, size - s) for n, size, s in zip(near.shape, crlm.grid_shape_zyx, start, strict=True)]
    inside = near[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    z, y, x = (max(0, s) for s in start)
    around = Region(inside, (z, y, x), crlm.grid_shape_zyx, crlm.spacing_zyx_mm, int(np.count_nonzero(inside)))
    return liver.kept(~around.on_crop_of(liver))


def without_tumour_side(liver: Region, crlm: Region, geometry: Geometry) -> Region:
    """The liver without the side that holds more of its tumour; the right one on a tie, none without tumour.

    The sides are split by the sagittal plane with :data:`RIGHT_FRACTION` of the liver's volume on its right.
    """
    left = farthest_part(liver, geometry, TOWARDS_LEFT, 1.0 - RIGHT_FRACTION)
    on_left, in_liver = crlm.voxels_shared_with(left), crlm.voxels_shared_with(liver)
    if in_liver == 0:
        return liver
    return left if 2 * on_left <= in_liver else liver.kept(~left.on_crop_of(liver))


def beyond_plane(liver: Region, geometry: Geometry, plane: Plane) -> Region:
    """The remnant that a fixed plane leaves of a liver."""
    return farthest_part(liver, geometry, plane.normal_lps, plane.flr_fraction)
