"""The same results seen apart: by subgroup, lesions by size, cut-offs of the FLR%, FLR volumes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from flrplan.anatomy import Structure
from flrplan.evaluation.columns import Part
from flrplan.evaluation.rows import COMPONENTS, INSTANCES, LesionRow, Row
from flrplan.evaluation.statistics import Floats, describe
from flrplan.evaluation.subgroups import divisions
from flrplan.evaluation.summary import Results, groups_of
from flrplan.metrics.lesions import IOU_THRESHOLDS, SizeClass, iou_key
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT

STRATIFIED = ("dice", "nsd", "volume_abs_error_ml")
"""The metrics shown per stratum."""


Nested = dict[str, Any]


def _put(tree: Nested, path: Iterable[str], value: Any) -> None:
    *parents, last = path
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def strata(results: Results) -> Nested:
    """``{division: {part: {architecture: {column: {stratum: {metric: {...}}}}}}}``, means over cases; empty strata left out."""
    tree: Nested = {}
    grouped: dict[tuple[Part, str, str], list[Row]] = {}
    for row in results.rows:
        grouped.setdefault(row.key, []).append(row)
    for division in divisions(results.clinical):
        for (part, architecture, column), rows in grouped.items():
            for stratum in division.order:
                own = [row for row in rows if division.rule(row) == stratum]
                if own:
                    cell = {m: describe([r.values[m] for r in own], groups_of(own), over_groups=False) for m in STRATIFIED}
                    _put(tree, (division.name, part.value, architecture, column, stratum), cell)
    return tree


def lesion_detection(results: Results) -> Nested:
    """``{part: {architecture: {column: {iou10: {size class or "all": counts}}}}}``, lesions of all cases pooled.

    Counts: ``reference``, ``found`` (true positives), ``missed_but_covered`` (more than half of the lesion lies in one predicted lesion
    that is matched to another or far larger), ``predicted``, ``false_alarms``; ``recall`` = found / reference and
    ``precision`` = 1 - false alarms / predicted, None where there are none. Predicted lesions count by their own size.
    """
    tree: Nested = {}
    grouped: dict[tuple[Part, str, str], list[LesionRow]] = {}
    for row in results.rows:
        if row.column.target is Structure.CRLM:
            grouped.setdefault(row.key, [])
    for lesion in results.lesions:
        grouped[lesion.part, lesion.architecture, lesion.column_name].append(lesion)
    for (part, architecture, column), lesions in grouped.items():
        for threshold in IOU_THRESHOLDS:
            key = iou_key(threshold)
            for size in (None, *SizeClass):
                own = [lesion for lesion in lesions if size is None or lesion.size is size]
                name = size.value if size else "all"
                _put(tree, (part.value, architecture, column, key, name), _detection(own, key))
    return tree


def _detection(lesions: list[LesionRow], key: str) -> dict[str, float | int | None]:
    truth = [lesion.found[key] for lesion in lesions if lesion.side == "reference"]
    covered = [not lesion.found[key] and lesion.is_covered for lesion in lesions if lesion.side == "reference"]
    predicted = [lesion.found[key] for lesion in lesions if lesion.side == "prediction"]
    return {
        "reference": len(truth),
        "found": sum(truth),
        "missed_but_covered": sum(covered),
        "predicted": len(predicted),
        "false_alarms": len(predicted) - sum(predicted),
        "recall": sum(truth) / len(truth) if truth else None,
        "precision": sum(predicted) / len(predicted) if predicted else None,
    }


def lesion_sources(results: Results) -> Nested:
    """``{part: {"instances": [cases], "components": [cases]}}``: of which cases the source tells the lesions of the truth apart."""
    tree: Nested = {}
    for part in Part:
        told = {row.case: row.lesions_from for row in results.rows if row.part is part}
        tree[part.value] = {name: [case for case in told if told[case] == name] for name in (INSTANCES, COMPONENTS)}
    return tree


def _flr_cells(results: Results, metric: str) -> dict[tuple[Part, str, str], list[Row]]:
    """The rows of each cell of the FLR in which a metric applies."""
    grouped: dict[tuple[Part, str, str], list[Row]] = {}
    for row in (*results.rows, *results.baselines):
        if row.column.target is Structure.FLR and metric in row.values:
            grouped.setdefault(row.key, []).append(row)
    return grouped


def threshold_crossings(results: Results, own: str = "") -> Nested:
    """``{part: {architecture or baseline: {column: {"20": counts}}}}``: generic cut-offs of the measured FLR% crossed.

    They are no clinical thresholds (:data:`FLR_THRESHOLDS_PERCENT`). ``too_high``: the truth is below the cut-off and the prediction
    is not; ``too_low``: the reverse; ``n``: cases with both values; ``rate`` = (too_high + too_low) / n, None for n = 0.
    own: empty for the FLR% of the true liver and CRLM; :data:`flrplan.metrics.volume.OWN` for that of the architecture's own, with the
    cells in which it applies.
    """
    tree: Nested = {}
    for (part, architecture, column), rows in _flr_cells(results, f"flr_percent_{own}prediction").items():
        both = _flr_percents(rows, own)
        for threshold in FLR_THRESHOLDS_PERCENT:
            below = both < threshold
            high, low = int((below[:, 0] & ~below[:, 1]).sum()), int((~below[:, 0] & below[:, 1]).sum())
            rate = (high + low) / len(both) if len(both) else None
            counts = {"n": len(both), "too_high": high, "too_low": low, "rate": rate}
            _put(tree, (part.value, architecture, column, str(threshold)), counts)
    return tree


def flr_percent_agreement(results: Results, own: str = "") -> Nested:
    """``{part: {architecture or baseline: {column: {...}}}}`` of the FLR%, prediction minus reference, in points; own: as above.

    ``bias`` and the 95 % limits of agreement ``lower``, ``upper``, as :func:`bland_altman`; None for no case with both values.
    """
    tree: Nested = {}
    for (part, architecture, column), rows in _flr_cells(results, f"flr_percent_{own}prediction").items():
        both = _flr_percents(rows, own)
        _put(tree, (part.value, architecture, column), _limits(both[:, 1] - both[:, 0]))
    return tree


def _flr_percents(rows: Iterable[Row], own: str) -> Floats:
    """``(cases, 2)``: FLR% of reference and prediction, of the cases that have both."""
    names = ("flr_percent_reference", f"flr_percent_{own}prediction")
    both: Floats = np.array([[row.values.get(name, math.nan) for name in names] for row in rows], float)
    defined: Floats = both[~np.isnan(both).any(axis=1)]
    return defined


def _limits(errors: Floats) -> dict[str, float | int | None]:
    """Bias and limits of agreement: bias -+ 1.96 std (ddof 1)."""
    bias = float(errors.mean()) if len(errors) else None
    half = 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else None
    lower, upper = (None, None) if bias is None or half is None else (bias - half, bias + half)
    return {"n": len(errors), "bias": bias, "lower": lower, "upper": upper}


def bland_altman(results: Results) -> Nested:
    """``{part: {architecture or baseline: {column: {...}}}}`` of the FLR volume, prediction minus reference.

    ``bias_ml`` and the 95 % limits of agreement ``lower_ml``, ``upper_ml`` = bias -+ 1.96 std (ddof 1); limits None for n = 1.
    The volume of the FLR mask alone: no liver enters it.
    """
    tree: Nested = {}
    for (part, architecture, column), rows in _flr_cells(results, "volume_error_ml").items():
        limits = _limits(np.array([row.values["volume_error_ml"] for row in rows]))
        in_ml = {name if name == "n" else f"{name}_ml": value for name, value in limits.items()}
        _put(tree, (part.value, architecture, column), in_ml)
    return tree
