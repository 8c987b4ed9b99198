"""Tables 1 and 2 as Markdown: ours, the paper's, the difference; what is best and what that is worth; baselines below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flrplan.evaluation.baselines import ORIGINAL_TITLE, TRUTH_NOTE, baseline_title, knows_truth
from flrplan.evaluation.columns import COLUMNS, PAPER_COLUMNS, Part
from flrplan.evaluation.inputs import Gap, grouped_gaps
from flrplan.evaluation.paper import ARCHITECTURE_TITLES, CITATION, architecture_order, architecture_title, paper_value
from flrplan.evaluation.provenance import start_lines, view_lines
from flrplan.evaluation.standings import Standing
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
    lines += [
        f"{len(cases)} cases, {part.caption}. Each cell: ours ({spread}) [95 % interval] / the paper's ({CITATION}) / the difference; "
        f"{DASH} where there is no number. Per-case macro averages of Dice (D), precision (P) and recall (R) on raw binary masks. "
        "u: cases in which it is undefined (empty masks), left out of the mean. m: missed cases, an empty prediction of a structure "
        "that is there; Dice and recall count them as 0, pen. is the precision that does, too. "
        f"(n of {len(cases)}): only n cases were predicted; such a cell is not compared, so neither bold nor marked.",
        "Means are compared over the cases in which all architectures have a value, a miss counted as 0 (m over n: the mean that was "
        "compared, where these are not all of a cell's). Bold: the highest of ours among the architectures. tie: the 90 % interval of the paired difference to it lies "
        f"within ±{results.margin:g}. undecided: it does not, and the difference is not significant either, which does not mean equal. "
        "A baseline at least as good is marked !.",
        "in, out: whether the paper's value lies in our interval. It is context: that value has a sampling error of its own, and cases "
        "of its own.",
    ]
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


def _interval(values: Sequence[float] | None) -> str:
    return "" if values is None else f" [{values[0]:.3f}, {values[1]:.3f}]"


def _remarks(stats: Mapping[str, Any], cases: int) -> list[str]:
    """What must be known to read a mean, in a few letters each; cases: of the part."""
    scored = int(stats["n"] + stats["n_undefined"])
    remarks = [stats["standing"]] if stats.get("standing") in (Standing.TIE.value, Standing.UNDECIDED.value) else []
    remarks += [f"{scored} of {cases}"] if scored < cases else []
    known = int(stats["n_penalised"])
    if (stats.get("n_compared") or known) < known:
        remarks.append(f"{_number(stats['compared_mean'])} over {stats['n_compared']}")
    remarks += [f"{stats['n_undefined']}u"] if stats["n_undefined"] else []
    remarks += [f"{stats['n_missed']}m"] if stats["n_missed"] else []
    is_lower = stats["mean"] is not None and round(stats["mean"] - stats["penalised_mean"], 12) > 0
    remarks += [f"pen. {_number(stats['penalised_mean'])}"] if is_lower else []
    folds = ", ".join(str(fold) for fold in stats.get("folds_undefined", ()))
    return remarks + ([f"no value in fold {folds}"] if folds else [])


def _cell(stats: Mapping[str, Any] | None, paper: tuple[float, float | None] | None, part: Part, cases: int) -> str:
    """One cell of a model: ours, the paper's, the difference. cases: of the part."""
    theirs = _number(*paper) if paper else DASH
    if stats is None:
        return f"{DASH} / {theirs} / {DASH}"
    if stats.get("paper_in_ci95") is not None:
        theirs += " in" if stats["paper_in_ci95"] else " out"
    return f"{_ours(stats, part, cases)} / {theirs} / {_difference(stats['mean'], paper[0] if paper else None)}"


def _ours(stats: Mapping[str, Any] | None, part: Part, cases: int) -> str:
    """Our number; the best in bold, a baseline that reaches it marked ``!``. A cell of what the paper does not have is this alone."""
    if stats is None:
        return DASH
    text = _number(stats["mean"], stats["std"] if part is Part.CV else None)
    if stats.get("standing") == Standing.BEST.value and stats["mean"] is not None:
        text = f"**{text}**"
    text += _interval(stats["ci95"])
    if stats.get("reaches_best"):
        text += " !"
    remarks = _remarks(stats, cases)
    return text + (f" ({', '.join(remarks)})" if remarks else "")


def _robust_cell(stats: Mapping[str, Any] | None, cases: int) -> str:
    """Median and mean with misses, mean rank."""
    if stats is None:
        return DASH
    rank = stats.get("mean_rank")
    scored = int(stats["n"] + stats["n_undefined"])
    texts = [_number(stats["median"]), _number(stats["penalised_mean"]), DASH if rank is None else f"{rank:.2f}"]
    return " / ".join(texts) + (f" ({scored} of {cases})" if scored < cases else "")


def table_rows(results: Results, summary: Summary, baselines: Summary, part: Part) -> tuple[list[str], list[list[str]]]:
    """Head and cells of one table: the paper's architectures and ours, three rows each, then the baselines, the
    original labels and each architecture's ceilings.
    """
    columns = [c for c in COLUMNS if c in PAPER_COLUMNS[part] or c in results.columns(part)]
    head = ["Model", "", *(COLUMNS[c].title for c in columns)]
    cases = len(results.cases[part])
    rows = []
    for architecture in architecture_order({*results.architectures, *ARCHITECTURE_TITLES}):
        own = summary[part.value].get(architecture, {})
        for k, metric in enumerate(PAPER_METRICS):
            row = [architecture_title(architecture) if k == 0 else "", metric[0].upper()]
            for column in columns:
                stats = own.get(column, {}).get(metric)
                row.append(_cell(stats, paper_value(part, architecture, column, metric), part, cases))
            rows.append(row)
    for name in results.baseline_names:
        own = baselines[part.value].get(name, {})
        for k, metric in enumerate(PAPER_METRICS if own else ()):  # none where its architecture lacks the column in this part
            row = [f"baseline: {baseline_title(name)}" if k == 0 else "", metric[0].upper()]
            rows.append([*row, *(_ours(own.get(column, {}).get(metric), part, cases) for column in columns)])
    return head, [*rows, *_original_rows(results, columns, part), *_ceiling_rows(results, summary, columns, part)]


def _original_rows(results: Results, columns: list[str], part: Part) -> Iterator[list[str]]:
    cells = {c: describe_rows([r for r in results.original if (r.part, r.column_name) == (part, c)]) for c in columns}
    for k, metric in enumerate(PAPER_METRICS if any(cells.values()) else ()):
        shown = [_ours(cells[c].get(metric), part, len(results.cases[part])) for c in columns]
        yield [f"pseudo-rater: {ORIGINAL_TITLE}" if k == 0 else "", metric[0].upper(), *shown]


def _ceiling_rows(results: Results, summary: Summary, columns: list[str], part: Part) -> Iterator[list[str]]:
    for architecture in results.architectures:
        own = summary[part.value].get(architecture, {})
        stats = [own.get(c, {}).get("dice_ceiling") if COLUMNS[c].stage.region is not None else None for c in columns]
        if any(s and s["n"] for s in stats):
            cases = len(results.cases[part])
            shown = [_ours({**s, "n_missed": 0} if s else None, part, cases) for s in stats]  # a miss lowers no ceiling
            yield [f"ceiling: {architecture_title(architecture)}", PAPER_METRICS[0][0].upper(), *shown]


ROBUST_TITLE = "Medians, misses and ranks"


def robust_note(results: Results, part: Part) -> str:
    """How to read :func:`robust_rows`."""
    return (
        "Each cell: median / mean, in both of which a miss counts as 0 / mean of the per-case ranks among the architectures, in which it "
        f"is last (1 is best). M: missed cases, of {len(results.cases[part])}."
    )


def robust_rows(results: Results, summary: Summary, part: Part) -> list[list[str]]:
    """What stands beside the means, for our architectures, under the head of :func:`table_rows`."""
    columns = [c for c in COLUMNS if c in PAPER_COLUMNS[part] or c in results.columns(part)]
    cases, rows = len(results.cases[part]), []
    for architecture in results.architectures:
        own = summary[part.value].get(architecture, {})
        for k, metric in enumerate(PAPER_METRICS):
            cells = [_robust_cell(own.get(column, {}).get(metric), cases) for column in columns]
            rows.append([architecture_title(architecture) if k == 0 else "", metric[0].upper(), *cells])
        missed = [str(own[column]["dice"]["n_missed"]) if column in own else DASH for column in columns]
        rows.append(["", "M", *missed])
    return rows


def markdown_line(cells: list[str]) -> str:
    """One row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown_table(results: Results, summary: Summary, baselines: Summary, part: Part) -> str:
    """One of the paper's tables as a Markdown document."""
    head, rows = table_rows(results, summary, baselines, part)
    lines = [f"# Table {NUMBER[part]}: {part.caption} performance", ""]
    for paragraph in (*preface(results, part), *seed_lines(results.variants, summary[part.value], part)):
        lines += [paragraph, ""]
    rule = "|" + "---|" * len(head)
    lines += [markdown_line(head), rule, *(markdown_line(row) for row in rows)]
    lines += ["", f"## {ROBUST_TITLE}", "", robust_note(results, part), ""]
    lines += [markdown_line(head), rule, *(markdown_line(row) for row in robust_rows(results, summary, part))]
    return "\n".join(lines) + "\n"
