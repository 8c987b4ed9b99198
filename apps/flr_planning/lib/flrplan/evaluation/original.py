"""The original labels scored against the refined ones: a pseudo-rater, whose disagreement with the truth bounds what can be asked.

A row of its own, on the same cases and by the same metrics as the models. It is no model and no baseline, so it is never ranked,
compared or bold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.inputs import CaseFiles, find_label_set
from flrplan.evaluation.summary import Results, describe_rows


def with_original(cases: Sequence[CaseFiles], folder: Path) -> tuple[tuple[CaseFiles, ...], tuple[str, ...]]:
    """The cases with their original labels from a work folder or a folder of labels, and the ids of those that have none.

    Labels of other cases are passed over. Raises: SettingsError for a folder without a label of any of the cases, and for the labels
        themselves, which would agree with themselves.
    """
    labels = find_label_set(folder)
    missing = tuple(case.case for case in cases if case.case not in labels)
    if len(missing) == len(cases):
        raise SettingsError(
            f"--original {folder}: none of its {len(labels)} labels is of a case of the split, such as {cases[0].case if cases else '-'}; "
            "give the work folder that was prepared from the original labels"
        )
    for case in cases:
        if case.case in labels and labels[case.case].first.samefile(case.label.first):
            raise SettingsError(
                f"--original {folder}: {case.label.first} is the label that predictions are scored against; give the labels as they "
                "were before their refinement"
            )
    return tuple(replace(case, original=labels.get(case.case)) for case in cases), missing


def summarise_original(results: Results) -> dict[str, Any]:
    """``{part: {column: {metric: {...}}}}`` of the original labels, and ``missing``: the cases without one. Empty where not asked for."""
    if not results.original:
        return {}
    cells = {
        part.value: {
            column: cell
            for column in COLUMNS
            if (cell := describe_rows([r for r in results.original if (r.part, r.column_name) == (part, column)]))
        }
        for part in Part
    }
    return {**cells, "missing": list(results.original_missing)}
