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

from flrplan.anatomy import Mask
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.inputs import CaseFiles, files_by_case
from flrplan.evaluation.paper import architecture_title
from flrplan.evaluation.reading import UNREADABLE, read_binary
from flrplan.evaluation.rows import Row
from flrplan.evaluation.summary import Results
from flrplan.image import Canonical, read_ct, require_same_grid
from flrplan.image.difference_picture import draw_difference


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
        masks, geometry = case.label.read((row.column.target,), case.case)
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
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3.2, 2.9), layout="constrained", facecolor="black")
        axes = figure.add_subplot()
        k = draw_difference(axes, hu, truth, predicted, spacing_zyx_mm)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    column = COLUMNS[row.column_name]
    who = f"{architecture_title(row.architecture)}, {column.title}, {row.part.caption}"
    empty = [name for name, mask in (("truth", truth), ("prediction", predicted)) if not mask.any()]
    note = f" The {' and the '.join(empty)} is empty." if empty else ""
    caption = f"{row.case}: {who}, Dice {row.values['dice']:.3f}, slice {k + 1} of {truth.shape[0]} from below.{note}"
    return Picture(base64.b64encode(data.getvalue()).decode("ascii"), caption)
