"""The grid of every case of size full lies in the data set's limits: geometry alone, over many draws, without rendering."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.cohort.patient import draw_patient
from flrplan.cohort.scan import draw_scan, make_grid
from flrplan.cohort.settings import CaseSize

DRAWS = 1500


@pytest.fixture(scope="module")
def grids():
    patients = [draw_patient(seed, index) for seed in range(3) for index in range(DRAWS // 3)]
    keys = [(seed, index) for seed in range(3) for index in range(DRAWS // 3)]
    return [make_grid(p, draw_scan(*key, p), CaseSize.FULL) for key, p in zip(keys, patients, strict=True)]


def test_no_draw_leaves_the_limits_of_the_data_set(grids) -> None:
    """Simpson 2024: 512 x 512, 0.609-0.977 mm (0.61-0.98 as printed), slices 0.8-7.5 mm apart, 21-240 of them."""
    for grid, geometry in grids:
        (nx, ny, nz), (dx, dy, dz) = geometry.size_xyz, geometry.spacing_mm
        assert (nx, ny) == (512, 512)
        assert dx == dy
        assert 0.61 <= dx <= 0.98
        assert 0.8 <= dz <= 7.5
        assert 21 <= nz <= 240
        assert grid.shape_zyx == (nz, ny, nx)
        for axis, spacing in zip(grid.axes_mm, (dz, dy, dx), strict=True):
            assert np.abs(np.diff(axis) - spacing).max() < 1e-6


def test_the_draws_fill_the_limits(grids) -> None:
    """A cohort in a corner of the range would keep the limits, too."""
    in_plane, between, slices = (np.array([pick(g) for _, g in grids]) for pick in (
        lambda g: g.spacing_mm[0], lambda g: g.spacing_mm[2], lambda g: g.size_xyz[2],
    ))  # fmt: skip
    assert in_plane.min() < 0.68
    assert in_plane.max() > 0.92
    assert between.min() < 1.0
    assert between.max() > 7.0
    assert slices.min() < 30
    assert slices.max() > 200
    assert np.mean(between > 5.0) > 0.05
    assert np.mean(between < 1.5) > 0.05
