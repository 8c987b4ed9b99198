"""Paired comparisons: of architectures, pipelined with cascaded, cascaded with E2E, models with baselines.

All case-paired. Holm's correction runs over all comparisons of one kind in one part.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import combinations
from typing import Any

import numpy as np

from flrplan.evaluation.baselines import knows_truth
from flrplan.evaluation.columns import COLUMNS, Column, Inputs, Part
from flrplan.evaluation.rows import Row
from flrplan.evaluation.statistics import compare, holm, rank_stability
from flrplan.evaluation.summary import Results, groups_of, paired
from flrplan.labels import Structure

COMPARED = "dice"
"""The metric of all tests: the paper draws its conclusions from Dice alone."""

_BY_KIND: dict[tuple[Inputs, Structure], Column] = {(c.inputs, c.target): c for c in COLUMNS.values()}

FLR_FROM_CT: tuple[str, ...] = tuple(
    c.name for c in COLUMNS.values() if c.target is Structure.FLR and c.inputs is not Inputs.PIPELINED
)
"""The columns that answer the paper's question, the FLR from a CT alone: the cascade and the end-to-end model."""


class Kind(str, Enum):
    """What is compared."""

    ARCHITECTURES = "architectures"
    DROP = "pipelined minus cascaded"
    DROPS = "drop of a minus drop of b"
    STRATEGIES = "cascaded minus E2E"
    BASELINES = "model minus baseline"


Side = tuple[str, str]
"""Architecture (or baseline) and column."""


def _pairs(results: Results, part: Part) -> Iterator[tuple[Kind, Side, Side]]:
    architectures, columns = results.architectures, set(results.columns(part))
    for column in results.columns(part):
        for a, b in combinations(architectures, 2):
            yield Kind.ARCHITECTURES, (a, column), (b, column)
    for a in architectures:
        for target in (Structure.CRLM, Structure.FLR):
            given, own = _BY_KIND[Inputs.PIPELINED, target].name, _BY_KIND[Inputs.CASCADED, target].name
            if {given, own} <= columns:
                yield Kind.DROP, (a, given), (a, own)
        cascaded, e2e = FLR_FROM_CT
        if {cascaded, e2e} <= columns:
            yield Kind.STRATEGIES, (a, cascaded), (a, e2e)
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
    """Every comparison of :class:`Kind` in each part: ``difference`` a - b of Dice, ``ci95``, ``n``, ``p``, ``p_holm``.

    A drop also holds precision and recall (``kind`` "pipelined minus cascaded", another ``metric``), without a test of its
    own. Pairs without a common case are left out. None where not computable.
    """
    found: list[dict[str, Any]] = []
    for part in Part:
        cells = _cells(results, part)
        of_part: list[dict[str, Any]] = []
        for kind, a, b in _pairs(results, part):
            for metric in (COMPARED, "precision", "recall") if kind is Kind.DROP else (COMPARED,):
                one, two, groups = paired(cells.get(a, []), cells.get(b, []), metric)
                if len(one):
                    entry: dict[str, Any] = {
                        "part": part.value,
                        "kind": kind.value,
                        "metric": metric,
                        "a": list(a),
                        "b": list(b),
                    }
                    of_part.append(entry | compare(one, two, groups))
        of_part += _drops_compared(results, part, cells)
        for kind in Kind:
            family = [e for e in of_part if e["kind"] == kind.value and e["metric"] == COMPARED]
            for entry, p in zip(family, holm([e["p"] for e in family]), strict=True):
                entry["p_holm"] = p
        found += of_part
    return found


def _drops_compared(results: Results, part: Part, cells: dict[Side, list[Row]]) -> Iterator[dict[str, Any]]:
    """Whether one architecture loses more from pipelined to cascaded inputs than another, over the cases of all four cells."""
    for target in (Structure.CRLM, Structure.FLR):
        names = [_BY_KIND[inputs, target].name for inputs in (Inputs.PIPELINED, Inputs.CASCADED)]
        drops: dict[str, dict[str, float]] = {}
        group_of: dict[str, int] = {}
        for a in results.architectures:
            given, own = ({row.case: row for row in cells.get((a, name), [])} for name in names)
            drops[a] = {c: given[c].values[COMPARED] - own[c].values[COMPARED] for c in given if c in own}
            group_of |= {row.case: group for row, group in zip(given.values(), groups_of(list(given.values())), strict=True)}
        for a, b in combinations(results.architectures, 2):
            shared = [case for case in drops[a] if case in drops[b]]
            if shared:
                one, two = (np.array([drops[name][case] for case in shared]) for name in (a, b))
                groups = np.array([group_of[case] for case in shared], np.int64)
                entry = {"part": part.value, "kind": Kind.DROPS.value, "metric": COMPARED}
                yield entry | {"a": [a, names[0]], "b": [b, names[0]]} | compare(one, two, groups)


def rankings(results: Results) -> list[dict[str, Any]]:
    """Ranks by mean Dice and how stable they are when cases are drawn again: per column, and of all ways from CT to FLR.

    Over the cases in which every candidate has a defined Dice (``n``). ``left_out``: those that were not predicted in every case
    that others were; they would leave few cases to all. ``probability[k][r]``: how often candidate k takes rank r + 1. None
    where there is nothing to rank or too few cases.
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
    defined = [{r.case for r in cells[side] if not np.isnan(r.values[COMPARED])} for side in sides]
    shared = sorted(set.intersection(*defined)) if defined else []
    columns = [{r.case: r for r in cells[side]} for side in sides]
    values = np.array([[rows[case].values[COMPARED] for rows in columns] for case in shared], float)
    groups = np.array(groups_of([columns[0][case] for case in shared]) if columns else [], np.int64)
    stability = rank_stability(values.reshape(len(shared), len(sides)), groups)
    entry: dict[str, Any] = {"part": part.value, "of": name, "metric": COMPARED, "n": len(shared)}
    entry |= {"candidates": [list(side) for side in sides], "left_out": left_out}
    return entry | (stability or {"ranks": None, "probability": None})
