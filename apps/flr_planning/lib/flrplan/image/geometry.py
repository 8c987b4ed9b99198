"""The voxel grid of an image in one type, and the checks that two grids are the same. Frame: LPS, millimetres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import GridError, ImageError
from flrplan.image.finite import require_unmasked

if TYPE_CHECKING:
    import SimpleITK as sitk

SAME_GRID_TOLERANCE_VOXELS = 0.05
"""Two grids are the same if no corner moves by more than this part of the smallest voxel edge.

Float32 headers (NIfTI) move a corner by some 1e-4 mm; a wrong spacing of 0.1 % moves it by half a voxel over 500 voxels.
"""


MAX_SHEAR_VOXELS = 0.5
"""How far the end of an axis may lie beside a right angle, as a part of the smallest voxel edge: within it every voxel still covers
its own place. A gantry tilt of 1 degree over 200 mm of slices is 3.5 mm, four to five voxels."""

_ROUNDED_COSINE, _ROUNDED_LENGTH = 1e-4, 1e-2
"""What headers with four digits leave of a right angle, and with two digits of the length of a direction cosine vector."""


@dataclass(frozen=True)
class Geometry:
    """Size, spacing, origin and direction of a 3D grid; ``x, y, z`` are index axes, the world frame is LPS in mm.

    ``direction`` is the row-major 3x3 matrix whose COLUMNS are the world directions of the index axes (as in ITK).
    """

    size_xyz: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if min(self.size_xyz) < 1:
            raise ImageError(f"every axis needs at least one voxel, got size {self.size_xyz}")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ImageError(f"spacing must be positive millimetres, got {self.spacing_mm}")
        if not np.isfinite(self.origin_mm).all():
            raise ImageError(f"the origin must be finite, got {self.origin_mm}")
        matrix = self.direction_matrix
        if not np.allclose(matrix.T @ matrix, np.eye(3), atol=1e-3):
            raise ImageError(f"the direction is not orthonormal (sheared grid): {np.round(self.direction, 4).tolist()}")

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """The geometry of a 3D SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def direction_matrix(self) -> NDArray[np.float64]:
        """``(3, 3) float64``; columns are the index axes in LPS."""
        return np.asarray(self.direction, float).reshape(3, 3)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Shape of the numpy array on this grid."""
        return (self.size_xyz[2], self.size_xyz[1], self.size_xyz[0])

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Spacing in the order of the numpy axes."""
        return (self.spacing_mm[2], self.spacing_mm[1], self.spacing_mm[0])

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def crop(self, box_zyx: tuple[slice, slice, slice]) -> Geometry:
        """The grid of ``array[box_zyx]``; the slices have a start, a stop and no step."""
        start = [cut.start for cut in box_zyx[::-1]]
        x, y, z = (cut.stop - cut.start for cut in box_zyx[::-1])
        origin = self.world_mm(np.array([start], float))[0]
        return replace(self, size_xyz=(x, y, z), origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])))

    def world_mm(self, index_xyz: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """World positions ``(N, 3)`` in LPS mm of index positions ``(N, 3)``."""
        scaled = np.asarray(index_xyz, float) * np.asarray(self.spacing_mm)
        return cast("NDArray[np.float64]", np.asarray(self.origin_mm) + scaled @ self.direction_matrix.T)

    def corners_mm(self) -> NDArray[np.float64]:
        """World positions ``(8, 3)`` of the eight corner voxels' centres."""
        return self.world_mm(np.array(list(product(*((0, n - 1) for n in self.size_xyz))), float))

    def is_same_grid(self, other: Geometry) -> bool:
        """True if sizes agree and no corner moves by more than :data:`SAME_GRID_TOLERANCE_VOXELS`."""
        if self.size_xyz != other.size_xyz:
            return False
        moved = np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max()
        # A grid of one voxel along an axis has no extent there: compare the spacing as well.
        tolerance = SAME_GRID_TOLERANCE_VOXELS * min(self.spacing_mm)
        return bool(moved <= tolerance and np.allclose(self.spacing_mm, other.spacing_mm, rtol=0.01))

    def image(self, array_zyx: NDArray[Any]) -> sitk.Image:
        """A SimpleITK image of ``array_zyx`` on this grid.

        Raises: GridError where the array has another shape; ImageError for a masked one.
        """
        require_unmasked(array_zyx, "an array on this grid")
        if array_zyx.shape != self.shape_zyx:
            raise GridError(f"an array on this grid has shape {self.shape_zyx} (z, y, x), got {array_zyx.shape}")
        import SimpleITK as sitk

        data = array_zyx.astype(np.uint8) if array_zyx.dtype == np.bool_ else array_zyx
        image = sitk.GetImageFromArray(data)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        return image

    def describe(self) -> str:
        """One line for messages: size, spacing, origin, direction."""
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        origin = ", ".join(f"{o:.2f}" for o in self.origin_mm)
        direction = ", ".join(f"{d:.3f}" for d in self.direction)
        return f"size {'x'.join(map(str, self.size_xyz))}, spacing {spacing} mm, origin ({origin}), direction ({direction})"


def straighten(
    size_xyz: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    origin_mm: tuple[float, ...],
    direction: NDArray[np.floating[Any]],
    source: str,
) -> tuple[Geometry, tuple[str, ...]]:
    """The grid at right angles that is nearest to the stated one about its centre, and a warning where they differ by more than rounding.

    direction: ``(3, 3)``, columns are the stated axes, which a header may round or shear; nearest is the polar decomposition.

    Raises: ImageError, with degrees and mm, for a shear of more than :data:`MAX_SHEAR_VOXELS`, and for a broken direction.
    """
    stated = np.asarray(direction, float).reshape(3, 3)
    lengths = np.linalg.norm(stated, axis=0)
    if not np.isfinite(stated).all() or np.abs(lengths - 1).max() > _ROUNDED_LENGTH:
        raise ImageError(f"{source}: the direction is not orthonormal: {np.round(stated.ravel(), 4).tolist()}; export it again")
    left, _, right = np.linalg.svd(stated / lengths)
    straight = left @ right
    x, y, z = (
        np.asarray(origin_mm) + ((stated / lengths - straight) * np.asarray(spacing_mm)) @ ((np.asarray(size_xyz) - 1) / 2)
    ).tolist()
    cosines = np.triu((stated / lengths).T @ (stated / lengths), 1)
    extent_mm = (np.asarray(size_xyz) - 1) * np.asarray(spacing_mm)
    beside_mm, allowed_mm = float(np.abs(cosines * extent_mm).max()), MAX_SHEAR_VOXELS * min(spacing_mm)
    angle, axis = np.degrees(np.arcsin(min(np.abs(cosines).max(), 1.0))), "xyz"[int(np.abs(cosines).max(axis=0).argmax())]
    how_far = f"{angle:.3f} degrees off a right angle, {beside_mm:.2f} mm at the end of the {axis} axis"
    if beside_mm > allowed_mm:
        raise ImageError(
            f"{source}: the voxel grid is sheared (not orthonormal), as after an uncorrected gantry tilt: {how_far}; up to {allowed_mm:.2f} mm, half a "
            "voxel, are taken for rounding; resample the image onto a straight grid first"
        )
    rounding = np.abs(cosines).max() <= _ROUNDED_COSINE and beside_mm <= SAME_GRID_TOLERANCE_VOXELS * min(spacing_mm)
    exact = rounding and np.allclose(stated.T @ stated, np.eye(3), atol=1e-6)
    grid = Geometry(
        (size_xyz[0], size_xyz[1], size_xyz[2]),
        (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
        (float(origin_mm[0]), float(origin_mm[1]), float(origin_mm[2])) if exact else (x, y, z),
        tuple(float(d) for d in (stated if exact else straight).ravel()),
    )
    return grid, () if rounding else (f"the axes of the voxel grid are {how_far}; the grid was straightened",)


def require_same_grid(reference: Geometry, other: Geometry, reference_name: str, other_name: str) -> None:
    """Raises GridError, naming both and what differs, unless the two grids are the same."""
    if not reference.is_same_grid(other):
        raise another_grid(reference, other, reference_name, other_name)


def another_grid(reference: Geometry, other: Geometry, reference_name: str, other_name: str) -> GridError:
    """The error of two grids that differ."""
    return GridError(
        f"{other_name} is not on the grid of {reference_name}.\n"
        f"  expected ({reference_name}): {reference.describe()}\n"
        f"  found    ({other_name}): {other.describe()}\n"
        "  Resample it onto that grid with nearest neighbour, or give the image it was drawn on."
    )
