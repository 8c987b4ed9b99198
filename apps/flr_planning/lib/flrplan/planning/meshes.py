"""Surfaces of masks and of the cut as triangles in the patient's space, for the 3D view and for files that viewers open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure, structure_mask
from flrplan.errors import GridError
from flrplan.image import Geometry
from flrplan.planning.parts import numbered_lesions

EDGE_MM = 2.0
"""About the edge of a triangle: finer than what a surgeon cuts, and a liver has some 50,000 of them."""
CUT = "resection_surface"
"""The cut among :func:`meshes_of`."""

Field = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in the patient's space.

    vertices_lps_mm: ``(N, 3) float32``. triangles: ``(M, 3) int32``, counter-clockwise seen from outside. Both are empty for an empty mask.
    """

    vertices_lps_mm: NDArray[np.float32]
    triangles: NDArray[np.int32]

    @classmethod
    def empty(cls) -> Mesh:
        """No triangle."""
        return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))

    @property
    def is_empty(self) -> bool:
        """True without a triangle."""
        return not len(self.triangles)

    @property
    def is_closed(self) -> bool:
        """True if every edge is shared by exactly two triangles, so that the mesh has an inside; False for an empty one."""
        edges = np.sort(self.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        return not self.is_empty and bool((np.unique(edges, axis=0, return_counts=True)[1] == 2).all())

    @property
    def volume_ml(self) -> float:
        """What a closed mesh holds; negative where its triangles are turned inside out. Says nothing of an open one."""
        if self.is_empty:
            return 0.0
        a, b, c = np.moveaxis((self.vertices_lps_mm - self.vertices_lps_mm[0]).astype(np.float64)[self.triangles], 1, 0)
        return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6000.0


def meshes_of(label_zyx: NDArray[np.uint8], geometry: Geometry) -> dict[str, Mesh]:
    """The surfaces of a planning map: liver, FLR, LRS, ``crlm_<n>`` by number of the metastasis, and the cut; none of what has no voxels."""
    if not label_zyx.any():
        return {}
    box = _box(label_zyx > 0)
    label, grid = label_zyx[box], geometry.crop(box)
    found = {s.value: surface_mesh(structure_mask(label, s), grid) for s in (Structure.LIVER, Structure.FLR, Structure.LRS)}
    numbers = numbered_lesions(structure_mask(label, Structure.CRLM))
    for number, of_lesion in enumerate(ndimage.find_objects(numbers), 1):
        found[f"crlm_{number}"] = surface_mesh(numbers[of_lesion] == number, grid.crop(of_lesion))
    found[CUT] = cut_mesh(label > 0, structure_mask(label, Structure.FLR), grid)
    return {name: mesh for name, mesh in found.items() if not mesh.is_empty}


def surface_mesh(mask: Mask, geometry: Geometry, edge_mm: float = EDGE_MM) -> Mesh:
    """The closed surface of a mask ``(Z, Y, X) bool`` by marching cubes (Lewiner 2003), smoothed over about ``edge_mm``.

    It holds the volume of the mask's voxels to a few percent: the level is chosen so, and the edge is at most an eighth of a small mask's size.
    Where slices are thicker than ``edge_mm`` it is smoothed over half a slice. An empty mask gives an empty mesh. Raises: GridError for
    another shape.
    """
    if not _of_grid(mask, geometry).any():
        return Mesh.empty()
    edge_mm = min(edge_mm, float(np.cbrt(1000 * np.count_nonzero(mask) * geometry.voxel_volume_ml)) / 8)
    field, grid = _sampled(mask, _box(mask), geometry, edge_mm)
    cells = min(max(1, round(np.count_nonzero(mask) * geometry.voxel_volume_ml / grid.voxel_volume_ml)), field.size - 1)
    last, next_one = field.size - cells, field.size - cells - 1  # of the values that lie inside, and below them
    held = np.partition(field, (next_one, last), axis=None)
    return _triangulated(field, float(held[last] + held[next_one]) / 2, grid)


def cut_mesh(liver: Mask, flr: Mask, geometry: Geometry, edge_mm: float = EDGE_MM) -> Mesh:
    """The cut: the open surface between a liver's FLR and the rest of it, smoothed as :func:`surface_mesh`; triangles face the resection.

    Ends about half an ``edge_mm`` below the capsule. Empty without a cut: no liver, nothing resected, or all. Raises: GridError.
    """
    remnant = _of_grid(liver, geometry) & _of_grid(flr, geometry)
    if not remnant.any() or np.array_equal(remnant, liver):
        return Mesh.empty()
    box = _box(liver)
    inside, grid = _sampled(liver, box, geometry, edge_mm)
    share = _sampled(remnant, box, geometry, edge_mm)[0] / np.maximum(inside, np.float32(1e-6))
    return _triangulated(share, 0.5, grid, inside > 0.5)


def _of_grid(mask: Mask, geometry: Geometry) -> Mask:
    if mask.shape != geometry.shape_zyx:
        raise GridError(f"a mask on this grid has shape {geometry.shape_zyx} (z, y, x), got {mask.shape}")
    return mask


def _box(mask: Mask) -> tuple[slice, slice, slice]:
    hits = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return z, y, x


def _sampled(mask: Mask, box: tuple[slice, slice, slice], geometry: Geometry, edge_mm: float) -> tuple[Field, Geometry]:
    """The share of a mask around each point of a grid of ``edge_mm`` along its axes, 0 at the border, and that grid."""
    spacing = np.asarray(geometry.spacing_zyx_mm)
    sigma = 0.5 * np.maximum(edge_mm / spacing, 1.0)  # voxels
    margin = np.ceil(4 * sigma + 2 * edge_mm / spacing).astype(int)
    smooth: Field = np.pad(mask[box].astype(np.float32), [(m, m) for m in margin])
    smooth = ndimage.gaussian_filter(smooth, sigma, mode="constant", truncate=3.0)
    step = edge_mm / spacing
    shape = tuple(np.floor((np.asarray(smooth.shape) - 1) / step).astype(int) + 1)
    field: Field = ndimage.affine_transform(smooth, step, output_shape=shape, order=1)
    start = np.asarray([cut.start for cut in box]) - margin
    origin = geometry.world_mm(start[None, ::-1].astype(float))[0]
    z, y, x = shape
    return field, Geometry(
        (x, y, z), (edge_mm,) * 3, (float(origin[0]), float(origin[1]), float(origin[2])), geometry.direction
    )


def _triangulated(field: Field, level: float, grid: Geometry, where: Mask | None = None) -> Mesh:
    from skimage.measure import marching_cubes  # half a second of imports that nothing before needs

    try:
        points, triangles, _, _ = marching_cubes(field, level, mask=where, allow_degenerate=False)
    except (RuntimeError, ValueError):  # no surface at this level
        return Mesh.empty()
    mirrored = np.linalg.det(grid.direction_matrix) < 0  # (z, y, x) to (x, y, z) mirrors once, such a grid once more
    ordered: NDArray[Any] = triangles[:, ::-1] if mirrored else triangles
    return Mesh(grid.world_mm(points[:, ::-1]).astype(np.float32), np.ascontiguousarray(ordered, np.int32))
