"""The same results seen apart: by slice spacing and tumour count, lesions by size, cut-offs of the FLR%, FLR volumes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from flrplan.evaluation.columns import Part
from flrplan.evaluation.rows import LesionRow, Row
from flrplan.evaluation.statistics import describe
from flrplan.evaluation.summary import Results, groups_of
from flrplan.labels import Structure
from flrplan.metrics.lesions import IOU_THRESHOLDS, SizeClass, iou_key
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT

STRATIFIED = ("dice", "nsd", "volume_abs_error_ml")
"""The metrics shown per stratum."""


def spacing_stratum(row: Row) -> str:
    """Slice spacing: thin slices, the data set's usual ones, and those that the app warns about (over 5 mm)."""
    if row.slice_spacing_mm <= 2.5:
        return "<= 2.5 mm"
    return "2.5-5 mm" if row.slice_spacing_mm <= 5.0 else "> 5 mm"


def tumour_stratum(row: Row) -> str:
    """Number of tumours, counted as connected components of the truth."""
    if row.tumours <= 1:
        return str(row.tumours)
    return "2-5" if row.tumours <= 5 else "> 5"


STRATA: Mapping[str, tuple[Callable[[Row], str], tuple[str, ...]]] = MappingProxyType(
    {
        "slice spacing": (spacing_stratum, ("<= 2.5 mm", "2.5-5 mm", "> 5 mm")),
        "tumours": (tumour_stratum, ("0", "1", "2-5", "> 5")),
    }
)
"""How cases are divided: name, rule, the strata in order."""

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
    for name, (rule, order) in STRATA.items():
        for (part, architecture, column), rows in grouped.items():
            for stratum in order:
                own = [row for row in rows if rule(row) == stratum]
                if own:
                    cell = {m: describe([r.values[m] for r in own], groups_of(own), over_groups=False) for m in STRATIFIED}
                    _put(tree, (name, part.value, architecture, column, stratum), cell)
    return tree


def lesion_detection(results: Results) -> Nested:
    """``{part: {architecture: {column: {iou10: {size class or "all": counts}}}}}``, lesions of all cases pooled.

    Counts: ``reference``, ``found`` (true positives), ``predicted``, ``false_alarms``; ``recall`` = found / reference and
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
    predicted = [lesion.found[key] for lesion in lesions if lesion.side == "prediction"]
    return {
        "reference": len(truth),
        "found": sum(truth),
        "predicted": len(predicted),
        "false_alarms": len(predicted) - sum(predicted),
        "recall": sum(truth) / len(truth) if truth else None,
        "precision": sum(predicted) / len(predicted) if predicted else None,
    }


def _flr_cells(results: Results) -> dict[tuple[Part, str, str], list[Row]]:
    grouped: dict[tuple[Part, str, str], list[Row]] = {}
    for row in (*results.rows, *results.baselines):
        if row.column.target is Structure.FLR:
            grouped.setdefault(row.key, []).append(row)
    return grouped


def threshold_crossings(results: Results) -> Nested:
    """``{part: {architecture or baseline: {column: {"20": counts}}}}``: generic cut-offs of the measured FLR% crossed.

    They are no clinical thresholds (:data:`FLR_THRESHOLDS_PERCENT`). ``too_high``: the truth is below the cut-off and the prediction
    is not; ``too_low``: the reverse; ``n``: cases with both values; ``rate`` = (too_high + too_low) / n, None for n = 0.
    """
    tree: Nested = {}
    for (part, architecture, column), rows in _flr_cells(results).items():
        both = np.array([[r.values["flr_percent_reference"], r.values["flr_percent_prediction"]] for r in rows])
        both = both[~np.isnan(both).any(axis=1)]
        for threshold in FLR_THRESHOLDS_PERCENT:
            below = both < threshold
            high, low = int((below[:, 0] & ~below[:, 1]).sum()), int((~below[:, 0] & below[:, 1]).sum())
            rate = (high + low) / len(both) if len(both) else None
            counts = {"n": len(both), "too_high": high, "too_low": low, "rate": rate}
            _put(tree, (part.value, architecture, column, str(threshold)), counts)
    return tree


def bland_altman(results: Results) -> Nested:
    """``{part: {architecture or baseline: {column: {...}}}}`` of the FLR volume, prediction minus reference.

    ``bias_ml`` and the 95 % limits of agreement ``lower_ml``, ``upper_ml`` = bias -+ 1.96 std (ddof 1); limits None for n = 1.
    """
    tree: Nested = {}
    for (part, architecture, column), rows in _flr_cells(results).items():
        errors = np.array([row.values["volume_error_ml"] for row in rows])
        bias = float(errors.mean())
        half = 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else math.nan
        lower, upper = (None, None) if math.isnan(half) else (bias - half, bias + half)
        limits = {"n": len(errors), "bias_ml": bias, "lower_ml": lower, "upper_ml": upper}
        _put(tree, (part.value, architecture, column), limits)
    return tree
