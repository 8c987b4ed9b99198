"""The report's plots of saved probabilities: FROC, reliability and Dice by threshold, a panel per column and a line per architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.figures import _STYLE, _legend, _svg, colours
from flrplan.evaluation.paper import architecture_title
from flrplan.evaluation.summary import Results
from flrplan.metrics.froc import FALSE_POSITIVES_PER_CASE

Draw = Callable[[Axes, Mapping[str, Any], str], None]
"""Draws one cell of ``summary.json: probabilities`` into a panel, in a colour."""


def froc_panels(results: Results, part: Part, tree: Mapping[str, Any]) -> str:
    """Lesion sensitivity against false positives per case. Empty text where no CRLM column has a curve."""

    def draw(axes: Axes, cell: Mapping[str, Any], colour: str) -> None:
        points = cell["froc"]["points"]
        x = [0.0, *(p["false_positives_per_case"] for p in points)]
        axes.step(x, [0.0, *(p["sensitivity"] for p in points)], where="post", color=colour, linewidth=1.4)
        axes.set_xlim(0, FALSE_POSITIVES_PER_CASE[-1])

    return _panels(results, part, tree, "froc", draw, "false positives per case", "lesions found")


def reliability_panels(results: Results, part: Part, tree: Mapping[str, Any]) -> str:
    """Share of true voxels against mean probability by bin, with the diagonal of perfect calibration."""

    def draw(axes: Axes, cell: Mapping[str, Any], colour: str) -> None:
        axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
        bins = cell["reliability"]
        x, y = [b["mean_probability"] for b in bins], [b["observed"] for b in bins]
        axes.plot(x, y, "o-", color=colour, markersize=3, linewidth=1.2)
        axes.set_xlim(-0.02, 1.02)

    return _panels(results, part, tree, "reliability", draw, "mean probability", "share of true voxels")


def sweep_panels(results: Results, part: Part, tree: Mapping[str, Any]) -> str:
    """Mean Dice against the threshold, with a line at 0.5."""

    def draw(axes: Axes, cell: Mapping[str, Any], colour: str) -> None:
        axes.axvline(0.5, color="#BBBBBB", linewidth=0.8)
        axes.plot(cell["sweep"]["thresholds"], cell["sweep"]["dice"], color=colour, linewidth=1.4)
        axes.set_xlim(0, 1)

    return _panels(results, part, tree, "sweep", draw, "threshold", "mean Dice")


def _panels(results: Results, part: Part, tree: Mapping[str, Any], key: str, draw: Draw, x_label: str, y_label: str) -> str:
    of_part = {a: {c: cell for c, cell in columns.items() if cell.get(key)} for a, columns in tree.get(part.value, {}).items()}
    columns = [c for c in COLUMNS if any(c in cells for cells in of_part.values())]
    if not columns:
        return ""
    palette = {a: colour for a, colour in colours(results).items() if a in of_part}
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.9 * len(columns) + 1.4, 2.9), layout="constrained")
        grid = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, column in zip(grid, columns, strict=True):
            for architecture, colour in palette.items():
                if column in of_part[architecture]:
                    draw(axes, of_part[architecture][column], colour)
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(COLUMNS[column].title, fontsize=9)
            axes.set_xlabel(x_label)
        grid[0].set_ylabel(y_label)
        _legend(grid[-1], {architecture_title(a): colour for a, colour in palette.items()})
        return _svg(figure)
