"""What bounds a goal of the demo models, in words made from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flrplan.demo.goals import Outcome
from flrplan.demo.measure import MeasuredCase
from flrplan.demo.real_ct import RealScore
from flrplan.demo.strata import STRATA, by_stratum, mean_of

FAR = 0.10
"""Cases this far below a goal are counted apart: few of them bound it by failures, many by the general level."""


def what_bounds(outcome: Outcome, cases: Sequence[MeasuredCase], real: Sequence[RealScore]) -> str:
    """A few sentences: for a real CT what is missed and added, else cases far below the goal and the lowest strata."""
    if outcome.met is None:
        return "Not measured when this card was written."
    if outcome.goal.real is not None:
        return _of_real(next(score for score in real if score.name == outcome.goal.real))
    return _of_cases(outcome, [c for c in cases if not math.isnan(outcome.goal.value(c))])


def _of_real(score: RealScore) -> str:
    found = score.reference_ml - score.missed_ml
    if not found:
        return f"None of the {score.reference_ml:.0f} ml of liver was found."
    full = 2 * score.reference_ml / (2 * score.reference_ml + score.extra_ml)
    bare = 2 * found / (score.reference_ml + found)
    return (
        f"Of {score.reference_ml:.0f} ml of liver {score.missed_ml:.0f} were missed, and {score.extra_ml:.0f} ml beside it were added. "
        f"With nothing missed the Dice would be {full:.3f}, with nothing added {bare:.3f}, so what is "
        f"{'missed' if full > bare else 'added'} bounds it more. One patient: no more can be said."
    )


def _of_cases(outcome: Outcome, cases: Sequence[MeasuredCase]) -> str:
    goal = outcome.goal
    sign = "+" if goal.over else ""
    below = [c for c in cases if goal.value(c) < goal.at_least]
    near = [c for c in cases if goal.value(c) >= goal.at_least - FAR]
    far = len(cases) - len(near)
    parts = [f"{len(below)} of {len(cases)} cases lie below {goal.at_least:g}"]
    if far and near:
        parts[0] += f", {far} of them by more than {FAR:g}; without those the mean is {mean_of(near, goal.value):{sign}.3f}"
    elif far:
        parts[0] += f", all by more than {FAR:g}"
    reaching = []
    for kind, stratum in STRATA.items():
        strata = by_stratum(cases, stratum)
        if len(strata) == 1:
            continue
        means = {name: mean_of(part, goal.value) for name, part in strata.items()}
        low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        parts.append(
            f"By {kind} the lowest is {low} ({means[low]:{sign}.3f}, {len(strata[low])} cases), "
            f"the highest {high} ({means[high]:{sign}.3f}, {len(strata[high])})"
        )
        reaching += [name for name, mean in means.items() if mean >= goal.at_least]
    if outcome.met is False and not goal.over:
        parts.append(
            f"The goal is reached in: {', '.join(reaching)}; the other strata bound it"
            if reaching
            else "No stratum reaches the goal: it is missed on every kind of scan"
        )
    return ". ".join(parts) + "."
