"""Canonical axis order and back, for every order and direction of the axes, straight and oblique, through a file."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flrplan.anatomy import Structure
from flrplan.errors import GridError
from flrplan.image import Canonical, Geometry, read_label_map, write_label_map
from flrplan.method import CRLM, build_stage_input

ORDERS = list(permutations(range(3)))
SIGNS = list(product((1.0, -1.0), repeat=3))
OBLIQUE = Rotation.from_euler("xyz", (12, -20, 31), degrees=True).as_matrix()


def grid(order: tuple[int, ...], signs: tuple[float, ...], oblique: bool) -> Geometry:
    """Index axis ``a`` runs along world axis ``order[a]``; 7.5 mm on the second."""
    matrix = np.zeros((3, 3))
    matrix[list(order), range(3)] = signs
    if oblique:
        matrix = OBLIQUE @ matrix
    return Geometry((9, 7, 5), (0.8, 7.5, 1.25), (-40.0, 12.5, 700.0), tuple(float(v) for v in matrix.ravel()))


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("signs", SIGNS)
def test_every_voxel_keeps_its_place_in_the_world(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[float, ...], oblique: bool
) -> None:
    source = grid(order, signs, oblique)
    array = np.arange(np.prod(source.size_xyz), dtype=np.int32).reshape(source.shape_zyx)
    canonical = Canonical.of(source)
    moved = canonical.forward(array)
    assert moved.shape == canonical.target.shape_zyx
    assert np.array_equal(canonical.backward(moved), array)

    for value in (0, 17, 101, array.size - 1):
        here, there = (np.argwhere(a == value)[0][::-1][None].astype(float) for a in (array, moved))
        assert np.allclose(source.world_mm(here), canonical.target.world_mm(there))
    axes = canonical.target.direction_matrix
    assert (np.diag(axes) > 0.7).all()
    if not oblique:
        assert np.array_equal(axes, np.eye(3))
    assert Canonical.of(canonical.target).target.is_same_grid(canonical.target)

    label = (array % 5).astype(np.uint8)
    write_label_map(tmp_path / "label.nii.gz", label, source)
    found, geometry = read_label_map(tmp_path / "label.nii.gz")
    assert np.array_equal(found, label)
    assert geometry.is_same_grid(source)
    assert Canonical.of(geometry).axes_zyx == canonical.axes_zyx
    assert Canonical.of(geometry).flip_zyx == canonical.flip_zyx


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("signs", [(1.0, 1.0, 1.0), (-1.0, 1.0, -1.0)])
def test_a_stage_input_goes_back_onto_the_ct(order: tuple[int, ...], signs: tuple[float, ...], oblique: bool) -> None:
    source = grid(order, signs, oblique)
    ct = np.random.default_rng(3).integers(-200, 200, source.shape_zyx).astype(np.int16)
    liver = np.zeros(source.shape_zyx, bool)
    liver[1:4, 2:5, 3:7] = True
    stage_input = build_stage_input(ct, source, {Structure.LIVER: liver}, CRLM)
    hu = stage_input.restore(stage_input.channels_czyx[0], fill=-1024)
    assert hu.shape == ct.shape
    assert np.array_equal(hu, np.where(liver, ct, -1024))
    assert np.array_equal(stage_input.restore(stage_input.crop(liver)), liver)


def test_another_shape_is_refused() -> None:
    canonical = Canonical.of(grid((2, 0, 1), (1.0, -1.0, 1.0), False))
    with pytest.raises(GridError, match=r"expected an array of shape \(5, 7, 9\) \(z, y, x\), got \(1, 2, 3\)"):
        canonical.forward(np.zeros((1, 2, 3)))
    with pytest.raises(GridError, match=r"expected a canonical array of shape .* got \(1, 2, 3\)"):
        canonical.backward(np.zeros((1, 2, 3)))
