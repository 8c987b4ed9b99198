"""Lesions: how many, how large, of which look, and where they lie in a liver made by hand: a ball in four quarters."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.cohort import SyntheticCase
from flrplan.cohort.fields import COARSE_MM, FineGrid
from flrplan.cohort.lesion_look import draw_lesions
from flrplan.cohort.lesion_mix import (
    DIAMETER_MM,
    MAX_LESIONS,
    VANISHING_MAX_MM,
    LesionKind,
    Place,
    Wish,
    draw_kinds,
    draw_wishes,
)
from flrplan.cohort.lesions import Lesion, LiverMap, plant_lesions
from flrplan.cohort.liver import Sector
from flrplan.cohort.organs import Organ

RADIUS_MM = 80.0
AXIS = np.arange(-25, 26) * COARSE_MM


def ball() -> LiverMap:
    """A ball of 160 mm; right is x < 0, posterior and lateral y > 0."""
    z, y, x = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
    depth = (RADIUS_MM - np.sqrt(z**2 + y**2 + x**2)).astype(np.float32)
    border = {
        Sector.RIGHT_POSTERIOR: np.minimum(-x, y),
        Sector.RIGHT_ANTERIOR: np.minimum(-x, -y),
        Sector.LEFT_MEDIAL: np.minimum(x, -y),
        Sector.LEFT_LATERAL: np.minimum(x, y),
    }
    liver = depth > 0
    sectors = {s: liver & (b > 0) for s, b in border.items()}
    return LiverMap((AXIS, AXIS, AXIS), liver, depth, sectors, {s: b.astype(np.float32) for s, b in border.items()})


def round_lesion(diameter_mm: float = 40.0, **look: float) -> Lesion:
    values = {"contrast_hu": 40.0, "rim_hu": 0.0, "core_hu": 0.0, "calcium_hu": 0.0, "edge_mm": 2.0, "rim_mm": 4.0, **look}
    lumps = np.array([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0], [0, 0, 1.0, 0, 1.5]])
    return Lesion((0.0, 0.0, 0.0), diameter_mm, (1.0, 1.0, 1.0), lumps, LesionKind.HYPODENSE, Place.DEEP, **values)


def plant(monkeypatch: pytest.MonkeyPatch, wishes: list[Wish], seed: int = 0) -> list[Lesion]:
    monkeypatch.setattr("flrplan.cohort.lesions.draw_wishes", lambda rng, wide: wishes)
    return plant_lesions(np.random.default_rng(seed), ball())


def test_wishes_cover_the_range_of_the_data_set() -> None:
    rng = np.random.default_rng(0)
    cases = [draw_wishes(rng) for _ in range(3000)]
    counts = np.array([len(wishes) for wishes in cases])
    diameters = np.array([wish.diameter_mm for wishes in cases for wish in wishes])
    assert counts.min() == 1
    assert counts.max() == MAX_LESIONS
    assert np.mean(counts > 1) == pytest.approx(0.6, abs=0.08)  # 0.58 of the patients
    assert diameters.min() == DIAMETER_MM[0]
    assert diameters.max() == DIAMETER_MM[1]
    assert {wish.place for wishes in cases for wish in wishes} == set(Place)


def test_kinds_are_all_drawn_and_only_small_lesions_vanish() -> None:
    rng = np.random.default_rng(0)
    diameters = [40.0, 20.0, 10.0]
    drawn = [draw_kinds(rng, diameters) for _ in range(400)]
    assert {kind for kinds in drawn for kind in kinds} == set(LesionKind) - {LesionKind.HYPERDENSE}  # of wide cases only
    assert all(kinds[0] is not LesionKind.VANISHING for kinds in drawn)
    assert diameters[0] > VANISHING_MAX_MM
    share = np.mean([LesionKind.VANISHING in kinds for kinds in drawn])
    assert 0.08 < share < 0.2  # 0.16 of the cases, of whose two small lesions 0.6 vanish each


def test_confluent_lesions_overlap_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sectors = (Sector.RIGHT_POSTERIOR,)
    wishes = [Wish(sectors, 30.0), Wish(sectors, 20.0, Place.CONFLUENT), Wish(sectors, 12.0, Place.NEAR_SURFACE)]
    first, second, third = plant(monkeypatch, wishes)
    assert second.place is Place.CONFLUENT
    assert np.linalg.norm(np.subtract(first.centre_zyx_mm, second.centre_zyx_mm)) < 25.0
    for other in (first, second):
        gap = np.linalg.norm(np.subtract(third.centre_zyx_mm, other.centre_zyx_mm)) - (other.diameter_mm + 12.0) / 2
        assert gap > 0


def test_a_capsular_lesion_is_cut_by_the_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    (lesion,) = plant(monkeypatch, [Wish((Sector.LEFT_LATERAL,), 28.0, Place.CAPSULE)])
    depth = RADIUS_MM - float(np.linalg.norm(lesion.centre_zyx_mm))
    assert -2 < depth < 14.0


def test_a_straddling_lesion_lies_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    (lesion,) = plant(monkeypatch, [Wish((Sector.RIGHT_ANTERIOR, Sector.RIGHT_POSTERIOR), 50.0, Place.STRADDLING)])
    assert abs(lesion.centre_zyx_mm[1]) <= 0.12 * 50 + 2  # y is the border between the two
    assert lesion.centre_zyx_mm[2] < 0.12 * 50 + 2


def test_a_confluent_lesion_without_a_neighbour_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plant(monkeypatch, [Wish((Sector.LEFT_MEDIAL,), 20.0, Place.CONFLUENT)]) == []


def test_depth_of_a_round_lesion_is_that_of_a_ball() -> None:
    lesion = round_lesion(40.0)
    axis = np.array([0.0, 12.0, 25.0])
    origin = np.array([0.0])
    assert lesion.depth_mm(origin, origin, axis).ravel() == pytest.approx([20.0, 8.0, -5.0], abs=1e-4)
    assert lesion.reach_mm == 20.0


def drawn(lesion: Lesion, organ: Organ = Organ.LIVER) -> tuple[np.ndarray, FineGrid]:
    """HU ``(Y, X)`` of the slice through the middle of a lesion of 60 HU in an organ of 110 HU."""
    axis = np.arange(-30.0, 31.0)
    grid = FineGrid((np.arange(-2.0, 3.0), axis, axis))
    hu = np.full(grid.shape_zyx, 110.0, np.float32)
    inside = lesion.depth_mm(*grid.axes_mm) > 0
    labels = np.where(inside & (organ is Organ.LIVER), Organ.TUMOUR, organ).astype(np.uint8)
    numbers = (labels == Organ.TUMOUR).astype(np.uint8)
    draw_lesions(hu, grid, 0, labels, numbers, [lesion], np.array([60.0], np.float32))
    return hu[2], grid


def test_a_plain_lesion_has_its_mean_and_a_washed_out_margin() -> None:
    plane, grid = drawn(round_lesion(40.0))
    row = plane[30]
    x = grid.axes_mm[2]
    assert row[np.abs(x) <= 18] == pytest.approx(60.0)
    assert row[np.abs(x) >= 22] == pytest.approx(110.0)
    assert row[np.abs(x) == 20] == pytest.approx(85.0)  # half way on its surface


def test_rim_core_and_calcium() -> None:
    plane, grid = drawn(round_lesion(40.0, rim_hu=20.0, core_hu=10.0))
    row = plane[30]
    x = grid.axes_mm[2]
    assert row[np.abs(x) == 18] == pytest.approx(80.0)  # in the rim
    assert row[np.abs(x) == 0] == pytest.approx(50.0)  # in the core
    calcified, grid = drawn(round_lesion(40.0, calcium_hu=300.0))
    inside = np.hypot(grid.axes_mm[1][:, None], grid.axes_mm[2]) < 18
    assert calcified.max() == pytest.approx(360.0, abs=1)
    assert 0.02 < np.mean(calcified[inside] > 200) < 0.5  # clumps, not the whole lesion


def test_lesions_are_darker_than_the_liver_in_every_case_but_those_with_rims(small_cases: list[SyntheticCase]) -> None:
    """By the median, so that noise and clumps of calcium do not decide; a rim can be as bright as the liver."""
    checked = 0
    for case in small_cases:
        if any(lesion["rim"] for lesion in case.facts["lesions"]):
            continue
        lesions, liver = (np.median(case.hu_zyx[case.organs_zyx == organ]) for organ in (Organ.TUMOUR, Organ.LIVER))
        assert lesions < liver - 5, case.case_id
        checked += 1
    assert checked >= len(small_cases) / 2


def test_other_organs_are_not_drawn_on() -> None:
    plane, _ = drawn(round_lesion(40.0), Organ.SPLEEN)
    assert plane == pytest.approx(110.0)
