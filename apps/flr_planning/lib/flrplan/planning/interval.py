"""How sure a plan's remnant is: bounds that hold in nine of ten new cases, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

COVERAGE = 0.9
"""Share of new cases whose true remnant lies within the bounds. Marginal: over all cases like those of the calibration, not for each kind."""

THRESHOLDS_PERCENT = (20.0, 25.0, 26.6, 30.0, 40.0)
"""FLR% of the measured parenchyma for which the probability to lie below is given: 20, 30 and 40, and those that are judged over it
(:mod:`flrplan.planning.criteria`)."""
_SPOKEN = (20.0, 30.0, 40.0)


class Bounds(NamedTuple):
    """Lower and upper end."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Interval:
    """How sure the remnant parenchyma of one plan is (:mod:`flrplan.planning.calibration` makes it).

    inputs: ``given`` (liver and metastases) or ``predicted``, which are calibrated apart; anything else is not calibrated.
    calibrated: enough cases with known truth were planned by these very models. cases: how many. calibrated_on: what they were, in words.
    not_valid: sentences why the bounds would say nothing of this case, which is unlike those; most often none.
    flr_ml, flr_fraction: bounds of the volume, and of its share of all parenchyma (0..1); None unless calibrated and valid.
    below: the probability that the true FLR% lies below each of :data:`THRESHOLDS_PERCENT`; none unless calibrated and valid.
    fold_fractions: the FLR (0..1) of the coherent plan of each fold by itself. Their spread is no interval: it is far too narrow.
    architecture_fractions: of that of each architecture, the plan's own first; empty without second opinions. Nor is theirs.
    """

    inputs: str
    calibrated: bool
    cases: int
    flr_ml: Bounds | None = None
    flr_fraction: Bounds | None = None
    below: Mapping[float, float] = field(default_factory=dict)
    coverage: float = COVERAGE
    calibrated_on: str = ""
    not_valid: tuple[str, ...] = ()
    fold_fractions: tuple[float, ...] = ()
    architecture_fractions: Mapping[str, float] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether there are bounds."""
        return self.flr_fraction is not None and self.flr_ml is not None

    @property
    def by_architecture(self) -> str:
        """The FLR% of each architecture's own plan in words; empty without second opinions."""
        return ", ".join(f"{name} {100 * fraction:.0f} %" for name, fraction in self.architecture_fractions.items())

    def describe(self) -> str:
        """One sentence for people, without the full stop."""
        return self._describe() + (
            f"; FLR of each architecture's own plan: {self.by_architecture}" if self.architecture_fractions else ""
        )

    def _describe(self) -> str:
        if self.flr_fraction is None or self.flr_ml is None:
            reason = (
                f"this case is unlike those that the models were calibrated on ({'; '.join(self.not_valid)})"
                if self.calibrated
                else f"not calibrated: {'; '.join(self.not_valid)}"
            )
            return f"how sure: no interval, {reason}"
        percent, ml = Bounds(*(100 * end for end in self.flr_fraction)), self.flr_ml
        below = ", ".join(f"below {t:g} % {_chance(self.below[t])}" for t in _SPOKEN if t in self.below)
        return (
            f"how sure: FLR {percent.lower:.0f} to {percent.upper:.0f} %, {ml.lower:.0f} to {ml.upper:.0f} ml; such intervals hold the "
            f"truth in {100 * self.coverage:g} % of cases like the {self.cases} {self.calibrated_on} they were calibrated on, inputs "
            f"{self.inputs}" + (f"; probability that the FLR is {below}" if below else "")
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; what there is not is None."""
        return {
            "inputs": self.inputs,
            "calibrated": self.calibrated,
            "valid": self.valid,
            "cases": self.cases,
            "calibrated_on": self.calibrated_on,
            "coverage": self.coverage,
            "flr_ml": None if self.flr_ml is None else _rounded(self.flr_ml, 1),
            "flr_fraction": None if self.flr_fraction is None else _rounded(self.flr_fraction, 4),
            "probability_below_percent": {f"{t:g}": round(p, 4) for t, p in self.below.items()} or None,
            "not_valid": list(self.not_valid),
            "fold_flr_fractions": [round(f, 4) for f in self.fold_fractions],
            "architecture_flr_fractions": {name: round(f, 4) for name, f in self.architecture_fractions.items()},
            "text": self.describe(),
        }


def _rounded(bounds: Bounds, digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in bounds._asdict().items()}


def _chance(p: float) -> str:
    return "under 1 %" if p < 0.01 else "over 99 %" if p > 0.99 else f"{100 * p:.0f} %"
