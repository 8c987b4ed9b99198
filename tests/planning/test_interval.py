"""How sure a plan is, in words and as JSON: no number where none is valid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flrplan.planning import Bounds, Interval

SURE = Interval(
    "predicted", True, 112, Bounds(610.4, 843.0), Bounds(0.523, 0.7149), {20.0: 0.004, 30.0: 0.031, 40.0: 0.2},
    calibrated_on="synthetic cases", fold_fractions=(0.6, 0.66),
)  # fmt: skip


def test_the_sentence_says_bounds_what_they_hold_for_and_the_chances() -> None:
    assert SURE.describe() == (
        "how sure: FLR 52 to 71 %, 610 to 843 ml; such intervals hold the truth in 90 % of cases like the 112 synthetic cases they were "
        "calibrated on, inputs predicted; probability that the FLR is below 20 % under 1 %, below 30 % 3 %, below 40 % 20 %"
    )


def test_json_names_the_ends() -> None:
    content = SURE.to_json()
    assert content["flr_ml"] == {"lower": 610.4, "upper": 843.0}
    assert content["flr_fraction"] == {"lower": 0.523, "upper": 0.7149}
    assert content["probability_below_percent"] == {"20": 0.004, "30": 0.031, "40": 0.2}
    assert content["fold_flr_fractions"] == [0.6, 0.66]
    assert (content["coverage"], content["calibrated"], content["valid"], content["cases"]) == (0.9, True, True, 112)
    assert content["text"] == SURE.describe()


@pytest.mark.parametrize(
    ("calibrated", "expected"),
    [
        (True, "how sure: no interval, this case is unlike those that the models were calibrated on (the liver is cut)"),
        (False, "how sure: no interval, not calibrated: the liver is cut"),
    ],
)
def test_without_valid_bounds_no_number_is_given(calibrated: bool, expected: str) -> None:
    unsure = replace(SURE, calibrated=calibrated, flr_ml=None, flr_fraction=None, below={}, not_valid=("the liver is cut",))
    assert unsure.describe() == expected
    content = unsure.to_json()
    assert not content["valid"]
    assert content["flr_ml"] is content["flr_fraction"] is content["probability_below_percent"] is None
