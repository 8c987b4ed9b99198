"""Smooth fields: unit spread, and interpolation that keeps a sphere's volume."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.cohort.fields import COARSE_MM, Field, FineGrid, make_frame
from flrplan.cohort.shapes import ellipsoid, smooth_cut, smooth_union, tube
from flrplan.image.smooth_noise import smooth_noise


def axes(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a = np.arange(-n, n + 1) * COARSE_MM
    return (a, a, a)


def test_smooth_noise_has_mean_zero_and_unit_spread() -> None:
    field = smooth_noise(np.random.default_rng(0), axes(30), 12.0)
    assert field.dtype == np.float32
    assert abs(float(field.mean())) < 0.1
    assert float(field.std()) == pytest.approx(1.0, abs=0.1)


def test_interpolated_sphere_has_the_right_volume_on_an_anisotropic_grid() -> None:
    coarse = axes(8)
    z, y, x = np.meshgrid(*coarse, indexing="ij")
    field = Field((20.0 - np.sqrt(x**2 + y**2 + z**2)).astype(np.float32), coarse)
    fine = FineGrid((np.arange(-30, 30, 2.5), np.arange(-40, 40, 0.9), np.arange(-40, 40, 1.1)), slab=5)
    mask = np.zeros(fine.shape_zyx, bool)
    for box, values in fine.slabs(field):
        mask[box] = values > 0
    expected_mm3 = 4 / 3 * np.pi * 20.0**3
    assert mask.sum() * 2.5 * 0.9 * 1.1 == pytest.approx(expected_mm3, rel=0.03)


def test_a_field_outside_the_grid_gives_nothing() -> None:
    field = Field(np.ones((17, 17, 17), np.float32), axes(8))
    far = FineGrid((np.arange(500.0, 510.0), np.arange(10.0), np.arange(10.0)))
    assert list(far.slabs(field)) == []
    assert list(far.slabs(Field(-np.ones((17, 17, 17), np.float32), axes(8)))) == []


def test_shapes_are_positive_inside() -> None:
    frame = make_frame(np.random.default_rng(0), (-40, -40, -40), (40, 40, 40), (1.0, 1.0, 1.0), (0.0, 0.0))
    middle = tuple(n // 2 for n in frame.x.shape)
    ball = ellipsoid(frame, (0, 0, 0), (20, 20, 20))
    rod = tube(frame, ((-30, 0, 0), (30, 0, 0)), (8, 8))
    assert ball[middle] == pytest.approx(20)
    assert rod[middle] == pytest.approx(8)
    assert np.all(smooth_union(ball, rod, 6.0) >= np.maximum(ball, rod))
    assert np.all(smooth_cut(ball, rod, 6.0) <= np.minimum(ball, rod))
    assert frame.crop((500, 500, 500), (600, 600, 600)).x.size == 0
