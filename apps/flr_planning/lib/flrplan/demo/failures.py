"""Pictures of the cases on which the demo models did worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from flrplan.demo.held_out import measured_case
from flrplan.demo.measure import MeasuredCase, predictions
from flrplan.engine import Cascade
from flrplan.files import replacing
from flrplan.image.difference_picture import draw_difference

SHOWN = ("liver", "crlm_pipelined", "crlm_cascaded", "flr_pipelined")
"""Columns whose worst cases are drawn, one row each."""
WORST = 4
"""Pictures per column."""
COLORS = 128
"""Enough for grey CTs with two contours, and half the file."""


def worst_cases(cases: Sequence[MeasuredCase], column: str, count: int = WORST) -> list[MeasuredCase]:
    """The cases of lowest defined Dice in a column, the worst first; equal ones by id."""
    defined = [c for c in cases if not math.isnan(c.dice[column])]
    return sorted(defined, key=lambda c: (c.dice[column], c.case_id))[:count]


def write_failures(path: Path, cases: Sequence[MeasuredCase], cascade: Cascade) -> None:
    """A PNG with the worst cases of each of :data:`SHOWN`, on the slice where truth (green) and prediction (pink) differ most.

    The cases are made and predicted again. Raises: OutputError where the picture cannot be written.
    """
    with mpl.rc_context({"font.size": 7, "text.color": "white"}):
        figure = Figure(figsize=(2.3 * WORST, 2.5 * len(SHOWN)), facecolor="black", layout="constrained")
        canvas = FigureCanvasAgg(figure)
        grid = figure.subplots(len(SHOWN), WORST, squeeze=False)
        for row, column in zip(grid, SHOWN, strict=True):
            for axes in row:
                axes.set_axis_off()
            for axes, measured in zip(row, worst_cases(cases, column), strict=False):
                case = measured_case(measured.index)
                truth, predicted = predictions(case, cascade, (column,))[column]
                draw_difference(axes, case.hu_zyx, truth, predicted, case.geometry.spacing_zyx_mm)
                axes.set_title(
                    f"{column}: {measured.dice[column]:.2f}\n{measured.case_id}, {measured.kind}\n{measured.phase}, {measured.slice_mm:.1f} mm"
                )
        figure.set_dpi(90)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(COLORS)
        with replacing(path) as beside:
            picture.save(beside, format="png", optimize=True)
