"""The goals of the demo models: met or missed, by how much, and what bounds them, all from measured values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from flrplan.demo.bounds import what_bounds
from flrplan.demo.goals import GOALS, Goal, Outcome, judge
from flrplan.demo.measure import COLUMNS, MeasuredCase
from flrplan.demo.real_ct import RealScore
from flrplan.errors import SettingsError

LIVER = Goal("the liver", 0.9, column="liver")
FLR = Goal("the remnant", 0.0, column="flr_pipelined", over="flr_liver_minus_tumour")
REAL = Goal("a real CT", 0.9, real="some-ct")


def case(number: int, phase: str, slice_mm: float, **scores: float) -> MeasuredCase:
    return MeasuredCase(number, f"c{number}", phase, slice_mm, dict.fromkeys(COLUMNS, 0.5) | scores)


def livers(*values: float) -> list[MeasuredCase]:
    """Thin slices first, the first half arterial."""
    half = len(values) / 2
    return [case(i, "late" if i >= half else "arterial", 2.0 + i, liver=v) for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("measured", "met", "row"),
    [
        (0.95, True, "| the liver | at least 0.9 | 0.950 | met by 0.050 |"),
        (0.9, True, "| the liver | at least 0.9 | 0.90000 | met by 0.00000 |"),
        (0.8996, False, "| the liver | at least 0.9 | 0.89960 | **missed** by 0.00040 |"),
        (0.65, False, "| the liver | at least 0.9 | 0.650 | **missed** by 0.250 |"),
        (math.nan, None, "| the liver | at least 0.9 | not measured | |"),
    ],
)
def test_met_or_missed(measured: float, met: bool | None, row: str) -> None:
    outcome = Outcome(LIVER, measured)
    assert outcome.met is met
    assert outcome.row() == row


def test_an_interval_must_lie_above() -> None:
    assert Outcome(FLR, 0.0, 0.1).met is False
    assert Outcome(FLR, 0.02, 0.1).row() == "| the remnant | above 0 | 0.020 (mean +0.100) | met by 0.020 |"


def test_judged_by_the_measured_values() -> None:
    cases = [case(i, "late", 2, liver=0.9 + 0.01 * i, flr_pipelined=0.6) for i in range(3)]
    score = RealScore("some-ct", 0.8, 100, 10, 20, 0, 5, 5)
    liver, flr, real, absent = judge(cases, [score], [LIVER, FLR, REAL, Goal("another", 0.9, real="other-ct")])
    assert liver.measured == pytest.approx(0.91)
    assert (flr.measured, flr.mean) == pytest.approx((0.1, 0.1))  # all differences are 0.1, so is the interval's lower end
    assert (real.measured, real.met) == (0.8, False)
    assert absent.met is None


def test_the_goals_are_those_of_the_project() -> None:
    asked = {(g.real or g.column, g.over): g.at_least for g in GOALS}
    assert asked == {
        ("lidc-idri-0001", None): 0.95,
        ("example_ct", None): 0.88,
        ("lidc-idri-0001 cropped to 10 mm around the liver", None): 0.90,
        ("example_ct cropped to 10 mm around the liver", None): 0.90,
        ("liver", None): 0.95,
        ("crlm_pipelined", None): 0.75,
        ("flr_pipelined", None): 0.87,
        ("flr_pipelined", "flr_liver_minus_tumour"): 0.0,
        ("flr_e2e", "flr_liver_minus_tumour"): 0.0,
    }
    with pytest.raises(SettingsError, match="a column of the synthetic cases or a real CT, got None and None"):
        Goal("nothing", 0.5)


def test_few_failures_bound_a_goal() -> None:
    cases = livers(0.2, 0.85, 0.97, 0.97, math.nan)
    said = what_bounds(judge(cases, [], [LIVER])[0], cases, [])
    assert said.startswith("2 of 4 cases lie below 0.9, 1 of them by more than 0.1; without those the mean is 0.930. ")
    # arterial: cases 0 to 2; slices of 2, 3, 4 and 5 mm
    assert "By contrast phase the lowest is arterial (0.673, 3 cases), the highest late (0.970, 1)." in said
    assert "By slice spacing the lowest is up to 2.5 mm (0.200, 1 cases), the highest over 4 mm (0.970, 1)." in said
    assert said.endswith("The goal is reached in: late, 2.5 to 4 mm, over 4 mm; the other strata bound it.")


def test_the_kind_of_case_is_a_stratum_where_kinds_differ() -> None:
    cases = [replace(c, kind=kind) for c, kind in zip(livers(0.95, 0.85), ("usual", "wide, cropped"), strict=True)]
    said = what_bounds(judge(cases, [], [LIVER])[0], cases, [])
    assert "By kind of case the lowest is wide, cropped (0.850, 1 cases), the highest usual (0.950, 1)." in said
    assert "kind of case" not in what_bounds(judge(cases[:1], [], [LIVER])[0], cases[:1], [])


def test_a_low_level_bounds_a_goal() -> None:
    cases = livers(0.85, 0.86, 0.87, 0.88)
    said = what_bounds(judge(cases, [], [LIVER])[0], cases, [])
    assert said.startswith("4 of 4 cases lie below 0.9. By contrast phase")
    assert said.endswith("No stratum reaches the goal: it is missed on every kind of scan.")


def test_what_bounds_a_difference() -> None:
    cases = [case(0, "late", 2, flr_pipelined=0.3), case(1, "arterial", 3, flr_pipelined=0.6)]
    said = what_bounds(judge(cases, [], [FLR])[0], cases, [])
    assert said.startswith("1 of 2 cases lie below 0, 1 of them by more than 0.1; without those the mean is +0.100. ")
    assert "the lowest is late (-0.200, 1 cases), the highest arterial (+0.100, 1)" in said


def test_what_bounds_a_real_ct() -> None:
    # 100 ml of liver, 20 missed, 10 added: with nothing missed 200 / 210, with nothing added 160 / 180
    score = RealScore("some-ct", 160 / 190, 100, 20, 10, 0, 5, 5)
    said = what_bounds(judge([], [score], [REAL])[0], [], [score])
    assert "Of 100 ml of liver 20 were missed, and 10 ml beside it were added." in said
    assert "With nothing missed the Dice would be 0.952, with nothing added 0.889, so what is missed bounds it more." in said
    none = RealScore("some-ct", 0.0, 100, 100, 0, 0, 5, 5)
    assert what_bounds(judge([], [none], [REAL])[0], [], [none]) == "None of the 100 ml of liver was found."
    assert what_bounds(judge([], [], [REAL])[0], [], []) == "Not measured when this card was written."
