"""A binary mask, cropped to its bounding box once, so that every metric works on as few voxels as possible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask
from flrplan.errors import GridError
from flrplan.metrics.surface import Surface

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Region:
    """The voxels of one mask on one grid.

    crop_zyx: ``(Z, Y, X) bool``, the mask inside its bounding box; shape ``(0, 0, 0)`` for an empty mask.
    start_zyx: index of the crop's first voxel in the grid.
    grid_shape_zyx: shape of the whole grid. ``spacing_zyx_mm``: voxel size in array order.
    voxels: number of voxels in the mask.
    """

    crop_zyx: Mask
    start_zyx: tuple[int, int, int]
    grid_shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: Spacing
    voxels: int

    @classmethod
    def of(cls, mask_zyx: Mask, spacing_zyx_mm: Spacing) -> Region:
        """The region of a ``(Z, Y, X) bool`` mask; the crop is a copy, the mask itself is not kept."""
        crop: Mask = mask_zyx
        start = [0, 0, 0]
        for axis in range(3):
            hit = np.flatnonzero(crop.any(axis=tuple(a for a in range(3) if a != axis)))
            first, end = (int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, 0)
            start[axis] = first
            crop = crop[tuple(slice(first, end) if a == axis else slice(None) for a in range(3))]
        crop = np.array(crop, dtype=np.bool_, order="C") if crop.size else np.zeros((0, 0, 0), np.bool_)
        z, y, x = mask_zyx.shape
        return cls(crop, (start[0], start[1], start[2]), (z, y, x), spacing_zyx_mm, int(np.count_nonzero(crop)))

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the crop lies in an array on the grid."""
        z, y, x = (slice(a, a + n) for a, n in zip(self.start_zyx, self.crop_zyx.shape, strict=True))
        return z, y, x

    @property
    def is_empty(self) -> bool:
        """True if no voxel is set."""
        return self.voxels == 0

    @property
    def volume_ml(self) -> float:
        """Volume in millilitres, 0 for an empty mask."""
        z, y, x = self.spacing_zyx_mm
        return self.voxels * z * y * x / 1000.0

    @cached_property
    def surface(self) -> Surface:
        """The surface elements; computed once, so a reference shares it among all its predictions."""
        return Surface.of_crop(self.crop_zyx, self.start_zyx, self.spacing_zyx_mm)

    def shared_box(self, other: Region) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]] | None:
        """Where the two bounding boxes meet, as slices into this crop and into the other's; None if they do not.

        Raises: GridError where the regions lie on grids of different shape or spacing.
        """
        if self.grid_shape_zyx != other.grid_shape_zyx or not np.allclose(self.spacing_zyx_mm, other.spacing_zyx_mm):
            raise GridError(
                f"two masks are compared on one grid, got shapes {self.grid_shape_zyx} and {other.grid_shape_zyx}, "
                f"spacings {self.spacing_zyx_mm} and {other.spacing_zyx_mm}; resample one of them"
            )
        mine, theirs = [], []
        for axis in range(3):
            low = max(self.start_zyx[axis], other.start_zyx[axis])
            high = min(self.start_zyx[axis] + self.crop_zyx.shape[axis], other.start_zyx[axis] + other.crop_zyx.shape[axis])
            if high <= low:
                return None
            mine.append(slice(low - self.start_zyx[axis], high - self.start_zyx[axis]))
            theirs.append(slice(low - other.start_zyx[axis], high - other.start_zyx[axis]))
        return (mine[0], mine[1], mine[2]), (theirs[0], theirs[1], theirs[2])

    def on_crop_of(self, other: Region) -> Mask:
        """``(Z, Y, X) bool``: this mask on the other's crop, a copy. Raises GridError for different grids."""
        mask = np.zeros(other.crop_zyx.shape, np.bool_)
        boxes = self.shared_box(other)
        if boxes is not None:
            mask[boxes[1]] = self.crop_zyx[boxes[0]]
        return mask

    def kept(self, keep_zyx: Mask) -> Region:
        """The voxels of this region where ``keep_zyx``, ``bool`` on this crop, is true."""
        left = Region.of(self.crop_zyx & keep_zyx, self.spacing_zyx_mm)
        z, y, x = (a + b for a, b in zip(self.start_zyx, left.start_zyx, strict=True))
        return Region(left.crop_zyx, (z, y, x), self.grid_shape_zyx, self.spacing_zyx_mm, left.voxels)

    def voxels_shared_with(self, other: Region) -> int:
        """The number of voxels that lie in both masks."""
        boxes = self.shared_box(other)
        if boxes is None:
            return 0
        return int(np.count_nonzero(self.crop_zyx[boxes[0]] & other.crop_zyx[boxes[1]]))


def regions_of(
    labels_zyx: NDArray[np.integer[Any]], spacing_zyx_mm: Spacing, part_of: Region | None = None
) -> dict[int, Region]:
    """The region of each label > 0 of a label map ``(Z, Y, X)``, by rising number. ``part_of``: the map is on this region's crop."""
    start, shape = ((0, 0, 0), labels_zyx.shape) if part_of is None else (part_of.start_zyx, part_of.grid_shape_zyx)
    found: dict[int, Region] = {}
    boxes = ndimage.find_objects(labels_zyx) if labels_zyx.size else []
    for number, box in enumerate(boxes, 1):
        if box is None:
            continue
        crop = labels_zyx[box] == number
        z, y, x = (a + s.start for a, s in zip(start, box, strict=True))
        found[number] = Region(crop, (z, y, x), (shape[0], shape[1], shape[2]), spacing_zyx_mm, int(np.count_nonzero(crop)))
    return found
