"""Meshes of spheres, boxes and planes, whose size and place are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flrplan.errors import GridError
from flrplan.image import Geometry
from flrplan.planning.meshes import cut_mesh, surface_mesh

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
MIRRORED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def sphere(radius_mm: float, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """A sphere around the middle of a grid, and that place, LPS mm."""
    centre = geometry.world_mm((np.asarray(geometry.size_xyz, float)[None] - 1) / 2)[0]
    z, y, x = np.indices(geometry.shape_zyx).reshape(3, -1)
    distance = np.linalg.norm(geometry.world_mm(np.stack([x, y, z], axis=1)) - centre, axis=1)
    return (distance <= radius_mm).reshape(geometry.shape_zyx), centre


@pytest.mark.parametrize("direction", [TURNED, MIRRORED])
@pytest.mark.parametrize(("radius_mm", "edge_mm"), [(18.0, 2.0), (4.0, 2.0)])
def test_the_mesh_of_a_sphere_lies_in_its_place_and_holds_its_volume(
    direction: tuple[float, ...], radius_mm: float, edge_mm: float
) -> None:
    geometry = Geometry((48, 40, 22), (1.0, 1.2, 2.5), (30.0, -20.0, 500.0), direction)
    mask, centre = sphere(radius_mm, geometry)
    mesh = surface_mesh(mask, geometry, edge_mm)
    assert mesh.is_closed
    assert mesh.volume_ml == pytest.approx(np.count_nonzero(mask) * geometry.voxel_volume_ml, rel=0.05), (
        "positive: turned outwards"
    )
    assert mesh.vertices_lps_mm.mean(axis=0) == pytest.approx(centre, abs=0.2)
    distances = np.linalg.norm(mesh.vertices_lps_mm - centre, axis=1)
    assert distances.max() - distances.min() < 2.5, "one slice"
    assert distances.mean() == pytest.approx(radius_mm, abs=0.4)


def test_thick_slices_and_the_image_border_leave_the_mesh_closed() -> None:
    geometry = Geometry((20, 20, 4), (1.0, 1.0, 7.5))
    mask = np.ones(geometry.shape_zyx, bool)
    mesh = surface_mesh(mask, geometry)
    assert mesh.is_closed
    assert mesh.volume_ml == pytest.approx(20 * 20 * 4 * 7.5 / 1000, rel=0.03)


def test_one_voxel_has_a_mesh_and_an_empty_mask_an_empty_one() -> None:
    geometry = Geometry((9, 9, 9), (1.0, 1.0, 1.0))
    mask = np.zeros(geometry.shape_zyx, bool)
    assert surface_mesh(mask, geometry).is_empty
    assert not surface_mesh(mask, geometry).is_closed
    mask[4, 4, 4] = True
    mesh = surface_mesh(mask, geometry)
    assert mesh.is_closed
    assert np.abs(mesh.vertices_lps_mm - 4).max() < 2


def test_the_cut_of_a_halved_box_is_that_plane() -> None:
    geometry = Geometry((48, 30, 20), (1.0, 1.5, 2.0), (100.0, 0.0, 0.0))
    liver = np.zeros(geometry.shape_zyx, bool)
    liver[2:18, 3:27, 4:44] = True  # 36 x 32 mm across x
    flr = liver.copy()
    flr[:, :, 24:] = False  # remnant to the right of x = 123.5
    mesh = cut_mesh(liver, flr, geometry, 1.5)
    assert not mesh.is_closed
    assert mesh.vertices_lps_mm[:, 0] == pytest.approx(np.full(len(mesh.vertices_lps_mm), 123.5), abs=0.3)
    a, b, c = np.moveaxis(mesh.vertices_lps_mm[mesh.triangles].astype(float), 1, 0)
    facing = np.cross(b - a, c - a) / 2
    assert facing[:, 0].sum() == pytest.approx(36 * 32, rel=0.1), "positive: it faces the resection"
    assert math.isclose(np.linalg.norm(facing, axis=1).sum(), facing[:, 0].sum(), rel_tol=1e-3)
    assert cut_mesh(liver, liver, geometry).is_empty
    assert cut_mesh(liver, np.zeros_like(liver), geometry).is_empty


def test_a_mask_of_another_shape_is_told() -> None:
    with pytest.raises(GridError, match=r"shape \(4, 20, 20\) \(z, y, x\), got \(4, 20, 19\)"):
        surface_mesh(np.ones((4, 20, 19), bool), Geometry((20, 20, 4), (1.0, 1.0, 7.5)))
