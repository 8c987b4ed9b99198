"""Grids: same or not, and the way to canonical axis order and back."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.errors import GridError, ImageError
from flrplan.image import Canonical, Geometry, require_same_grid

GRID = Geometry((5, 4, 3), (0.7, 0.8, 7.5), (-10.0, 20.0, 30.0))


def rotated(angle_degrees: float) -> tuple[float, ...]:
    """A rotation about x, so y and z are oblique."""
    c, s = np.cos(np.radians(angle_degrees)), np.sin(np.radians(angle_degrees))
    return (1.0, 0.0, 0.0, 0.0, float(c), float(-s), 0.0, float(s), float(c))


def all_axis_orders() -> list[Geometry]:
    """All 48 ways to lay index axes along the world axes."""
    result = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[world, axis] = sign
            result.append(Geometry((5, 4, 3), (0.7, 0.8, 7.5), (-10.0, 20.0, 30.0), tuple(float(v) for v in matrix.ravel())))
    return result


def test_world_positions_agree_with_itk() -> None:
    grid = Geometry((5, 4, 3), (0.7, 0.8, 7.5), (-10.0, 20.0, 30.0), rotated(20))
    image = grid.image(np.zeros(grid.shape_zyx, np.uint8))
    for index in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (4, 3, 2)):
        assert np.allclose(grid.world_mm(np.array([index]))[0], image.TransformIndexToPhysicalPoint(index))
    assert Geometry.of(image) == grid
    assert grid.voxel_volume_ml == pytest.approx(0.7 * 0.8 * 7.5 / 1000)


def test_rounding_is_the_same_grid_but_a_wrong_spacing_is_not() -> None:
    long = Geometry((512, 512, 100), (0.7, 0.7, 5.0))
    assert long.is_same_grid(Geometry((512, 512, 100), (0.7, 0.7, 5.0), (1e-4, 0.0, 0.0)))
    assert not long.is_same_grid(Geometry((512, 512, 100), (0.7, 0.7, 5.001)))
    assert not long.is_same_grid(Geometry((512, 512, 100), (0.7, 0.7, 5.0), (0.1, 0.0, 0.0)))
    assert not long.is_same_grid(Geometry((512, 512, 99), (0.7, 0.7, 5.0)))
    one_slice = Geometry((9, 9, 1), (1.0, 1.0, 5.0))
    assert not one_slice.is_same_grid(Geometry((9, 9, 1), (1.0, 1.0, 4.0))), "no extent along z, so the spacing counts"


def test_error_names_both_grids() -> None:
    with pytest.raises(GridError, match=r"mask\.nii is not on the grid of ct\.nii(.|\n)*7\.5(.|\n)*5 mm"):
        require_same_grid(GRID, Geometry((5, 4, 3), (0.7, 0.8, 5.0)), "ct.nii", "mask.nii")


@pytest.mark.parametrize(
    ("size", "spacing", "direction", "message"),
    [
        ((0, 4, 3), (1, 1, 1), None, "at least one voxel"),
        ((5, 4, 3), (1, 0, 1), None, "positive millimetres"),
        ((5, 4, 3), (1, float("nan"), 1), None, "positive millimetres"),
        ((5, 4, 3), (1, 1, 1), (1, 0.3, 0, 0, 1, 0, 0, 0, 1), "not orthonormal"),
    ],
)
def test_impossible_grids(
    size: tuple[int, int, int], spacing: tuple[float, float, float], direction: object, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        Geometry(size, spacing, direction=direction or (1, 0, 0, 0, 1, 0, 0, 0, 1))  # type: ignore[arg-type]


def test_array_of_another_shape_is_refused() -> None:
    with pytest.raises(GridError, match=r"\(3, 4, 5\) \(z, y, x\), got \(5, 4, 3\)"):
        GRID.image(np.zeros((5, 4, 3)))


@pytest.mark.parametrize("grid", all_axis_orders())
def test_canonical_order_and_back(grid: Geometry) -> None:
    array = np.arange(60).reshape(grid.shape_zyx)
    canonical = Canonical.of(grid)
    moved = canonical.forward(array)
    assert np.allclose(canonical.target.direction, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert np.array_equal(canonical.backward(moved), array)
    # the same voxel keeps its place in the world, and ITK's own reorientation agrees
    reference = sitk.DICOMOrient(grid.image(array.astype(np.int16)), "LPS")
    assert canonical.target.is_same_grid(Geometry.of(reference))
    assert np.array_equal(moved, sitk.GetArrayFromImage(reference))


def test_oblique_grids_stay_oblique() -> None:
    grid = Geometry((5, 4, 3), (0.7, 0.8, 7.5), direction=rotated(20))
    assert Canonical.of(grid).target == grid
    steep = Geometry((5, 4, 3), (0.7, 0.8, 7.5), direction=rotated(70))
    array = np.arange(60).reshape(steep.shape_zyx)
    canonical = Canonical.of(steep)
    assert canonical.target.size_xyz == (5, 3, 4), "at 70 degrees the last index axis runs nearest to posterior"
    assert np.array_equal(canonical.backward(canonical.forward(array)), array)


def test_wrong_shapes_are_refused() -> None:
    canonical = Canonical.of(GRID)
    with pytest.raises(GridError, match="expected an array of shape"):
        canonical.forward(np.zeros((1, 2, 3)))
    with pytest.raises(GridError, match="expected a canonical array"):
        canonical.backward(np.zeros((1, 2, 3)))


def test_a_crop_keeps_every_voxel_at_its_place() -> None:
    grid = Geometry((5, 4, 3), (0.7, 0.8, 7.5), (-10.0, 20.0, 30.0), rotated(20))
    box = (slice(1, 3), slice(2, 4), slice(0, 5))
    part = grid.crop(box)
    assert part.shape_zyx == np.zeros(grid.shape_zyx)[box].shape == (2, 2, 5)
    assert part.world_mm(np.array([[3.0, 1.0, 1.0]])) == pytest.approx(grid.world_mm(np.array([[3.0, 3.0, 2.0]])))
    assert (part.spacing_mm, part.direction) == (grid.spacing_mm, grid.direction)
