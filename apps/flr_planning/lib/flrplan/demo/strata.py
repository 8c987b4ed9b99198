"""The strata of the held-out cases: how they were drawn, contrast phase and slice spacing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from flrplan.demo.measure import MeasuredCase

Value = Callable[[MeasuredCase], float]


def slice_stratum(case: MeasuredCase) -> str:
    """Thin, middle or thick slices."""
    return "up to 2.5 mm" if case.slice_mm <= 2.5 else "2.5 to 4 mm" if case.slice_mm <= 4 else "over 4 mm"


STRATA: dict[str, Callable[[MeasuredCase], str]] = {
    "kind of case": lambda case: case.kind,
    "contrast phase": lambda case: case.phase,
    "slice spacing": slice_stratum,
}
"""By what the cases are divided, and the stratum of a case."""


def mean_of(cases: Sequence[MeasuredCase], value: Value) -> float:
    """Mean of the defined values; NaN where there is none."""
    values = [v for v in map(value, cases) if not math.isnan(v)]
    return sum(values) / len(values) if values else math.nan


def by_stratum(cases: Sequence[MeasuredCase], stratum: Callable[[MeasuredCase], str]) -> dict[str, list[MeasuredCase]]:
    """The cases of each stratum that occurs, strata by name."""
    return {name: [c for c in cases if stratum(c) == name] for name in sorted({stratum(c) for c in cases})}
