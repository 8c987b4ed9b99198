"""Metal: rods of the right volume, at the organ that carries them."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.cohort.fields import FineGrid
from flrplan.cohort.metal import METAL_HU, METAL_WEIGHTS, Metal, Rod, draw_metal, place_metal
from flrplan.cohort.organs import Organ

GRID = FineGrid((np.arange(0, 120.0, 4.0), np.arange(-60, 60, 2.0), np.arange(-60, 60, 2.0)))


def test_a_rod_has_the_volume_of_a_cylinder() -> None:
    hu = np.zeros(GRID.shape_zyx, np.float32)
    draw_metal(hu, GRID, 0, [Rod((60.0, -40.0, 0.0), (60.0, 40.0, 0.0), 6.0)])
    filled_mm3 = float(hu.sum()) / METAL_HU * 4 * 2 * 2
    caps = 4 / 3 * np.pi * 6**3
    assert filled_mm3 == pytest.approx(np.pi * 36 * 80 + caps, rel=0.06)


def test_a_slab_draws_its_own_slices_only() -> None:
    whole = np.zeros(GRID.shape_zyx, np.float32)
    rods = [Rod((20.0, -10.0, -10.0), (90.0, 10.0, 10.0), 4.0)]
    draw_metal(whole, GRID, 0, rods)
    part = np.zeros((7, *GRID.shape_zyx[1:]), np.float32)
    draw_metal(part, GRID, 10, rods)
    assert np.array_equal(part, whole[10:17])
    assert whole[:2].max() == 0


@pytest.mark.parametrize(
    ("metal", "organ"),
    [(Metal.CLIPS, Organ.GALLBLADDER), (Metal.SPINE, Organ.SPINAL_CANAL), (Metal.LEAD, Organ.HEART_BLOOD)],
)
def test_metal_lies_at_its_organ_and_nowhere_without_it(metal: Metal, organ: Organ) -> None:
    organs = np.zeros(GRID.shape_zyx, np.uint8)
    assert place_metal(np.random.default_rng(0), metal, GRID, organs) == []
    organs[:, 28:32, 38:42] = organ  # y about -1, x about 19
    found = [rods for seed in range(6) if (rods := place_metal(np.random.default_rng(seed), metal, GRID, organs))]
    assert found
    for rod in found[0]:
        assert abs(rod.start_zyx_mm[2] - 19) < 60
    assert place_metal(np.random.default_rng(0), Metal.NONE, GRID, organs) == []


def test_few_patients_carry_metal() -> None:
    assert sum(METAL_WEIGHTS) == pytest.approx(1.0)
    assert 0.02 <= 1 - METAL_WEIGHTS[0] <= 0.1
