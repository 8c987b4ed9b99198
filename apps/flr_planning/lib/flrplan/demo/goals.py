"""What the demo models are to reach, as a table, and whether they do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flrplan.demo.measure import MeasuredCase, paired_difference
from flrplan.demo.real_ct import RealScore, cropped_name
from flrplan.demo.strata import mean_of
from flrplan.errors import SettingsError


@dataclass(frozen=True)
class Goal:
    """Exactly one of ``column`` and ``real`` is given.

    column: mean Dice over the held-out synthetic cases must be ``at_least`` this. With ``over``, a second column: the lower end
        of the paired 95 % interval of column minus over must be above ``at_least``.
    real: Dice of the liver on the real CT that ``--real`` gives this name must be ``at_least`` this.
    """

    what: str
    at_least: float
    column: str | None = None
    over: str | None = None
    real: str | None = None

    def __post_init__(self) -> None:
        if (self.column is None) == (self.real is None):
            raise SettingsError(f"a goal takes a column of the synthetic cases or a real CT, got {self.column} and {self.real}")

    def value(self, case: MeasuredCase) -> float:
        """What one held-out case contributes: its Dice, or the difference of two. Only for a goal with a column."""
        return case.dice[str(self.column)] - (case.dice[self.over] if self.over else 0.0)


GOALS = (
    Goal("Liver on LIDC-IDRI-0001, the full series (arterial phase, chest in view)", 0.95, real="lidc-idri-0001"),
    Goal("Liver on TotalSegmentator's example_ct (no contrast, dome cut off)", 0.88, real="example_ct"),
    *(
        Goal(f"Liver on {name}, cropped to 10 mm around the liver", 0.90, real=cropped_name(name))
        for name in ("lidc-idri-0001", "example_ct")
    ),
    Goal("Liver, unseen synthetic cases", 0.95, column="liver"),
    Goal("CRLM, unseen synthetic cases, true liver given", 0.75, column="crlm_pipelined"),
    Goal("FLR, unseen synthetic cases, true liver and CRLM given", 0.87, column="flr_pipelined"),
    Goal(
        'FLR with true masks minus "liver minus tumour", unseen synthetic cases, lower end of the paired 95 % interval',
        0.0,
        column="flr_pipelined",
        over="flr_liver_minus_tumour",
    ),
    Goal(
        'FLR from the CT alone minus the true "liver minus tumour", unseen synthetic cases, lower end of the paired 95 % interval',
        0.0,
        column="flr_e2e",
        over="flr_liver_minus_tumour",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """A goal and what was measured: ``measured`` is NaN where it was not. ``mean``: what a goal with an interval has as mean."""

    goal: Goal
    measured: float
    mean: float | None = None

    @property
    def margin(self) -> float:
        """How far above the goal; negative: missed by this much."""
        return self.measured - self.goal.at_least

    @property
    def met(self) -> bool | None:
        """None where nothing was measured."""
        if math.isnan(self.measured):
            return None
        return self.margin > 0 if self.goal.over else self.margin >= 0

    def row(self) -> str:
        """A row of the card's table: goal, asked, measured, by how much it is met or missed."""
        asked = f"{'above' if self.goal.over else 'at least'} {self.goal.at_least:g}"
        if self.met is None:
            return f"| {self.goal.what} | {asked} | not measured | |"
        digits = 3 if abs(self.margin) >= 0.001 else 5
        mean = "" if self.mean is None else f" (mean {self.mean:+.3f})"
        verdict = f"{'met' if self.met else '**missed**'} by {abs(self.margin):.{digits}f}"
        return f"| {self.goal.what} | {asked} | {self.measured:.{digits}f}{mean} | {verdict} |"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {"measured": self.measured, "margin": self.margin, "met": self.met}
        return {"goal": self.goal.what, "at_least": self.goal.at_least, **values}


def judge(cases: Sequence[MeasuredCase], real: Sequence[RealScore], goals: Sequence[Goal] = GOALS) -> list[Outcome]:
    """What was measured for each goal, in their order."""
    scores = {score.name: score.dice for score in real}
    outcomes = []
    for goal in goals:
        if goal.real is not None:
            outcomes.append(Outcome(goal, scores.get(goal.real, math.nan)))
        elif goal.over is not None:
            mean, low, _ = paired_difference(cases, str(goal.column), goal.over)
            outcomes.append(Outcome(goal, low, mean))
        else:
            outcomes.append(Outcome(goal, mean_of(cases, goal.value)))
    return outcomes
