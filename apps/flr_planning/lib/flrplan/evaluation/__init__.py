"""The benchmark's evaluation: labels and predictions in, ``cases.csv``, ``summary.json``, two tables and a report out.

The order of work: :mod:`inputs` (which file is what, and what is missing), :mod:`scoring` (one case, in a worker process),
:mod:`summary` with :mod:`statistics` (numbers), :mod:`tables`, :mod:`figures` and :mod:`report` (what people read),
:mod:`run` (all of it). Never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.evaluation.columns import COLUMNS, PAPER_COLUMNS, Column, Part, columns_of
    from flrplan.evaluation.ensemble import combine
    from flrplan.evaluation.run import evaluate
    from flrplan.evaluation.settings import SYNTHETIC_NOTE, TIE_MARGIN, WRITTEN, EvaluationSettings

__all__ = [
    "COLUMNS",
    "PAPER_COLUMNS",
    "SYNTHETIC_NOTE",
    "TIE_MARGIN",
    "WRITTEN",
    "Column",
    "EvaluationSettings",
    "Part",
    "columns_of",
    "combine",
    "evaluate",
]

import_at_first_use(
    __name__,
    {
        "flrplan.evaluation.columns": (
            "COLUMNS",
            "PAPER_COLUMNS",
            "Column",
            "Part",
            "columns_of",
        ),
        "flrplan.evaluation.settings": (
            "EvaluationSettings",
            "SYNTHETIC_NOTE",
            "TIE_MARGIN",
            "WRITTEN",
        ),
        "flrplan.evaluation.run": ("evaluate",),
        "flrplan.evaluation.ensemble": ("combine",),
    },
)
