"""Canonical axis order: arrays ``(z, y, x)`` whose axes run to superior, posterior and left (LPS), by flips and swaps only.

Networks are trained and run in this order, so a sagittal NIfTI or a flipped axis gives the same answer as the axial CT.
No voxel is interpolated: an oblique grid stays oblique, its axes are only renamed to the nearest world axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import GridError
from flrplan.image.geometry import Geometry

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Canonical:
    """How to bring arrays on ``source`` into canonical axis order, and back. ``target`` is the grid after it."""

    source: Geometry
    target: Geometry
    axes_zyx: tuple[int, int, int]
    flip_zyx: tuple[bool, bool, bool]

    @classmethod
    def of(cls, source: Geometry) -> Canonical:
        """The swap and flips for one grid; world axis and index axis are matched by the largest total cosine."""
        from scipy.optimize import linear_sum_assignment

        cosines = source.direction_matrix  # rows: world x, y, z; columns: index x, y, z
        _, index_axis_of_world = linear_sum_assignment(-np.abs(cosines))
        flip_xyz = tuple(bool(cosines[world, axis] < 0) for world, axis in enumerate(index_axis_of_world))
        size = tuple(source.size_xyz[a] for a in index_axis_of_world)
        spacing = tuple(source.spacing_mm[a] for a in index_axis_of_world)
        signs = np.where(flip_xyz, -1.0, 1.0)
        direction = cosines[:, index_axis_of_world] * signs
        first_voxel = np.zeros(3)
        for world, axis in enumerate(index_axis_of_world):
            first_voxel[axis] = source.size_xyz[axis] - 1 if flip_xyz[world] else 0
        origin = source.world_mm(first_voxel[None])[0]
        target = Geometry(
            (size[0], size[1], size[2]),
            (spacing[0], spacing[1], spacing[2]),
            (float(origin[0]), float(origin[1]), float(origin[2])),
            tuple(float(d) for d in direction.ravel()),
        )
        axes_zyx = tuple(2 - int(a) for a in index_axis_of_world[::-1])
        return cls(source, target, (axes_zyx[0], axes_zyx[1], axes_zyx[2]), (flip_xyz[2], flip_xyz[1], flip_xyz[0]))

    def forward(self, array_zyx: NDArray[Scalar]) -> NDArray[Scalar]:
        """A view of an array on ``source`` in canonical order. Raises GridError for another shape."""
        if array_zyx.shape != self.source.shape_zyx:
            raise GridError(f"expected an array of shape {self.source.shape_zyx} (z, y, x), got {array_zyx.shape}")
        moved = array_zyx.transpose(self.axes_zyx)
        return moved[tuple(slice(None, None, -1 if f else 1) for f in self.flip_zyx)]

    def backward(self, array_zyx: NDArray[Scalar]) -> NDArray[Scalar]:
        """A contiguous array on ``source`` from one in canonical order. Raises GridError for another shape."""
        if array_zyx.shape != self.target.shape_zyx:
            raise GridError(f"expected a canonical array of shape {self.target.shape_zyx} (z, y, x), got {array_zyx.shape}")
        unflipped = array_zyx[tuple(slice(None, None, -1 if f else 1) for f in self.flip_zyx)]
        return np.ascontiguousarray(unflipped.transpose(tuple(np.argsort(self.axes_zyx))))

    def voxels_forward(self, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices ``(N, 3)`` of voxels, z first, of an array on ``source`` as those of the same voxels in canonical order."""
        moved = voxels[:, self.axes_zyx]
        return np.asarray(np.where(self.flip_zyx, np.array(self.target.shape_zyx) - 1 - moved, moved))

    def voxels_backward(self, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices ``(N, 3)`` of voxels in canonical order as those of the same voxels of an array on ``source``."""
        unflipped = np.where(self.flip_zyx, np.array(self.target.shape_zyx) - 1 - voxels, voxels)
        return np.asarray(unflipped[:, np.argsort(self.axes_zyx)])


def in_axis_order(array_zyx: NDArray[Scalar], own: Geometry, grid: Geometry) -> NDArray[Scalar] | None:
    """An array on ``own`` in the axis order of ``grid``; None where they are different places. Flips and swaps alone, no voxel moves."""
    if grid.is_same_grid(own):
        return array_zyx
    here, there = Canonical.of(grid), Canonical.of(own)
    return here.backward(there.forward(array_zyx)) if here.target.is_same_grid(there.target) else None
