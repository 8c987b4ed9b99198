"""Tables 1 and 2 as Markdown: ours, the paper's, the difference; the best of each column in bold; baselines below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from flrplan.evaluation.baselines import ORIGINAL_TITLE, TRUTH_NOTE, baseline_title, knows_truth
from flrplan.evaluation.columns import COLUMNS, REQUIRED, Part
from flrplan.evaluation.inputs import Gap, grouped_gaps
from flrplan.evaluation.paper import ARCHITECTURE_TITLES, CITATION, architecture_order, architecture_title, paper_value
from flrplan.evaluation.provenance import start_lines, view_lines
from flrplan.evaluation.summary import Results, describe_rows
from flrplan.evaluation.variants import seed_lines, variant_lines
from flrplan.metrics.catalogue import PAPER_METRICS

DASH = "-"
NUMBER: Mapping[Part, int] = {Part.CV: 1, Part.TEST: 2}
Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]


def table_name(part: Part) -> str:
    """File name of a part's table."""
    return f"table{NUMBER[part]}.md"


def gap_lines(gaps: tuple[Gap, ...]) -> list[str]:
    """Sentences that say what the numbers lack; every table carries them. Empty where nothing is missing."""
    if not gaps:
        return []
    return [f"INCOMPLETE: evaluated with --allow-missing; {len(gaps)} gaps. " + "; ".join(grouped_gaps(gaps)) + "."]


def absent_lines(absent: tuple[str, ...]) -> list[str]:
    """The sentence that names columns without a single prediction. Empty where there is none."""
    return [f"Not predicted, so shown as {DASH}: {', '.join(absent)}."] if absent else []


def unrecorded_lines(unrecorded: tuple[str, ...]) -> list[str]:
    """The sentence that names models whose training cases nobody recorded. Empty where there is none."""
    if not unrecorded:
        return []
    return [f"NOT CHECKED: nothing records what these models were trained on, held-out cases perhaps: {', '.join(unrecorded)}."]


CEILING_NOTE = (
    "Ceiling: the mean of the highest Dice that any prediction inside the given liver can have: the true liver in pipelined columns, "
    "the architecture's own predicted one in cascaded columns."
)
"""Stands over the tables."""


def original_lines(results: Results) -> list[str]:
    """The sentence about the pseudo-rater, and how many cases it lacks. Empty where it was not asked for."""
    if not results.original and not results.original_missing:
        return []
    missing = results.original_missing
    lacks = f" {len(missing)} cases have none: {', '.join(missing)}." if missing else ""
    return [
        f"Pseudo-rater: the {ORIGINAL_TITLE}, scored against the labels used here as if they were a prediction, beside every column of "
        f"their structure; neither ranked, compared nor bold.{lacks}"
    ]


def preface(results: Results, part: Part) -> list[str]:
    """What must be known to read a table: how many cases, what is missing, how far the paper's numbers compare."""
    cases = results.cases[part]
    spread = "mean ± std of the fold means" if part is Part.CV else "mean over cases"
    lines = [results.note] if results.note else []
    lines += gap_lines(results.gaps)
    lines += absent_lines(results.absent)
    lines += unrecorded_lines(results.unrecorded)
    lines += variant_lines(results.variants)
    lines += [*start_lines(results.models), *view_lines(results.models)]
    lines.append(
        f"{len(cases)} cases, {part.caption}. Each cell: ours ({spread}) / the paper's ({CITATION}) / the difference; "
        f"{DASH} where there is no number. Per-case macro averages of Dice (D), precision (P) and recall (R) on raw binary "
        "masks; undefined cases (empty masks) are left out and counted as u. "
        "Bold: the best of ours among the architectures; a baseline at least as good is marked !. "
        f"(n of {len(cases)}): only n cases were predicted; such a cell is not compared, so neither bold nor marked."
    )
    lines += [TRUTH_NOTE] if any(knows_truth(name) for name in results.baseline_names) else []
    lines += original_lines(results)
    if any("dice_ceiling" in row.values for row in results.rows):
        lines.append(CEILING_NOTE)
    lines.append(
        "The paper's numbers are of its own split of the refined CRLM-CT-Seg labels, which is not published; on any other "
        "cases or labels they are context, not a target."
    )
    return lines


def _number(value: float | None, std: float | None = None) -> str:
    if value is None:
        return DASH
    return f"{value:.3f}" if std is None else f"{value:.3f} ± {std:.3f}"


def _difference(ours: float | None, paper: float | None) -> str:
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return DASH if ours is None or paper is None else f"{round(ours - paper, 3) + 0.0:+.3f}"


def _scored(stats: Mapping[str, Any]) -> int:
    """Cases of a cell that were scored, undefined ones among them."""
    return int(stats["n"] + stats["n_undefined"])


def _compared(stats: Mapping[str, Any] | None, cases: int) -> float | None:
    """The mean as shown (three digits); None where there is none, or one over fewer than all cases of the part."""
    if stats is None or stats["mean"] is None or _scored(stats) < cases:
        return None
    return float(round(stats["mean"], 3))


def _cell(stats: Mapping[str, Any] | None, paper: tuple[float, float | None] | None, part: Part, mark: str, cases: int) -> str:
    """One cell; ``mark`` is ``**`` for the best, ``!`` for a baseline as good as that, or empty. cases: of the part."""
    mean = stats["mean"] if stats else None
    text = _number(mean, stats["std"] if stats and part is Part.CV else None)
    if mark == "**":
        text = f"**{text}**"
    elif mark:
        text += f" {mark}"
    if stats and _scored(stats) < cases:
        text += f" ({_scored(stats)} of {cases})"
    if stats and stats["n_undefined"]:
        text += f" ({stats['n_undefined']}u)"
    theirs = _number(*paper) if paper else DASH
    return f"{text} / {theirs} / {_difference(mean, paper[0] if paper else None)}"


def best_values(of_part: Mapping[str, Mapping[str, Any]], cases: int) -> dict[tuple[str, str], float]:
    """The highest mean of each (column, metric) among the architectures, as shown (three digits).

    cases: of the part. Means over fewer are left out, as they are of other cases.
    """
    best: dict[tuple[str, str], float] = {}
    for columns in of_part.values():
        for column, cell in columns.items():
            for metric in PAPER_METRICS:
                mean = _compared(cell[metric], cases)
                if mean is not None:
                    best[column, metric] = max(best.get((column, metric), 0.0), mean)
    return best


def table_rows(results: Results, summary: Summary, baselines: Summary, part: Part) -> tuple[list[str], list[list[str]]]:
    """Head and cells of one table: the paper's architectures and ours, three rows each, then the baselines, the
    original labels and each architecture's ceilings.
    """
    columns = [c for c in COLUMNS if c in REQUIRED[part] or c in results.columns(part)]
    head = ["Model", "", *(COLUMNS[c].title for c in columns)]
    cases = len(results.cases[part])
    best = best_values(summary[part.value], cases)
    rows = []
    for architecture in architecture_order({*results.architectures, *ARCHITECTURE_TITLES}):
        own = summary[part.value].get(architecture, {})
        for k, metric in enumerate(PAPER_METRICS):
            row = [architecture_title(architecture) if k == 0 else "", metric[0].upper()]
            for column in columns:
                stats = own.get(column, {}).get(metric)
                mean = _compared(stats, cases)
                mark = "**" if mean is not None and mean == best[column, metric] else ""
                row.append(_cell(stats, paper_value(part, architecture, column, metric), part, mark, cases))
            rows.append(row)
    for name in results.baseline_names:
        own = baselines[part.value].get(name, {})
        for k, metric in enumerate(PAPER_METRICS):
            row = [f"baseline: {baseline_title(name)}" if k == 0 else "", metric[0].upper()]
            for column in columns:
                stats = own.get(column, {}).get(metric)
                mean = _compared(stats, cases)
                mark = "!" if mean is not None and mean >= best.get((column, metric), math.inf) else ""
                row.append(_cell(stats, None, part, mark, cases) if stats else DASH)
            rows.append(row)
    return head, [*rows, *_original_rows(results, columns, part), *_ceiling_rows(results, summary, columns, part)]


def _original_rows(results: Results, columns: list[str], part: Part) -> Iterator[list[str]]:
    cells = {c: describe_rows([r for r in results.original if (r.part, r.column_name) == (part, c)]) for c in columns}
    for k, metric in enumerate(PAPER_METRICS if any(cells.values()) else ()):
        stats = [cells[c].get(metric) for c in columns]
        shown = [_cell(s, None, part, "", len(results.cases[part])) if s else DASH for s in stats]
        yield [f"pseudo-rater: {ORIGINAL_TITLE}" if k == 0 else "", metric[0].upper(), *shown]


def _ceiling_rows(results: Results, summary: Summary, columns: list[str], part: Part) -> Iterator[list[str]]:
    for architecture in results.architectures:
        own = summary[part.value].get(architecture, {})
        stats = [own.get(c, {}).get("dice_ceiling") if COLUMNS[c].stage.region is not None else None for c in columns]
        if any(s and s["n"] for s in stats):
            shown = [_cell(s, None, part, "", len(results.cases[part])) if s else DASH for s in stats]
            yield [f"ceiling: {architecture_title(architecture)}", PAPER_METRICS[0][0].upper(), *shown]


def markdown_line(cells: list[str]) -> str:
    """One row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown_table(results: Results, summary: Summary, baselines: Summary, part: Part) -> str:
    """One of the paper's tables as a Markdown document."""
    head, rows = table_rows(results, summary, baselines, part)
    lines = [f"# Table {NUMBER[part]}: {part.caption} performance", ""]
    for paragraph in (*preface(results, part), *seed_lines(results.variants, summary[part.value], part)):
        lines += [paragraph, ""]
    lines += [markdown_line(head), "|" + "---|" * len(head), *(markdown_line(row) for row in rows)]
    return "\n".join(lines) + "\n"
