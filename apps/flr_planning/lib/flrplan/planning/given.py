"""A resection that a person gives in place of the predicted one, and what the cut of a plan would have to become for a larger remnant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask
from flrplan.errors import LabelError, SettingsError
from flrplan.files.checked import require_number
from flrplan.image import Geometry
from flrplan.metrics.region import Region
from flrplan.planning.coherent import whole_metastases
from flrplan.planning.cut_file import Plane
from flrplan.planning.meshes import Mesh

BEYOND_MM = 10.0
"""A cut surface may end so far before the capsule; it is then carried on as it ends. The margin that surgeons aim for."""
NOT_ADVICE = "arithmetic, not advice"
_STEP = 0.5
"""Triangles are cut up until no edge is longer, in voxels: then they leave no voxel of the surface out."""
_MOST_TRIANGLES, _POCKET = 20_000_000, 64
"""Regions of fewer voxels between triangles go with the nearest larger one."""


def require_in_liver(given: Mask, name: str, liver: Mask, voxel_ml: float) -> int:
    """How many voxels of a given mask lie outside the liver. Raises: LabelError where that is all of them; an empty mask has none."""
    inside = np.count_nonzero(given & liver)
    outside = np.count_nonzero(given) - inside
    if outside and not inside:
        raise LabelError(
            f"the given {name} ({outside * voxel_ml:.1f} ml) lies outside the liver; give one that was drawn on this CT"
        )
    return outside


def remnant_of_masks(flr: Mask | None, resection: Mask | None, liver: Mask, voxel_ml: float) -> tuple[Mask, list[str]]:
    """The FLR of a given remnant, or of a given resection, and what a person should know of it.

    An empty mask is an answer: everything, or nothing, is resected. Raises: LabelError for a mask that lies outside the liver as a whole.
    """
    given, name = (resection, "resection") if flr is None else (flr, "FLR")
    if given is None:
        raise SettingsError("give an FLR or a resection")
    outside = require_in_liver(given, name, liver, voxel_ml)
    lost = [f"{outside * voxel_ml:.1f} ml of the given {name} lie outside the liver and take no part"] if outside else []
    return (given if flr is not None else liver & ~given), lost if flr is None else []  # of an FLR the planning map tells it


def remnant_of_cut(
    cut: Plane | Mesh, liver: Mask, crlm: Mask, geometry: Geometry, other_side: bool = False
) -> tuple[Mask, str]:
    """The FLR ``(Z, Y, X) bool`` that a cut leaves of a liver, and which side was taken, in words.

    A closed mesh encloses the resection. Of a plane and of an open mesh, the side with more metastases is resected; without any on either
    side, or with as many, the smaller side. other_side: the other one. An open mesh may end up to :data:`BEYOND_MM` before the capsule.

    Raises: LabelError where the cut misses the liver, and for an open mesh that ends or has a hole inside the liver.
    """
    region = Region.of(liver, geometry.spacing_zyx_mm)
    if region.is_empty:
        raise LabelError("there is no liver to cut")
    grid, inside = geometry.crop(region.box), region.crop_zyx
    closed = isinstance(cut, Mesh) and cut.is_closed
    if isinstance(cut, Plane):
        side = _side_of_plane(cut, grid)
    else:
        side = _inside_of_mesh(cut, grid) if closed else _side_of_mesh(cut, inside, grid)
    one = side & inside
    if not one.any() or np.array_equal(one, inside):
        raise LabelError(_missed(cut, closed, inside, grid))
    if not closed and not isinstance(cut, Plane):
        _require_whole(cut, one, inside, grid)
    if closed:
        resected, why = one, "what the closed mesh encloses is resected"
    else:
        with_lesions = [int(np.count_nonzero(crlm[region.box] & part)) for part in (one, inside & ~one)]
        if with_lesions[0] != with_lesions[1]:
            first, why = with_lesions[0] > with_lesions[1], "the side with more of the metastases is resected"
        else:
            first, why = np.count_nonzero(one) * 2 <= region.voxels, "the smaller side is resected"
        resected = one if first else inside & ~one
    if other_side:
        resected, why = inside & ~resected, "the other side than by default was asked for"
    flr = np.zeros_like(liver)
    flr[region.box] = inside & ~resected
    return flr, f"{why} (other side: --other-side)" if not other_side else why


def _linear(grid: Geometry, point: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The signed distance of each voxel centre to a plane, mm."""
    unit = normal / np.abs(normal).max()  # first, since the length of one that is very long or short is none
    unit /= np.linalg.norm(unit)
    x, y, z = unit @ (grid.direction_matrix * np.asarray(grid.spacing_mm))
    iz, iy, ix = np.ogrid[: grid.shape_zyx[0], : grid.shape_zyx[1], : grid.shape_zyx[2]]
    return np.asarray(float(unit @ (np.asarray(grid.origin_mm) - point)) + z * iz + y * iy + x * ix)


def _side_of_plane(plane: Plane, grid: Geometry) -> Mask:
    return np.asarray(_linear(grid, np.asarray(plane.point_lps_mm), np.asarray(plane.normal_lps)) > 0)


def _in_voxels(mesh: Mesh, grid: Geometry) -> NDArray[np.float64]:
    """The corners of the triangles ``(N, 3, 3)`` as indices ``(z, y, x)``."""
    along = (mesh.vertices_lps_mm.astype(float) - grid.origin_mm) @ grid.direction_matrix / np.asarray(grid.spacing_mm)
    return np.asarray(along[:, ::-1][mesh.triangles])


def _near(corners: NDArray[np.float64], shape: tuple[int, ...], margin: float) -> NDArray[np.float64]:
    """Pieces of triangles no longer than :data:`_STEP` voxels, of those within a margin of the grid."""
    done = []
    while len(corners):
        meets = ((corners.max(axis=1) >= -margin) & (corners.min(axis=1) <= np.asarray(shape) - 1 + margin)).all(axis=1)
        corners = corners[meets]
        small = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1) <= _STEP
        done.append(corners[small])
        a, b, c = np.moveaxis(corners[~small], 1, 0)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        if len(corners) + sum(map(len, done)) > _MOST_TRIANGLES:
            raise LabelError("the mesh has far more surface inside the liver than a cut has; give the surface of the cut alone")
    return np.concatenate(done) if done else corners


def _wall(pieces: NDArray[np.float64], shape: tuple[int, ...], margin: int) -> Mask:
    """The voxels that a surface passes through, on the grid with a margin around it."""
    wall = np.zeros([n + 2 * margin for n in shape], np.bool_)
    places = np.rint(pieces.reshape(-1, 3)).astype(int) + margin
    z, y, x = places[((places >= 0) & (places < wall.shape)).all(axis=1)].T
    wall[z, y, x] = True
    return wall


def _inside_of_mesh(mesh: Mesh, grid: Geometry) -> Mask:
    """What a closed mesh encloses: what cannot be reached from outside; voxels on the surface go with the nearest that is not on it."""
    margin = 2
    wall = _wall(_near(_in_voxels(mesh, grid), grid.shape_zyx, margin), grid.shape_zyx, margin)
    labels, _ = ndimage.label(~wall)
    sizes = np.bincount(labels.ravel())
    large = np.flatnonzero(sizes >= min(_POCKET, sizes[1:].max(initial=0)))
    corners, known, inside = _in_voxels(mesh, grid), np.zeros(wall.shape, np.bool_), np.zeros(wall.shape, np.bool_)
    boxes = ndimage.find_objects(labels)
    for number in large[large > 0].tolist():  # the mesh may be larger than the grid, so that its border says nothing
        box = boxes[number - 1]
        region = labels[box] == number
        place = np.argwhere(region)[0] + [cut.start for cut in box] - margin
        known[box] |= region
        if _encloses(corners, place.astype(float)):
            inside[box] |= region
    z, y, x = ndimage.distance_transform_edt(~known, sampling=grid.spacing_zyx_mm, return_distances=False, return_indices=True)
    return np.asarray(inside[z, y, x][margin:-margin, margin:-margin, margin:-margin])


def _encloses(corners: NDArray[np.float64], place: NDArray[np.float64]) -> bool:
    """Whether a closed surface encloses a place: its winding number (Van Oosterom and Strackee 1983, doi 10.1109/TBME.1983.325207)."""
    a, b, c = np.moveaxis(corners - place, 1, 0)
    la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
    triple = np.einsum("ij,ij->i", a, np.cross(b, c))
    dots = [np.einsum("ij,ij->i", u, v) * w for u, v, w in ((a, b, lc), (b, c, la), (c, a, lb))]
    angle = 2 * np.arctan2(triple, la * lb * lc + sum(dots))
    return bool(abs(angle.sum()) > 2 * math.pi)


def _side_of_mesh(mesh: Mesh, inside: Mask, grid: Geometry) -> Mask:
    """On which side of the nearest place of an open mesh each voxel lies; beyond its edge the mesh goes on as it ends."""
    pieces = _near(_in_voxels(mesh, grid), grid.shape_zyx, 0.5)
    if not len(pieces):
        return np.zeros_like(inside)
    spacing = np.asarray(grid.spacing_zyx_mm)
    a, b, c = np.moveaxis(pieces * spacing, 1, 0)
    across = np.cross(b - a, c - a)  # as long as the area is large, so that the mean weighs by it
    places = np.clip(np.rint(pieces.mean(axis=1)), 0, np.asarray(inside.shape) - 1).astype(int)
    flat = np.ravel_multi_index(tuple(places.T), inside.shape)
    used, index = np.unique(flat, return_inverse=True)
    weight = np.linalg.norm(across, axis=1)
    total = np.maximum(np.bincount(index, weight), 1e-12)
    middle = np.stack([np.bincount(index, ((a + b + c) / 3)[:, k] * weight) / total for k in range(3)], axis=1)
    normal = np.stack([np.bincount(index, across[:, k]) for k in range(3)], axis=1)
    wall = np.zeros(inside.shape, np.bool_)
    wall.ravel()[used] = True
    nearest = ndimage.distance_transform_edt(~wall, sampling=grid.spacing_zyx_mm, return_distances=False, return_indices=True)
    number = np.zeros(inside.shape, np.int32)
    number.ravel()[used] = np.arange(len(used))
    voxels = np.argwhere(inside)
    of_voxel = number[tuple(nearest[(slice(None), *voxels.T)])]
    side = np.zeros(inside.shape, np.bool_)
    side[tuple(voxels.T)] = np.einsum("ij,ij->i", voxels * spacing - middle[of_voxel], normal[of_voxel]) > 0
    return side


def _require_whole(mesh: Mesh, one: Mask, inside: Mask, grid: Geometry) -> None:
    """Raises LabelError where the sides of an open mesh meet far from it: it ends, or has a hole, inside the liver."""
    wall = _wall(_near(_in_voxels(mesh, grid), grid.shape_zyx, 0.5), grid.shape_zyx, 0)
    meet = ndimage.binary_dilation(one) & inside & ~one
    far = ndimage.distance_transform_edt(~wall, sampling=grid.spacing_zyx_mm)[meet]
    most = float(far.max()) if far.size else 0.0
    if most > BEYOND_MM + max(grid.spacing_mm):
        raise LabelError(
            f"the cut surface does not divide the liver: it ends, or has a hole, inside it (the two sides meet {most:.0f} mm from it); a "
            f"surface may end at most {BEYOND_MM:g} mm before the capsule: extend it beyond the liver, or give a closed mesh or a mask"
        )


def _missed(cut: Plane | Mesh, closed: bool, inside: Mask, grid: Geometry) -> str:
    what = "plane" if isinstance(cut, Plane) else "closed mesh" if closed else "cut surface"
    if isinstance(cut, Plane):
        distance = np.abs(_linear(grid, np.asarray(cut.point_lps_mm), np.asarray(cut.normal_lps))[inside]).min()
        where = f"; it passes {distance:.0f} mm from it"
    else:
        low, high = cut.vertices_lps_mm.min(axis=0), cut.vertices_lps_mm.max(axis=0)
        where = f"; it lies at {_range(low, high)}"
    corners = grid.corners_mm()
    return (
        f"the {what} misses the liver{where}, the liver at {_range(corners.min(axis=0), corners.max(axis=0))} (LPS, mm); give one of this CT, "
        "and check whether its file states LPS or RAS rightly"
    )


def _range(low: NDArray[np.floating[Any]], high: NDArray[np.floating[Any]]) -> str:
    return ", ".join(f"{name} {a:.0f} to {b:.0f}" for name, a, b in zip("xyz", low, high, strict=True))


def at_least_percent(value: float) -> float:
    """A wanted FLR%. Raises: SettingsError unless it lies between 0 and 100."""
    require_number("at_least", value)
    if not (math.isfinite(value) and 0 < value < 100):
        hint = f", which looks like a fraction: {100 * value:g}?" if isinstance(value, float) and 0 < value < 1 else ""
        raise SettingsError(f"at least: expected a percentage between 0 and 100, got {value}{hint}")
    if value < 1:
        raise SettingsError(f"at least: expected a percentage, got {value:g}, which looks like a fraction: {100 * value:g}?")
    return float(value)


def largest_resection(liver: Mask, crlm: Mask, flr: Mask, geometry: Geometry, percent: float) -> tuple[Mask, float] | None:
    """The FLR of the largest resection that leaves ``percent`` of the parenchyma, its cut parallel to that of a plan, and how far it moved.

    The liver is cut where the signed distance to the plan's cut has one value (mm; above 0 the cut moves into the remnant), then each
    metastasis goes wholly to the side that holds more of it, which moves no parenchyma. None where the plan has no cut to move.
    """
    region = Region.of(liver, geometry.spacing_zyx_mm)
    inside, lesions, remnant = (mask[region.box] for mask in (liver, crlm, flr))
    remnant, resection = inside & remnant, inside & ~remnant
    if region.is_empty or not remnant.any() or not resection.any():
        return None
    apart = [
        ndimage.distance_transform_edt(~side, sampling=geometry.spacing_zyx_mm).astype(np.float32)
        for side in (resection, remnant)
    ]
    signed = np.where(remnant, apart[0], -apart[1])
    parenchyma = np.sort(signed[inside & ~lesions])
    keep = math.ceil(percent / 100 * len(parenchyma) - 1e-9)
    if not len(parenchyma):
        return None
    level = float(parenchyma[len(parenchyma) - max(keep, 1)])
    out = np.zeros_like(liver)
    out[region.box] = whole_metastases(inside & (signed >= level), lesions & inside)
    return out, max(
        level - min(geometry.spacing_mm), 0.0
    ) if level > 0 else level  # the first voxels of a side lie one voxel from the other's
