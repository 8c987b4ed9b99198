"""What so many cases can show: the smallest paired difference that a test would find, from the spread that was observed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from flrplan.evaluation.comparisons import Kind
from flrplan.evaluation.statistics import ALPHA, MIN_CASES
from flrplan.evaluation.summary import Results, paired

POWER = 0.80
"""Power for which the smallest difference is stated, at the two-sided level :data:`ALPHA`."""


def smallest_detectable(spread: float, cases: int) -> float | None:
    """The smallest mean paired difference that a two-sided t test finds with :data:`POWER` at :data:`ALPHA`; None for fewer than 3 cases.

    (t(1 - alpha / 2) + t(power)) * spread / sqrt(n), n - 1 degrees of freedom. spread: standard deviation (ddof 1) of the differences.
    0 where all differences are equal.
    """
    if cases < MIN_CASES:
        return None
    quantiles = student.ppf([1 - ALPHA / 2, POWER], cases - 1)
    return float(quantiles.sum() * spread / math.sqrt(cases))


def largest_spread(difference: float, cases: int) -> float:
    """The standard deviation of paired differences up to which ``difference`` is detectable; the inverse of the above."""
    return difference / (smallest_detectable(1.0, cases) or math.inf)


def detectable(results: Results, comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each compared pair of cells, over the cases in which both have a value: ``n``, ``sd`` and ``smallest`` of the same metric.

    Differences of drops are left out: their spread is of four cells. None where there are too few cases.
    """
    cells: dict[tuple[str, str, str], list[Any]] = {}
    for row in (*results.rows, *results.baselines):
        cells.setdefault((row.part.value, row.architecture, row.column_name), []).append(row)
    found = []
    for entry in comparisons:
        if entry["kind"] == Kind.DROPS.value:
            continue
        part, metric = entry["part"], entry["metric"]
        one, two = (cells.get((part, *entry[side]), []) for side in ("a", "b"))
        a, b, _ = paired(one, two, metric)
        differences = (a - b)[~np.isnan(a - b)]
        spread = float(differences.std(ddof=1)) if len(differences) > 1 else None
        smallest = None if spread is None else smallest_detectable(spread, len(differences))
        own = {"part": part, "kind": entry["kind"], "metric": metric, "a": entry["a"], "b": entry["b"]}
        found.append({**own, "n": len(differences), "sd": spread, "smallest": smallest})
    return found
