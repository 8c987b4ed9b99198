"""``report.html``: the tables, plots, tests, claims and worst cases on one page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flrplan.evaluation import figures, probability_figures
from flrplan.evaluation.baselines import ORIGINAL
from flrplan.evaluation.breakdowns import STRATIFIED
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.comparisons import COMPARED, Kind
from flrplan.evaluation.figures import display_name
from flrplan.evaluation.pictures import Picture
from flrplan.evaluation.power import POWER, largest_spread
from flrplan.evaluation.probabilities import cells_of
from flrplan.evaluation.rows import COMPONENTS, INSTANCES
from flrplan.evaluation.statistics import ALPHA, MIN_CASES, MIN_PAIRS_DECIDED, RESAMPLES, SEED
from flrplan.evaluation.subgroups import divisions
from flrplan.evaluation.summary import Results
from flrplan.evaluation.tables import DASH, NUMBER, ROBUST_TITLE, gap_lines, preface, robust_note, robust_rows, table_rows
from flrplan.evaluation.variants import seed_lines
from flrplan.files.page import render_page
from flrplan.metrics.catalogue import METRICS, NSD_TOLERANCE_MM, PAPER_METRICS
from flrplan.metrics.empty import EMPTY_CUTS, EMPTY_MASKS, Emptiness, Outcome, Undefined
from flrplan.metrics.froc import CANDIDATE_THRESHOLD, FALSE_POSITIVES_PER_CASE, HIT_IOU
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT

Document = Mapping[str, Any]
"""The content of ``summary.json``."""
Plot = tuple[str, str]
"""SVG, caption."""
Fold = tuple[str, bool, list[str], list[list[str]]]
"""A table that can be folded away: heading, whether it is open, head, rows."""


def build_report(results: Results, document: Document, pictures: Iterable[Picture]) -> str:
    """The page. ``document`` is the content of ``summary.json``; nothing is computed here that is not in it. A section without content is left out."""
    boxes = "Dice per case (dots) with median and quartiles"
    claims = [[c["claim"], c["source"], f"**{c['status']}**", c["evidence"]] for c in document["claims"]]
    content: dict[str, tuple[str, Any]] = {
        **{f"table{NUMBER[p]}": (f"Table {NUMBER[p]}: {p.caption}", _table(results, document, p)) for p in Part},
        "claims": ("The paper's claims", claims),
        "boxes": ("Dice per case", _plots(results, figures.dice_boxes, boxes)),
        "comparisons": ("Paired comparisons", _comparisons(document)),
        "detectable": ("What so many cases can show", _detectable(results, document)),
        "ranking": ("Ranking and its stability", _ranking(document)),
        "volumes": ("FLR volume and generic cut-offs", _volumes(results, document)),
        "lesions": ("Metastases by size", _lesions(results, document)),
        "probabilities": ("Probabilities: FROC, calibration, thresholds", _probabilities(results, document)),
        "strata": ("Subgroups", _strata(results, document)),
        "further": ("Further metrics", _further(results, document)),
        "worst": ("Worst cases", list(pictures)),
        "method": ("How it was measured", _method()),
    }
    return render_page(
        Path(__file__).with_name("report.html"),
        title="FLR benchmark: evaluation",
        sections={anchor: heading for anchor, (heading, shown) in content.items() if shown},
        warnings=([results.note] if results.note else []) + gap_lines(results.gaps),
        margin=f"{document['settings']['tie_margin']:g}",
        alpha=f"{document['settings']['alpha']:g}",
        min_pairs=MIN_PAIRS_DECIDED,
        dash=DASH,
        test_alpha=f"{ALPHA:g}",
        power=f"{POWER:.0%}",
        cutoffs=FLR_THRESHOLDS_PERCENT,
        **{anchor: shown for anchor, (_, shown) in content.items()},
    )


def _table(results: Results, document: Document, part: Part) -> dict[str, Any]:
    head, rows = table_rows(results, document, document["baselines"], part)
    return {
        "notes": (*preface(results, part), *seed_lines(results.variants, document[part.value], part)),
        "head": head,
        "rows": rows,
        "robust_title": ROBUST_TITLE,
        "robust_note": robust_note(results, part),
        "robust": robust_rows(results, document, part),
    }


def _number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    if value is None:
        return DASH
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"  # + 0.0: no "-0.000"


def _interval(values: list[float] | None, digits: int = 3, sign: bool = False) -> str:
    return DASH if values is None else f"[{_number(values[0], digits, sign)}, {_number(values[1], digits, sign)}]"


def _p(value: float | None) -> str:
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _side(side: list[str]) -> str:
    return f"{display_name(side[0])}, {COLUMNS[side[1]].title}"


def _further(results: Results, document: Document) -> list[Fold]:
    parts = []
    for part in Part:
        columns = results.columns(part)
        for column in columns:
            names = [m.name for m in METRICS.values() if COLUMNS[column].target in m.structures]
            own = [
                (a, document[part.value][a][column]) for a in results.architectures if column in document[part.value].get(a, {})
            ]
            of_baselines = document["baselines"][part.value]
            own += [(b, of_baselines[b][column]) for b in results.baseline_names if column in of_baselines.get(b, {})]
            of_original = document["original_labels"].get(part.value, {})
            own += [(ORIGINAL, of_original[column])] if column in of_original else []
            rows = []
            for name in names:
                metric = METRICS[name]
                unit = f" [{metric.unit}]" if metric.unit else ""
                if any(name in cell for _, cell in own):
                    cells = [_stats(cell[name], name) + _beside(cell[name], name) if name in cell else DASH for _, cell in own]
                    rows.append([f"{metric.title}{unit}", *cells])
            rows.append(["missed cases", *(str(cell[names[0]]["n_missed"]) for _, cell in own)])
            heading = f"{part.caption}: {COLUMNS[column].title}"
            parts.append((heading, part is Part.TEST, ["", *(display_name(a) for a, _ in own)], rows))
    return parts


def _stats(stats: Mapping[str, Any], name: str) -> str:
    digits = 3 if name in PAPER_METRICS or METRICS[name].unit == "" else 2
    undefined = f", {stats['n_undefined']}u" if stats["n_undefined"] else ""
    return f"{_number(stats['mean'], digits)} {_interval(stats['ci95'], digits)} (n = {stats['n']}{undefined})"


def _beside(stats: Mapping[str, Any], name: str) -> str:
    """Median, the mean with misses where it is another, and the mean rank where there is one."""
    digits = 3 if name in PAPER_METRICS or METRICS[name].unit == "" else 2
    texts = [f", med. {_number(stats['median'], digits)}"] if stats["n_penalised"] else []
    penalised = stats["penalised_mean"]
    if penalised is not None and stats["n_penalised"] > stats["n"]:
        texts.append(f", pen. {_number(penalised, digits)}")
    rank = stats.get("mean_rank")
    return "".join(texts) + (f", rank {rank:.2f}" if rank is not None else "")


def _plots(results: Results, draw: Any, caption: str, *data: Any) -> list[Plot]:
    drawn = [(draw(results, part, *data), f"{caption}; {part.caption}.") for part in Part]
    return [plot for plot in drawn if plot[0]]


def _comparisons(document: Document) -> dict[str, Any]:
    kinds = []
    for kind in Kind:
        rows = [
            [
                c["part"],
                _side(c["a"]),
                _side(c["b"]),
                c["metric"],
                str(c["n"]),
                _number(c["difference"], sign=True),
                _interval(c["ci95"], sign=True),
                _interval(c["ci90"], sign=True),
                DASH if c["p"] is None else f"{_p(c['p'])} (n = {c['n_nonzero']})",
                DASH if c["p_holm"] is None else f"{_p(c['p_holm'])} (of {c['family']})",
                c["outcome"] or DASH,
            ]
            for c in sorted(document["comparisons"], key=lambda c: PAPER_METRICS.index(c["metric"]))
            if c["kind"] == kind.value
        ]
        if rows:
            kinds.append((kind.value, True, [row for row in rows if row[3] == COMPARED]))
            if others := [row for row in rows if row[3] != COMPARED]:
                kinds.append((f"{kind.value}: other metrics", False, others))
    margin = document["settings"]["tie_margin"]
    caption = f"Paired difference of Dice with its 90 % interval; the band is the margin of a tie, ±{margin:g}"
    plots = [
        (figures.forest(document["comparisons"], part, margin), f"{caption}; {part.caption}. Pale: undecided.") for part in Part
    ]
    return {"plots": [plot for plot in plots if plot[0]], "kinds": kinds}


def _detectable(results: Results, document: Document) -> dict[str, Any]:
    rows = [
        [e["part"], _side(e["a"]), _side(e["b"]), e["metric"], str(e["n"]), _number(e["sd"]), _number(e["smallest"])]
        for e in document["detectable"]["pairs"]
        if e["metric"] == COMPARED
    ]
    cases = len(results.cases[Part.TEST])
    needed = [f"{largest_spread(d, cases):.3f} for {d}" for d in (0.003, 0.005)] if cases >= MIN_CASES else []
    return {"rows": rows, "cases": cases, "needed": needed} if rows else {}


def _ranking(document: Document) -> dict[str, list[Plot]]:
    caption = (
        "How often each candidate takes which rank by the mean of its per-case ranks of Dice when the cases are drawn again; the best "
        "of ours on top, a miss last in its case. A bar of mixed shades is undecided"
    )
    plots = [(figures.rank_bars(document["rankings"], part), f"{caption}; {part.caption}.") for part in Part]
    return {"plots": [plot for plot in plots if plot[0]]}


def _volumes(results: Results, document: Document) -> dict[str, Any]:
    caption = "Bland-Altman of the FLR volume, prediction minus reference: bias (line) and 95 % limits (dashed)"
    limits = []
    for part, names in document["bland_altman"].items():
        for name, columns in names.items():
            for column, cell in columns.items():
                values = [_number(cell[key], 1, sign=True) for key in ("bias_ml", "lower_ml", "upper_ml")]
                limits.append([part, display_name(name), COLUMNS[column].title, str(cell["n"]), *values])
    if not limits:
        return {}
    cutoffs = [f"at {t} %" for t in FLR_THRESHOLDS_PERCENT]
    return {
        "plots": _plots(results, figures.bland_altman_grid, caption, document["bland_altman"]),
        "limits": limits,
        "head": ["", "Model", "Column", "n", "bias [points]", "lower limit", "upper limit", *cutoffs],
        "flr_percent": {
            of: _flr_percent_rows(document[f"flr_percent_agreement{own}"], document[f"threshold_crossings{own}"])
            for of, own in (("true", ""), ("own predicted", "_own"))
        },
    }


def _flr_percent_rows(agreement: Mapping[str, Any], crossings: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for part, names in agreement.items():
        for name, columns in names.items():
            for column, cell in columns.items():
                values = [_number(cell[key], 1, sign=True) for key in ("bias", "lower", "upper")]
                turned = crossings[part][name][column].values()
                counts = [f"{c['too_high']} + {c['too_low']} of {c['n']}" for c in turned]
                rows.append([part, display_name(name), COLUMNS[column].title, str(cell["n"]), *values, *counts])
    return rows


def _first(tree: Mapping[str, Any]) -> Any:
    return next(iter(tree.values()))


def _lesions(results: Results, document: Document) -> dict[str, Any]:
    if not document["lesions"]:
        return {}
    caption = "Share of metastases found by diameter; filled: IoU > 0.1, outlined: IoU > 0.5"
    rows = []
    for part, architectures in document["lesions"].items():
        for name, columns in architectures.items():
            for column, thresholds in columns.items():
                for key, sizes in thresholds.items():
                    cells = [_detected(c) for c in sizes.values()]
                    rows.append([part, display_name(name), COLUMNS[column].title, f"IoU > 0.{key[3:].rstrip('0')}", *cells])
    sizes = list(_first(_first(_first(_first(document["lesions"])))))
    told = document["lesions_from"].values()
    instances, components = (sum(len(of_part[key]) for of_part in told) for key in (INSTANCES, COMPONENTS))
    return {
        "plots": _plots(results, figures.lesion_recall_bars, caption, document["lesions"]),
        "instances": instances,
        "components": components,
        "head": ["", "Model", "Column", "", *sizes],
        "rows": rows,
    }


def _detected(counts: Mapping[str, Any]) -> str:
    covered = f" ({counts['missed_but_covered']} covered)" if counts["missed_but_covered"] else ""
    return f"{counts['found']} of {counts['reference']}{covered}, {counts['false_alarms']} false"


def _probabilities(results: Results, document: Document) -> dict[str, Any]:
    tree = document["probabilities"]
    if not tree:
        return {}
    froc = (
        f"FROC of metastases: a candidate is a 26-connected component of p > {CANDIDATE_THRESHOLD:g}, made once; its score is its maximum "
        f"probability, and a threshold keeps or drops it whole. By falling score, each finds the lesion left that it overlaps best, with "
        f"an IoU above {HIT_IOU:g}, or is a false positive"
    )
    reliability = "Reliability by bins of probability, voxels of all cases together: inside the liver that the stage was given, or the whole CT"
    sweep = "Mean Dice of the masks p > threshold, over the cases whose truth is not empty"
    rows, found = [], []
    for part, name, column, cell in cells_of(tree):
        of = [part, display_name(name), COLUMNS[column].title]
        errors = [
            f"{_number(cell[k]['mean'], 4)} {_interval(cell[k]['ci95'], 4)} (n = {cell[k]['n']})" for k in ("brier", "ece")
        ]
        dice = [DASH] * 3
        if swept := cell["sweep"]:
            best = f"{_number(swept['best_dice'])} at {swept['best_threshold']:g}"
            dice = [str(swept["n"]), _number(swept["dice_at_half"]), best]
        rows.append([*of, *errors, *dice])
        if curve := cell.get("froc"):
            at = [
                f"{_number(value)} {_interval(curve['sensitivity_ci95'][fp])}" for fp, value in curve["sensitivity_at"].items()
            ]
            found.append([*of, str(curve["cases"]), str(curve["lesions"]), *at])
    return {
        "lacking": document["unscored_probabilities"],
        "plots": [
            *_plots(results, probability_figures.froc_panels, froc, tree),
            *_plots(results, probability_figures.reliability_panels, reliability, tree),
            *_plots(results, probability_figures.sweep_panels, sweep, tree),
        ],
        "found_head": ["", "Model", "Column", "cases", "lesions", *(f"at {fp:g} FP" for fp in FALSE_POSITIVES_PER_CASE)],
        "found": found,
        "rows": rows,
    }


def _strata(results: Results, document: Document) -> list[Fold]:
    parts = []
    for division in divisions(results.clinical):
        tree, order = document["strata"].get(division.name, {}), division.order
        for metric in STRATIFIED:
            rows = [
                [part, display_name(name), COLUMNS[column].title, *(_stratum(strata.get(s), metric) for s in order)]
                for part, architectures in tree.items()
                for name, columns in architectures.items()
                for column, strata in columns.items()
            ]
            unit = f" [{METRICS[metric].unit}]" if METRICS[metric].unit else ""
            heading = f"{METRICS[metric].title}{unit} by {division.name}"
            parts.append((heading, metric == STRATIFIED[0], ["", "Model", "Column", *order], rows))
    return parts


def _stratum(cell: Mapping[str, Any] | None, metric: str) -> str:
    return DASH if cell is None else _stats(cell[metric], metric)


def _method() -> dict[str, Any]:
    states = [Emptiness.REFERENCE, Emptiness.PREDICTION, Emptiness.BOTH]
    return {
        "tolerances": [f"{s} {mm:g} mm" for s, mm in NSD_TOLERANCE_MM.items()],
        "resamples": RESAMPLES,
        "seed": SEED,
        "head": ["", *(state.value for state in states)],
        "rows": [[name, *(_outcome(row[state]) for state in states)] for name, row in {**EMPTY_MASKS, **EMPTY_CUTS}.items()],
    }


def _outcome(outcome: Outcome) -> str:
    return "undefined" if isinstance(outcome, Undefined) else f"{outcome:g}"
