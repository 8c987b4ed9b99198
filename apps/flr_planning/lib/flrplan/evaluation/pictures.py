"""Pictures of the worst cases: the axial slice on which truth and prediction differ most."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.inputs import CaseFiles, files_by_case
from flrplan.evaluation.paper import architecture_title
from flrplan.evaluation.reading import read_binary, read_truth
from flrplan.evaluation.rows import Row
from flrplan.evaluation.scoring import UNREADABLE
from flrplan.evaluation.summary import Results
from flrplan.geometry import require_same_grid
from flrplan.io import read_ct
from flrplan.labels import Mask
from flrplan.orientation import Canonical

WINDOW_HU = (-90.0, 210.0)
"""Liver window."""

MARGIN_MM = 20.0
TRUTH_COLOUR, PREDICTION_COLOUR = "#00C26F", "#FF4FD8"


@dataclass(frozen=True)
class Picture:
    """One PNG and what it shows."""

    png_base64: str
    caption: str


def worst_rows(results: Results) -> list[Row]:
    """The row of lowest defined Dice of each part and column, over all architectures; equal ones by case id."""
    worst = []
    for part in Part:
        for column in results.columns(part):
            rows = [r for r in results.rows if r.part is part and r.column_name == column and not math.isnan(r.values["dice"])]
            if rows:
                worst.append(min(rows, key=lambda r: (r.values["dice"], r.case, r.architecture)))
    return worst


def worst_pictures(results: Results, files: Mapping[str, CaseFiles], images: Path | None) -> Iterator[Picture]:
    """One picture per row of :func:`worst_rows`; over the CT where there is one, else on grey."""
    image_of = files_by_case(images) if images is not None else {}
    for row in worst_rows(results):
        case = files[row.case]
        masks, geometry = read_truth(case.label, case.case)
        prediction, _ = read_binary(case.predictions[row.architecture, row.column_name], geometry)
        canonical = Canonical.of(geometry)
        hu = np.full(geometry.shape_zyx, 0.0, np.float32)
        if row.case in image_of:
            try:
                ct = read_ct(image_of[row.case])
                require_same_grid(geometry, ct.geometry, str(case.label.first), str(image_of[row.case]))
                hu = np.asarray(ct.array_zyx, np.float32)
            except UNREADABLE:
                pass  # the picture then has a plain background; the image is decoration, not a measurement
        truth = canonical.forward(masks[row.column.target])
        predicted = canonical.forward(prediction)
        yield _picture(row, truth, predicted, canonical.forward(hu), canonical.target.spacing_zyx_mm)


def _picture(
    row: Row, truth: Mask, predicted: Mask, hu: NDArray[np.float32], spacing_zyx_mm: tuple[float, float, float]
) -> Picture:
    k = int(np.argmax((truth ^ predicted).sum(axis=(1, 2))))
    box = _box(truth[k] | predicted[k], spacing_zyx_mm)
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3.2, 2.9), layout="constrained", facecolor="black")
        axes = figure.add_subplot()
        axes.imshow(hu[k][box], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=spacing_zyx_mm[1] / spacing_zyx_mm[2])
        for mask, colour, style in ((truth, TRUTH_COLOUR, "solid"), (predicted, PREDICTION_COLOUR, "dashed")):
            if mask[k][box].any() and not mask[k][box].all():
                axes.contour(mask[k][box].astype(float), levels=[0.5], colors=[colour], linewidths=1.3, linestyles=style)
        axes.set_axis_off()
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    column = COLUMNS[row.column_name]
    who = f"{architecture_title(row.architecture)}, {column.title}, {row.part.caption}"
    empty = [name for name, mask in (("truth", truth), ("prediction", predicted)) if not mask.any()]
    note = f" The {' and the '.join(empty)} is empty." if empty else ""
    caption = f"{row.case}: {who}, Dice {row.values['dice']:.3f}, slice {k + 1} of {truth.shape[0]} from below.{note}"
    return Picture(base64.b64encode(data.getvalue()).decode("ascii"), caption)


def _box(area: Mask, spacing_zyx_mm: tuple[float, float, float]) -> tuple[slice, slice]:
    slices = []
    for axis in (0, 1):
        hit = np.flatnonzero(area.any(axis=1 - axis))
        margin = int(np.ceil(MARGIN_MM / spacing_zyx_mm[axis + 1]))
        low, high = (int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, area.shape[axis])
        slices.append(slice(max(0, low - margin), min(area.shape[axis], high + margin)))
    return slices[0], slices[1]
