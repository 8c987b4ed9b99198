"""The CSV files of an evaluation: ``cases.csv``, ``baselines.csv`` and ``lesions.csv``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from flrplan.evaluation.inputs import Gap
from flrplan.evaluation.rows import LesionRow, Row
from flrplan.metrics.catalogue import METRICS, NSD_TOLERANCE_MM
from flrplan.metrics.lesions import IOU_THRESHOLDS, iou_key

CASE_FIELDS: tuple[str, ...] = (
    "case", "split", "fold", "architecture", "column", "structure", "status", "slice_spacing_mm", "tumours", "lesions_from",
    "tumour_percent", "diagonal_mm", "nsd_tolerance_mm", *METRICS, "undefined",
)  # fmt: skip
"""Columns of ``cases.csv``. A metric's cell is blank where it does not apply to the structure, ``nan`` where it is
undefined; ``undefined`` then says why, as ``metric: reason; ...``. ``status`` is "scored", or what is missing or broken."""

SCORED = "scored"


def _cell(value: float) -> str:
    return "nan" if math.isnan(value) else repr(float(value))


def _csv(fields: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def cases_csv(rows: Sequence[Row], gaps: Sequence[Gap] = ()) -> str:
    """One line per case, architecture and column, then one per gap (with its kind as status and no metrics)."""
    lines = []
    for row in rows:
        line = {
            "case": row.case,
            "split": row.part.value,
            "fold": "" if row.fold is None else str(row.fold),
            "architecture": row.architecture,
            "column": row.column_name,
            "structure": row.column.target.value,
            "status": SCORED,
            "slice_spacing_mm": f"{row.slice_spacing_mm:.6g}",
            "tumours": str(row.tumours),
            "lesions_from": row.lesions_from,
            "tumour_percent": _cell(row.tumour_percent),
            "diagonal_mm": f"{row.diagonal_mm:.6g}",
            "nsd_tolerance_mm": f"{NSD_TOLERANCE_MM[row.column.target]:g}",
            "undefined": "; ".join(f"{name}: {reason}" for name, reason in row.reasons.items()),
        }
        lines.append(line | {name: _cell(value) for name, value in row.values.items()})
    for gap in gaps:
        architecture, _, column = (
            gap.where.partition("/") if gap.kind.endswith(("prediction", "probabilities")) else ("", "", "")
        )
        place = {"case": gap.case, "architecture": architecture, "column": column, "status": gap.kind}
        lines.append(place | {"undefined": gap.detail or gap.where})
    return _csv(CASE_FIELDS, lines)


def lesions_csv(lesions: Sequence[LesionRow]) -> str:
    """One line per lesion of a reference or a prediction, in the CRLM columns."""
    found = [f"found_{iou_key(t)}" for t in IOU_THRESHOLDS]
    fields = [
        "case",
        "split",
        "fold",
        "architecture",
        "column",
        "side",
        "lesion",
        "diameter_mm",
        "size",
        "iou",
        *found,
        "covered",
    ]
    lines = []
    for lesion in lesions:
        line = {
            "case": lesion.case,
            "split": lesion.part.value,
            "fold": "" if lesion.fold is None else str(lesion.fold),
            "architecture": lesion.architecture,
            "column": lesion.column_name,
            "side": lesion.side,
            "lesion": str(lesion.number),
            "diameter_mm": repr(lesion.diameter_mm),
            "size": lesion.size.value,
            "iou": repr(lesion.iou),
            "covered": str(int(lesion.is_covered)) if lesion.side == "reference" else "",
        }
        lines.append(line | {f"found_{key}": str(int(hit)) for key, hit in lesion.found.items()})
    return _csv(fields, lines)
