"""``summary.json``: every mean with its spread and interval, by part, architecture, column and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flrplan.evaluation.baselines import baseline_order
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.inputs import Gap
from flrplan.evaluation.paper import architecture_order
from flrplan.evaluation.probabilities import ProbabilityRow
from flrplan.evaluation.provenance import ModelRecord
from flrplan.evaluation.rows import LesionRow, Row
from flrplan.evaluation.settings import TIE_MARGIN
from flrplan.evaluation.statistics import Floats, defined_mean, describe
from flrplan.evaluation.subgroups import Clinical
from flrplan.evaluation.trivial_plans import Plane
from flrplan.evaluation.variants import Variants
from flrplan.metrics.catalogue import metrics_of


@dataclass(frozen=True)
class Results:
    """Everything that was measured, in a fixed order whatever the order of the workers.

    cases: all cases of each part that the split names. gaps: what is missing, extra or broken.
    absent: ``<architecture>/<column>`` without a single prediction.
    unrecorded: models of a work folder that do not record what they were trained on.
    clinical: what the work folder's table says of the patients, by case.
    models: what the models of each architecture started from and how much they see.
    variants: what the rows are that are no architecture as it is.
    planes: the fixed plane of each fold's baseline, and of the held-out cases (None).
    original: the original labels scored as a rater; original_missing: the cases without one.
    probabilities: what saved probabilities say; unscored_probabilities: a sentence for each place where they lack.
    margin: differences within it are ties.
    """

    rows: tuple[Row, ...]
    baselines: tuple[Row, ...]
    lesions: tuple[LesionRow, ...]
    cases: dict[Part, tuple[str, ...]]
    gaps: tuple[Gap, ...] = ()
    absent: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    models: tuple[ModelRecord, ...] = ()
    clinical: Clinical = field(default_factory=dict)
    variants: Variants = field(default_factory=dict)
    probabilities: tuple[ProbabilityRow, ...] = ()
    unscored_probabilities: tuple[str, ...] = ()
    note: str = ""
    planes: Mapping[int | None, Plane] = field(default_factory=dict)
    original: tuple[Row, ...] = ()
    original_missing: tuple[str, ...] = ()
    margin: float = TIE_MARGIN

    @property
    def architectures(self) -> list[str]:
        """Names of the architectures that have a row, in the order of tables."""
        return architecture_order({row.architecture for row in self.rows})

    @property
    def baseline_names(self) -> list[str]:
        """Names of the baselines that have a row: those of ground truth first, then by architecture in the order of tables."""
        return baseline_order({row.architecture for row in self.baselines})

    def select(self, part: Part, architecture: str, column: str, baselines: bool = False) -> list[Row]:
        """The rows of one cell of a table, by case."""
        rows = self.baselines if baselines else self.rows
        return [r for r in rows if r.key == (part, architecture, column)]

    def columns(self, part: Part) -> list[str]:
        """The columns that any architecture has in a part, in the order of tables."""
        present = {row.column_name for row in self.rows if row.part is part}
        return [name for name in COLUMNS if name in present]


def groups_of(rows: Sequence[Row]) -> list[int]:
    """The group of each row for a mean of fold means: its fold, and 0 for held-out cases."""
    return [row.fold if row.fold is not None else 0 for row in rows]


def describe_rows(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Every metric of one cell of a table that applies to any of its rows; rows that lack it count as undefined. Empty for no rows.

    Beside what :func:`describe` says: ``n_missed``, the cases of which a structure that is there was left empty, and
    ``penalised_mean`` and ``median`` over ``n_penalised`` cases, in which they count as the worst value (:meth:`Row.penalised`).
    """
    if not rows:
        return {}
    groups, folded = groups_of(rows), rows[0].part is Part.CV  # held-out cases are one group
    missed = sum(row.is_missed for row in rows)
    cell: dict[str, dict[str, Any]] = {}
    for metric in (m.name for m in metrics_of(rows[0].column.target) if any(m.name in row.values for row in rows)):
        penalised = [row.penalised(metric) for row in rows]
        known = [value for value in penalised if not np.isnan(value)]
        stats = describe([row.values.get(metric, math.nan) for row in rows], groups, folded)
        stats |= {"n_missed": missed, "n_penalised": len(known), "penalised_mean": defined_mean(penalised, groups)}
        cell[metric] = stats | {"median": float(np.median(known)) if known else None}
    return cell


def summarise(results: Results, baselines: bool = False) -> dict[str, dict[str, dict[str, Any]]]:
    """``{part: {architecture: {column: {metric: {...}}}}}`` with both parts, of the models or of the baselines."""
    names = results.baseline_names if baselines else results.architectures
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for part in Part:
        summary[part.value] = {}
        for name in names:
            columns = {c: describe_rows(results.select(part, name, c, baselines)) for c in COLUMNS}
            columns = {column: cell for column, cell in columns.items() if cell}
            if columns:
                summary[part.value][name] = columns
    return summary


def paired(one: Sequence[Row], two: Sequence[Row], metric: str) -> tuple[Floats, Floats, Any]:
    """Values of two cells for a comparison (:meth:`Row.penalised`) over the cases that both have, and the cases' groups."""
    other = {row.case: row for row in two}
    shared = [row for row in one if row.case in other]
    a = np.array([row.penalised(metric) for row in shared], float)
    b = np.array([other[row.case].penalised(metric) for row in shared], float)
    return a, b, np.array(groups_of(shared), np.int64)
