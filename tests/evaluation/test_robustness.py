"""What a way of training takes back of the fall from true to predicted masks, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.errors import LabelError
from flrplan.evaluation.robustness import PairedDice, markdown, robustness

NAN = float("nan")


def pair(pipelined: list[float], cascaded: list[float]) -> PairedDice:
    return PairedDice(np.array(pipelined), np.array(cascaded))


def test_half_of_the_gap_is_closed() -> None:
    dice = {
        "truth": pair([0.9, 0.8, 0.7, 0.6, NAN], [0.7, 0.6, 0.5, 0.4, 0.5]),
        "noise": pair([0.8, 0.8, 0.7, 0.5, 0.9], [0.8, 0.7, 0.6, 0.5, 0.9]),
    }
    truth, noise = robustness(dice, "truth")
    assert (truth.n, noise.n, noise.cases) == (4, 4, 5), "the case without a value in one column counts in none"
    assert (truth.pipelined, truth.cascaded) == (pytest.approx(0.75), pytest.approx(0.55))
    assert (truth.gap, truth.closed, truth.gain_ci95) == (pytest.approx(0.2), None, None)
    assert truth.gap_ci95 == [pytest.approx(0.2), pytest.approx(0.2)]
    assert noise.gap == pytest.approx(0.05)
    assert (noise.gain, noise.closed) == (pytest.approx(0.1), pytest.approx(0.5))
    assert noise.closed_ci95 == [pytest.approx(0.5), pytest.approx(0.5)]
    assert "| noise | 0.700 | 0.650 | +0.050" in markdown([truth, noise])
    assert "50 % (50 to 50)" in markdown([truth, noise])


def test_no_gap_to_close() -> None:
    rows = robustness({"truth": pair([0.5, 0.6, 0.7], [0.6, 0.5, 0.7]), "noise": pair([0.5] * 3, [0.9] * 3)}, "truth")
    assert rows[1].closed is None
    assert rows[1].gain == pytest.approx(0.3)
    assert markdown(rows).splitlines()[-1].endswith("| - |")


def test_too_few_cases_have_no_interval() -> None:
    rows = robustness({"truth": pair([0.9, 0.8], [0.5, 0.5]), "noise": pair([0.9, 0.8], [0.6, 0.6])}, "truth")
    assert (rows[1].gap_ci95, rows[1].closed) == (None, None)


def test_a_gain_that_is_not_significant_is_undecided_or_a_tie_never_equal() -> None:
    base = np.linspace(0.4, 0.7, 12)
    dice = {
        "truth": PairedDice(base + 0.2, base),
        "same": PairedDice(base + 0.2, base + 0.001),
        "noise": PairedDice(base + 0.2, base + 0.2 * np.cos(2.0 * np.arange(12))),
        "better": PairedDice(base + 0.2, base + 0.1),
    }
    rows = robustness(dice, "truth")
    assert [row.outcome.value if row.outcome else None for row in rows] == [None, "tie", "undecided", "higher"]
    assert "| tie | " in markdown(rows)


def test_no_case_with_every_dice_is_an_error() -> None:
    with pytest.raises(LabelError, match="no case has a Dice of every way of training \\(truth, noise\\)"):
        robustness({"truth": pair([0.5, NAN], [0.4, 0.4]), "noise": pair([NAN, 0.5], [0.4, 0.4])}, "truth")
