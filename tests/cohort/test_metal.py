"""Metal: rods of the right volume, at the organ that carries them."""

from __future__ import annotations

from itertools import pairwise

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


ORGAN_OF = {Metal.CLIPS: Organ.GALLBLADDER, Metal.SPINE: Organ.SPINAL_CANAL, Metal.LEAD: Organ.HEART_BLOOD}
SEEDS = range(30)


def with_organ(organ: Organ, y: int = 28, x: int = 38) -> np.ndarray:
    """A column of 4 x 4 voxels over all slices; by default y from -4 to 2 and x from 16 to 22 mm."""
    organs = np.zeros(GRID.shape_zyx, np.uint8)
    organs[:, y : y + 4, x : x + 4] = organ
    return organs


def placed(metal: Metal, organs: np.ndarray) -> list[list[Rod]]:
    """The rods of each seed that has any."""
    return [rods for seed in SEEDS if (rods := place_metal(np.random.default_rng(seed), metal, GRID, organs))]


@pytest.mark.parametrize("metal", ORGAN_OF)
def test_no_metal_without_its_organ(metal: Metal) -> None:
    assert placed(metal, np.zeros(GRID.shape_zyx, np.uint8)) == []
    other = Organ.HEART_BLOOD if metal is Metal.CLIPS else Organ.GALLBLADDER
    assert placed(metal, with_organ(other)) == []
    assert placed(Metal.NONE, with_organ(ORGAN_OF[metal])) == []


@pytest.mark.parametrize("metal", ORGAN_OF)
def test_metal_moves_with_its_organ(metal: Metal) -> None:
    here, there = (placed(metal, with_organ(ORGAN_OF[metal], *at)) for at in ((28, 38), (34, 28)))  # 12 mm in y, -20 in x
    assert len(here) >= len(SEEDS) / 2
    for rods, moved in zip(here, there, strict=True):
        for one, two in zip(rods, moved, strict=True):
            assert np.subtract(two.start_zyx_mm, one.start_zyx_mm) == pytest.approx([0, 12, -20])
            assert np.subtract(two.end_zyx_mm, one.end_zyx_mm) == pytest.approx([0, 12, -20])


def test_clips_are_short_and_scatter_about_the_gallbladder() -> None:
    patients = placed(Metal.CLIPS, with_organ(Organ.GALLBLADDER))
    assert {len(rods) for rods in patients} == {2, 3, 4, 5}
    starts = np.array([rod.start_zyx_mm for rods in patients for rod in rods])
    ends = np.array([rod.end_zyx_mm for rods in patients for rod in rods])
    assert np.linalg.norm(ends - starts, axis=1).max() < 12
    # About 100 clips, 9 mm about the middle in each axis: their mean lies within 4 x 9 / sqrt(100) = 3.6 mm of it, none beyond 4 x 9.
    from_middle = starts - [58, -1, 19]
    assert np.abs(from_middle.mean(axis=0)).max() < 3.6
    assert np.abs(from_middle).max() < 36
    assert from_middle.std(axis=0) == pytest.approx([9, 9, 9], rel=0.3)


def test_a_spine_implant_has_screws_on_both_sides_of_the_canal() -> None:
    for rods in placed(Metal.SPINE, with_organ(Organ.SPINAL_CANAL)):
        screws = [rod for rod in rods if rod.start_zyx_mm[0] == rod.end_zyx_mm[0]]
        bars = [rod for rod in rods if rod not in screws]
        heads = np.array([rod.start_zyx_mm for rod in screws])
        tips = np.array([rod.end_zyx_mm for rod in screws])
        assert len(screws) in (2, 4, 6)
        assert len(bars) == len(screws) - 2
        assert heads[:, 2].mean() == pytest.approx(19, abs=1.1)  # the middle of the canal, to half a voxel
        assert np.sum(heads[:, 2] < 16) == np.sum(heads[:, 2] > 22) == len(screws) / 2
        assert (heads[:, 1] > 2).all(), "from behind the canal (LPS: y grows to the back)"
        assert (tips[:, 1] < -4).all(), "past it to the front"
        assert (np.abs(tips[:, 2] - 19) < np.abs(heads[:, 2] - 19)).all(), "towards the middle"
        assert ((tips[:, 2] < 16) | (tips[:, 2] > 22)).all(), "not through the canal"
        assert (heads[:, 0] >= 0).all()
        assert (heads[:, 0] <= 116).all()


def test_a_lead_runs_from_the_heart_out_of_the_top_in_one_piece() -> None:
    for rods in placed(Metal.LEAD, with_organ(Organ.HEART_BLOOD)):
        assert all(one.end_zyx_mm == two.start_zyx_mm for one, two in pairwise(rods))
        assert np.linalg.norm(np.subtract(rods[0].start_zyx_mm, (58, -1, 19))) < 25
        assert rods[-1].end_zyx_mm[0] > 116


def test_few_patients_carry_metal() -> None:
    assert sum(METAL_WEIGHTS) == pytest.approx(1.0)
    assert 0.02 <= 1 - METAL_WEIGHTS[0] <= 0.1
