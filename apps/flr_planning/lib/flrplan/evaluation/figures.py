"""The report's plots as SVG text. Equal inputs give equal bytes; no global matplotlib state is touched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flrplan.anatomy import Structure
from flrplan.evaluation.baselines import baseline_title
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.comparisons import COMPARED, Kind
from flrplan.evaluation.paper import architecture_title
from flrplan.evaluation.rows import Row
from flrplan.evaluation.statistics import Outcome
from flrplan.evaluation.summary import Results
from flrplan.metrics.lesions import IOU_THRESHOLDS, SizeClass, iou_key

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which colour-blind readers can tell apart; given to architectures in the order of the tables."""

BASELINE_COLOUR = "#8A8A8A"

_STYLE: Any = {  # a plain dict: matplotlib types its keys as a literal of all settings
    "svg.fonttype": "none",
    "svg.hashsalt": "flrplan",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def colours(results: Results) -> dict[str, str]:
    """The colour of each architecture."""
    return {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(results.architectures)}


def display_name(name: str) -> str:
    """Title of an architecture or a baseline by its key."""
    return baseline_title(name) or architecture_title(name)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text.getvalue()[text.getvalue().index("<svg") :]


def _short(column: str) -> str:
    return COLUMNS[column].title.replace(" (", "\n(")


def dice_boxes(results: Results, part: Part) -> str:
    """Dice of every case, by column and architecture; the baselines in grey. Empty text where there is no row."""
    columns = results.columns(part)
    if not columns:
        return ""
    palette = colours(results)
    boxes = {(row.architecture, row.column_name) for row in (*results.rows, *results.baselines) if row.part is part}
    widest = max(sum(column == c for _, c in boxes) for column in columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(max(5.0, max(1.9, 0.15 * widest) * len(columns) + 1.5), 3.6), layout="constrained")
        axes = figure.add_subplot()
        for place, column in enumerate(columns):
            cells = [(palette[a], results.select(part, a, column)) for a in results.architectures]
            cells += [(BASELINE_COLOUR, results.select(part, b, column, baselines=True)) for b in results.baseline_names]
            cells = [(colour, rows) for colour, rows in cells if rows]
            width = 0.8 / len(cells)
            for k, (colour, rows) in enumerate(cells):
                _box(axes, place + (k - (len(cells) - 1) / 2) * width, width, colour, rows)
        axes.set_xticks(range(len(columns)), [_short(c) for c in columns])
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("Dice per case")
        axes.yaxis.grid(True, color="#E5E5E5")
        axes.set_axisbelow(True)
        _legend(axes, {**{architecture_title(a): c for a, c in palette.items()}, "baselines": BASELINE_COLOUR})
        return _svg(figure)


def _box(axes: Axes, x: float, width: float, colour: str, rows: Sequence[Row]) -> None:
    values = np.array([row.values["dice"] for row in rows])
    values = values[~np.isnan(values)]
    if not values.size:
        return
    axes.boxplot(
        [values],
        positions=[x],
        widths=0.75 * width,
        showfliers=False,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour},
        medianprops={"color": "black"},
        whiskerprops={"color": colour},
        capprops={"color": colour},
    )
    spread = (np.arange(len(values)) % 7 - 3) / 7 * 0.5 * width
    axes.plot(x + spread, values, ".", color=colour, markersize=2.5)


def _legend(axes: Axes, entries: Mapping[str, str]) -> None:
    for title, colour in entries.items():
        axes.plot([], [], "s", color=colour, label=title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def bland_altman_grid(results: Results, part: Part, agreement: Mapping[str, Any]) -> str:
    """FLR volume, prediction minus reference against their mean, for each architecture and FLR column."""
    cells = [
        (a, c) for c in results.columns(part) for a in results.architectures
        if COLUMNS[c].target is Structure.FLR and results.select(part, a, c)
    ]  # fmt: skip
    if not cells:
        return ""
    columns = list(dict.fromkeys(c for _, c in cells))
    palette, names = colours(results), results.architectures
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.9 * len(names) + 0.4, 2.3 * len(columns) + 0.3), layout="constrained")
        grid = figure.subplots(len(columns), len(names), squeeze=False, sharex=True, sharey=True)
        for i, column in enumerate(columns):
            for j, architecture in enumerate(names):
                axes: Axes = grid[i][j]
                rows = results.select(part, architecture, column)
                if not rows:
                    axes.set_axis_off()
                    continue
                limits = agreement[part.value][architecture][column]
                reference = np.array([row.values["volume_reference_ml"] for row in rows])
                predicted = np.array([row.values["volume_prediction_ml"] for row in rows])
                middle = (reference + predicted) / 2
                axes.plot(middle, predicted - reference, "o", color=palette[architecture], markersize=3, alpha=0.7)
                axes.axhline(0, color="#BBBBBB", linewidth=0.8)
                axes.axhline(limits["bias_ml"], color="black", linewidth=1)
                for side in ("lower_ml", "upper_ml"):
                    if limits[side] is not None:
                        axes.axhline(limits[side], color="black", linewidth=0.8, linestyle="--")
                axes.set_title(f"{architecture_title(architecture)}, {COLUMNS[column].title}", fontsize=8)
                if j == 0:
                    axes.set_ylabel("error [ml]")
                if i == len(columns) - 1:
                    axes.set_xlabel("mean of both [ml]")
        return _svg(figure)


def lesion_recall_bars(results: Results, part: Part, detection: Mapping[str, Any]) -> str:
    """Share of metastases found by size; filled: IoU > 0.1, outlined: IoU > 0.5. Empty text where there is no CRLM column."""
    of_part = detection.get(part.value, {})
    columns = [c for c in results.columns(part) if COLUMNS[c].target is Structure.CRLM]
    if not of_part or not columns:
        return ""
    names = [a for a in results.architectures if a in of_part]
    palette = colours(results)
    loose, strict = (iou_key(t) for t in sorted(IOU_THRESHOLDS))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * len(columns) + 1.2, 3.0), layout="constrained")
        grid = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
        for axes, column in zip(grid, columns, strict=True):
            counts: dict[SizeClass, int] = {}
            for k, architecture in enumerate(names):
                cell = of_part[architecture].get(column)
                if cell is None:
                    continue
                width = 0.8 / len(names)
                for place, size in enumerate(SizeClass):
                    x = place + (k - (len(names) - 1) / 2) * width
                    counts[size] = max(counts.get(size, 0), cell[loose][size.value]["reference"])
                    axes.bar(x, cell[loose][size.value]["recall"] or 0.0, 0.9 * width, color=palette[architecture], alpha=0.35)
                    strict_recall = cell[strict][size.value]["recall"] or 0.0
                    axes.bar(x, strict_recall, 0.9 * width, fill=False, edgecolor=palette[architecture], linewidth=1.4)
            axes.set_xticks(range(len(SizeClass)), [f"{size.value}\nn = {counts.get(size, 0)}" for size in SizeClass])
            axes.set_ylim(0, 1.02)
            axes.set_title(COLUMNS[column].title, fontsize=9)
        grid[0].set_ylabel("lesions found")
        _legend(grid[-1], {architecture_title(a): palette[a] for a in names})
        return _svg(figure)


def forest(comparisons: Sequence[Mapping[str, Any]], part: Part, margin: float) -> str:
    """Paired differences of Dice between models with their 90 % intervals, by kind, over the margin of a tie.

    Empty text where there is none.
    """
    of_models = [c for c in comparisons if c["part"] == part.value and c["kind"] != Kind.BASELINES.value]
    shown = [c for c in of_models if c["metric"] == COMPARED and c["ci90"] is not None]
    if not shown:
        return ""
    kinds = list(dict.fromkeys(c["kind"] for c in shown))
    groups = [[c for c in shown if c["kind"] == kind] for kind in kinds]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.4, 0.24 * len(shown) + 0.42 * len(kinds) + 0.4), layout="constrained")
        heights = [len(group) + 0.8 for group in groups]
        grid = figure.subplots(len(kinds), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, kind, group in zip(grid, kinds, groups, strict=True):
            axes.axvspan(-margin, margin, color="#F0E442", alpha=0.45, linewidth=0)
            axes.axvline(0, color="#777777", linewidth=0.8)
            for y, c in enumerate(group):
                low, high = c["ci90"]
                decided = c["outcome"] not in (None, Outcome.UNDECIDED.value)
                tone = PALETTE[0] if decided else "#999999"
                axes.plot([low, high], [y, y], color=tone, linewidth=1.6)
                axes.plot(c["difference"], y, "s" if c["outcome"] == Outcome.TIE.value else "o", color=tone, markersize=4)
            axes.set_yticks(range(len(group)), [f"{_side(c['a'])} - {_side(c['b'])}" for c in group], fontsize=7.5)
            axes.set_ylim(len(group) - 0.4, -0.6)
            axes.set_title(kind, fontsize=9, loc="left")
        grid[-1].set_xlabel("difference of mean Dice, a - b; square: tie")
        return _svg(figure)


def _side(side: Sequence[str]) -> str:
    return f"{display_name(side[0])} {_short(side[1]).partition(chr(10))[0]}"


def rank_bars(rankings: Sequence[Mapping[str, Any]], part: Part) -> str:
    """For each ranking, how often each candidate takes each rank. Empty text where none could be computed."""
    shown = [r for r in rankings if r["part"] == part.value and r["probability"] is not None]
    if not shown:
        return ""
    heights = [len(r["candidates"]) for r in shown]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 0.34 * sum(heights) + 0.62 * len(shown) + 0.3), layout="constrained")
        grid = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": [h + 1.2 for h in heights]})[:, 0]
        for axes, ranking in zip(grid, shown, strict=True):
            order = np.argsort(ranking["ranks"], kind="stable")[::-1]
            probability = np.array(ranking["probability"])[order]
            left = np.zeros(len(order))
            for rank in range(probability.shape[1]):
                shade = 0.25 + 0.65 * rank / max(1, probability.shape[1] - 1)
                axes.barh(range(len(order)), probability[:, rank], left=left, color=str(shade), edgecolor="white")
                for y, share in enumerate(probability[:, rank]):
                    if share >= 0.08:
                        tone = "white" if shade < 0.55 else "black"
                        axes.text(left[y] + share / 2, y, f"{rank + 1}", ha="center", va="center", color=tone, fontsize=8)
                left += probability[:, rank]
            several = len({c for _, c in (*ranking["candidates"], *ranking["left_out"])}) > 1
            names = [_candidate(ranking["candidates"][k], several) for k in order]
            axes.set_yticks(range(len(order)), names)
            axes.set_xlim(0, 1)
            axes.tick_params(axis="x", labelbottom=axes is grid[-1])
            title = COLUMNS[ranking["of"]].title if ranking["of"] in COLUMNS else ranking["of"]
            left_out = ", ".join(_candidate(side, several) for side in ranking["left_out"])
            lacking = f"; left out, not predicted in all cases: {left_out}" if left_out else ""
            axes.set_title(f"{title}, n = {ranking['n']}{lacking}", fontsize=9, loc="left")
        grid[-1].set_xlabel("share of bootstrap samples in which the candidate takes the rank written on the bar")
        return _svg(figure)


def _candidate(side: Sequence[str], with_column: bool) -> str:
    name = display_name(side[0])
    return f"{name}, {_short(side[1]).partition(' ')[0]}" if with_column and baseline_title(side[0]) is None else name
