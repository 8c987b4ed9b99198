"""Which of our architectures is best in a column, what that is worth, and which baselines reach it: written into the summary.

Means over different cases are never set against each other. Candidates are the cells that have every case of their part; they are
compared over the cases in which all of them have a value, where a miss counts as the worst (:meth:`Row.penalised`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.comparisons import Kind, ranks_by_case
from flrplan.evaluation.paper import paper_value
from flrplan.evaluation.rows import Row
from flrplan.evaluation.statistics import Outcome, defined_mean, group_means
from flrplan.evaluation.summary import Results, groups_of, paired
from flrplan.metrics.catalogue import PAPER_METRICS, Better, metrics_of

Summary = dict[str, dict[str, dict[str, dict[str, dict[str, Any]]]]]
"""``{part: {architecture: {column: {metric: {...}}}}}``."""


class Standing(StrEnum):
    """How an architecture stands to the best one of its column."""

    BEST = "best"
    TIE = "tie"
    UNDECIDED = "undecided"
    WORSE = "worse"


def add_standings(summary: Summary, baselines: Summary, results: Results, compared: Sequence[Mapping[str, Any]]) -> None:
    """Writes into both summaries what follows from setting cells of one column side by side.

    Models: ``standing`` (:class:`Standing`; None where not compared) by ``compared_mean`` over ``n_compared`` cases, of the tables'
    metrics; ``mean_rank`` over ``n_ranked`` cases of every metric that has a direction (None for a single candidate);
    ``paper_in_ci95``, whether the paper's mean lies in our interval (None without one or the other).
    Baselines: ``reaches_best``, whether their mean, as shown, is at least that of the best model over the cases of both.
    """
    outcomes = {
        (e["part"], e["metric"], tuple(e["a"]), tuple(e["b"])): e["outcome"]
        for e in compared
        if e["kind"] == Kind.ARCHITECTURES.value
    }
    for part in Part:
        for column in results.columns(part):
            cells = {a: results.select(part, a, column) for a in results.architectures}
            cells = {a: rows for a, rows in cells.items() if rows}
            whole = {a: rows for a, rows in cells.items() if len(rows) == len(results.cases[part])}
            _add_ranks(summary, whole, cells, part, column)
            for metric in PAPER_METRICS:
                means, n_compared = _compared_means(whole, metric)
                best = [a for a, mean in means.items() if mean == max(means.values())]
                for a in cells:
                    stats = summary[part.value][a][column][metric]
                    standing = None
                    if a in means:
                        standing = Standing.BEST if a in best else _beside(outcomes, part, column, metric, best[0], a)
                    stats["standing"] = standing.value if standing else None
                    stats |= {"compared_mean": means.get(a), "n_compared": n_compared if standing else None}
                    stats["paper_in_ci95"] = _holds_paper(stats["ci95"], part, a, column, metric)
                for name in results.baseline_names:
                    rows = results.select(part, name, column, baselines=True)
                    if rows:
                        reaches = bool(best) and _reaches(rows, whole[best[0]], metric, len(results.cases[part]))
                        baselines[part.value][name][column][metric]["reaches_best"] = reaches


def _add_ranks(summary: Summary, whole: Mapping[str, list[Row]], cells: Mapping[str, Any], part: Part, column: str) -> None:
    for metric in metrics_of(COLUMNS[column].target):
        if metric.better is Better.NEITHER:
            continue
        candidates = {a: rows for a, rows in whole.items() if all(metric.name in row.values for row in rows)}
        ranks, groups = ranks_by_case(list(candidates.values()), metric.name)
        means = [float(group_means(of_one, groups).mean()) for of_one in ranks.T] if len(candidates) > 1 and len(ranks) else []
        ranked = dict(zip(candidates, means, strict=False))
        for a in cells:
            stats = summary[part.value][a][column].get(metric.name)
            if stats is not None:
                stats |= {"mean_rank": ranked.get(a), "n_ranked": len(ranks) if a in ranked else None}


def _compared_means(whole: Mapping[str, list[Row]], metric: str) -> tuple[dict[str, float], int]:
    """The mean of each architecture over the cases in which all have a value (none for no such case), and their number."""
    values = {a: {row.case: row.penalised(metric) for row in rows} for a, rows in whole.items()}
    first = next(iter(whole.values()), [])
    shared = [row for row in first if not any(np.isnan(of_one[row.case]) for of_one in values.values())]
    groups = groups_of(shared)
    means = {a: defined_mean([of_one[row.case] for row in shared], groups) for a, of_one in values.items()}
    return {a: round(mean, 12) for a, mean in means.items() if mean is not None}, len(shared)


def _beside(outcomes: Mapping[Any, str | None], part: Part, column: str, metric: str, best: str, other: str) -> Standing:
    sides = ((best, column), (other, column))
    found = outcomes.get((part.value, metric, *sides))
    turned = outcomes.get((part.value, metric, *sides[::-1]))
    if Outcome.TIE.value in (found, turned):
        return Standing.TIE
    is_worse = found == Outcome.HIGHER.value or turned == Outcome.LOWER.value
    return Standing.WORSE if is_worse else Standing.UNDECIDED


def _holds_paper(ci95: Sequence[float] | None, part: Part, architecture: str, column: str, metric: str) -> bool | None:
    paper = paper_value(part, architecture, column, metric)
    if ci95 is None or paper is None:
        return None
    return round(ci95[0], 3) <= paper[0] <= round(ci95[1], 3)  # the digits that the tables show


def _reaches(baseline: Sequence[Row], best: Sequence[Row], metric: str, cases: int) -> bool:
    if len(baseline) < cases:
        return False
    theirs, ours, groups = paired(baseline, best, metric)
    both = ~(np.isnan(theirs) | np.isnan(ours))
    if not both.any():
        return False
    means = (group_means(values[both], groups[both]).mean() for values in (theirs, ours))
    one, two = (round(float(mean), 3) for mean in means)
    return one >= two
