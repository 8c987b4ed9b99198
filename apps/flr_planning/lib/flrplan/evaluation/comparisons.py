"""Paired comparisons: of architectures, pipelined with cascaded, cascaded with E2E, models with baselines; ranks.

All case-paired; a miss counts as the worst value (:meth:`Row.penalised`). Holm's correction runs over all comparisons of one kind
and metric in one part: every pair of which both sides have predictions, computable or not, so its size does not hang on the results.
Comparisons in columns that the paper does not have are a family of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Structure
from flrplan.evaluation.baselines import knows_truth
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.rows import Row
from flrplan.evaluation.statistics import Floats, case_ranks, compare, group_means, holm, outcome, rank_stability
from flrplan.evaluation.summary import Results, groups_of, paired
from flrplan.method import Inputs
from flrplan.metrics.catalogue import PAPER_METRICS

COMPARED = "dice"
"""The metric of claims and rankings: the paper draws its conclusions from Dice alone."""

_PAPER = {name: column for name, column in COLUMNS.items() if column.is_papers}
_BY_KIND: dict[tuple[Inputs, Structure], str] = {(c.inputs, c.target): name for name, c in _PAPER.items()}

FLR_FROM_CT: tuple[str, ...] = tuple(
    name for name, c in _PAPER.items() if c.target is Structure.FLR and c.inputs is not Inputs.PIPELINED
)
"""The columns that answer the paper's question, the FLR from a CT alone: the cascade and the end-to-end model."""


class Kind(StrEnum):
    """What is compared."""

    ARCHITECTURES = "architectures"
    DROP = "pipelined minus cascaded"
    DROPS = "drop of a minus drop of b"
    STRATEGIES = "cascaded minus E2E"
    ACROSS = "cascaded of a minus E2E of b"
    BASELINES = "model minus baseline"

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is compared: the tables' metrics inside a column and of a drop, elsewhere :data:`COMPARED`."""
        return PAPER_METRICS if self in (Kind.ARCHITECTURES, Kind.DROP) else (COMPARED,)


Side = tuple[str, str]
"""Architecture (or baseline) and column."""


def _pairs(results: Results, part: Part) -> Iterator[tuple[Kind, Side, Side]]:
    architectures, columns = results.architectures, set(results.columns(part))
    for column in results.columns(part):
        for a, b in combinations(architectures, 2):
            yield Kind.ARCHITECTURES, (a, column), (b, column)
    for a in architectures:
        for target in (Structure.CRLM, Structure.FLR):
            given, own = _BY_KIND[Inputs.PIPELINED, target], _BY_KIND[Inputs.CASCADED, target]
            if {given, own} <= columns:
                yield Kind.DROP, (a, given), (a, own)
        cascaded, e2e = FLR_FROM_CT
        if {cascaded, e2e} <= columns:
            for b in architectures:
                yield Kind.STRATEGIES if a == b else Kind.ACROSS, (a, cascaded), (b, e2e)
    baselines = {(row.architecture, row.column_name): None for row in results.baselines if row.part is part}
    for baseline, column in sorted(baselines):
        for a in architectures:
            # A predicted liver is compared with the models of the same architecture.
            if column in columns and baseline.partition(":")[2] in ("", a):
                yield Kind.BASELINES, (a, column), (baseline, column)


def _cells(results: Results, part: Part) -> dict[Side, list[Row]]:
    cells: dict[Side, list[Row]] = {}
    for row in (*results.rows, *results.baselines):
        if row.part is part:
            cells.setdefault((row.architecture, row.column_name), []).append(row)
    return cells


def comparisons(results: Results) -> list[dict[str, Any]]:
    """Every comparison of :class:`Kind` in each part, as :func:`compare` gives it, with ``p_holm``, ``family`` and ``outcome``.

    ``difference`` is a - b of ``metric``; ``family`` the number of comparisons that Holm's correction counts; ``outcome`` says what
    follows (:func:`outcome`). None where not computable.
    """
    found: list[dict[str, Any]] = []
    for part in Part:
        cells = _cells(results, part)
        of_part: list[dict[str, Any]] = []
        for kind, a, b in _pairs(results, part):
            for metric in kind.metrics if a in cells and b in cells else ():
                of_part.append(_entry(part, kind, metric, a, b) | compare(*paired(cells[a], cells[b], metric)))
        of_part += _drops_compared(results, part, cells)
        families: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
        for entry in of_part:
            families.setdefault((entry["kind"], entry["metric"], entry["b"][1] in _PAPER), []).append(entry)
        for family in families.values():
            for entry, p in zip(family, holm([e["p"] for e in family]), strict=True):
                entry |= {"p_holm": p, "family": len(family)}
                said = outcome(entry, results.margin)
                entry["outcome"] = said.value if said else None
        found += of_part
    return found


def _entry(part: Part, kind: Kind, metric: str, a: Side, b: Side) -> dict[str, Any]:
    return {"part": part.value, "kind": kind.value, "metric": metric, "a": list(a), "b": list(b)}


def _drops_compared(results: Results, part: Part, cells: dict[Side, list[Row]]) -> Iterator[dict[str, Any]]:
    """Whether one architecture loses more from pipelined to cascaded inputs than another, over the cases of all four cells."""
    for target in (Structure.CRLM, Structure.FLR):
        names = [_BY_KIND[inputs, target] for inputs in (Inputs.PIPELINED, Inputs.CASCADED)]
        drops: dict[str, dict[str, float]] = {}
        group_of: dict[str, int] = {}
        for a in results.architectures:
            given, own = ({row.case: row for row in cells.get((a, name), [])} for name in names)
            if given and own:
                drops[a] = {c: given[c].values[COMPARED] - own[c].values[COMPARED] for c in given if c in own}
            group_of |= {row.case: group for row, group in zip(given.values(), groups_of(list(given.values())), strict=True)}
        for a, b in combinations(drops, 2):
            shared = [case for case in drops[a] if case in drops[b]]
            one, two = (np.array([drops[name][case] for case in shared]) for name in (a, b))
            groups = np.array([group_of[case] for case in shared], np.int64)
            yield _entry(part, Kind.DROPS, COMPARED, (a, names[0]), (b, names[0])) | compare(one, two, groups)


def rankings(results: Results) -> list[dict[str, Any]]:
    """Ranks by the mean of the per-case ranks of Dice and how stable they are when cases are drawn again: per column, and of all
    ways from CT to FLR.

    ``left_out``: candidates that were not predicted in every case that others were; they would leave few cases to all. ``n``: cases.
    ``probability[k][r]``: how often candidate k takes rank r + 1. None where there is nothing to rank or too few cases.
    """
    found = []
    for part in Part:
        cells = _cells(results, part)
        for column in results.columns(part):
            sides = [(a, column) for a in results.architectures if (a, column) in cells]
            found.append(_ranking(part, column, sides, cells))
        sides = [(a, c) for c in FLR_FROM_CT for a in results.architectures if (a, c) in cells]
        from_ct = [name for name in results.baseline_names if not knows_truth(name)]
        sides += [(b, FLR_FROM_CT[-1]) for b in from_ct if (b, FLR_FROM_CT[-1]) in cells]
        if len({column for _, column in sides}) > 1:
            found.append(_ranking(part, "FLR from CT", sides, cells))
    return found


def _ranking(part: Part, name: str, asked: list[Side], cells: dict[Side, list[Row]]) -> dict[str, Any]:
    predicted = {side: {r.case for r in cells[side]} for side in asked}
    anywhere = set().union(*predicted.values())
    sides = [side for side in asked if predicted[side] == anywhere]
    left_out = [list(side) for side in asked if side not in sides]
    ranks, groups = ranks_by_case([cells[side] for side in sides], COMPARED)
    stability = rank_stability(-ranks, groups)
    entry: dict[str, Any] = {"part": part.value, "of": name, "metric": COMPARED, "n": len(ranks)}
    entry |= {"candidates": [list(side) for side in sides], "left_out": left_out}
    entry["mean_ranks"] = [float(group_means(column, groups).mean()) for column in ranks.T] if len(ranks) else None
    return entry | (stability or {"ranks": None, "probability": None})


def ranks_by_case(cells: Sequence[Sequence[Row]], metric: str) -> tuple[Floats, NDArray[np.int64]]:
    """``(cases, cells)``: the rank of each cell in each case that all have, 1 is best, equals share; and the cases' groups.

    By :meth:`Row.order`: a miss is last. A value that one lacks and another has is last, too; a case without any says nothing and
    is left out.
    """
    by_case: list[Mapping[str, Row]] = [{row.case: row for row in rows} for rows in cells]
    shared = [case for case in by_case[0] if all(case in rows for rows in by_case)] if by_case else []
    order = np.array([[rows[case].order(metric) for rows in by_case] for case in shared], float).reshape(
        len(shared), len(cells)
    )
    known = ~np.isnan(order).all(axis=1)
    groups = np.array(groups_of([by_case[0][case] for case in shared]) if by_case else [], np.int64)
    return case_ranks(np.where(np.isnan(order), -np.inf, order)[known]), groups[known]
