"""``report.html``: the tables, plots, tests, claims and worst cases on one page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flrplan.evaluation import figures, html, probability_figures
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
from flrplan.metrics.catalogue import METRICS, NSD_TOLERANCE_MM, PAPER_METRICS
from flrplan.metrics.empty import EMPTY_CUTS, EMPTY_MASKS, Emptiness, Outcome, Undefined
from flrplan.metrics.froc import CANDIDATE_THRESHOLD, FALSE_POSITIVES_PER_CASE, HIT_IOU
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT

Document = Mapping[str, Any]
"""The content of ``summary.json``."""


def build_report(results: Results, document: Document, pictures: Iterable[Picture]) -> str:
    """The page. ``document`` is the content of ``summary.json``; nothing is computed here that is not in it."""
    warnings = [html.paragraph(line, "warn") for line in ([results.note] if results.note else []) + gap_lines(results.gaps)]
    banner = "".join(warnings)
    sections: list[tuple[str, str, str]] = []
    for part in Part:
        head, rows = table_rows(results, document, document["baselines"], part)
        notes = (*preface(results, part), *seed_lines(results.variants, document[part.value], part))
        text = "".join(html.paragraph(line, "note") for line in notes)
        title = f"Table {NUMBER[part]}: {part.caption}"
        shown = html.table(head, rows, wide=range(len(head)))
        robust = html.paragraph(robust_note(results, part), "note") + html.table(head, robust_rows(results, document, part))
        sections.append((f"table{NUMBER[part]}", title, text + shown + html.folded(ROBUST_TITLE, robust, is_open=True)))
    boxes = "Dice per case (dots) with median and quartiles"
    sections += [
        ("claims", "The paper's claims", banner + _claims(document)),
        ("boxes", "Dice per case", banner + _plots(results, figures.dice_boxes, boxes)),
        ("comparisons", "Paired comparisons", banner + _comparisons(document)),
        ("detectable", "What so many cases can show", banner + _detectable(results, document)),
        ("ranking", "Ranking and its stability", banner + _ranking(document)),
        ("volumes", "FLR volume and generic cut-offs", banner + _volumes(results, document)),
        ("lesions", "Metastases by size", banner + _lesions(results, document)),
        ("probabilities", "Probabilities: FROC, calibration, thresholds", _probabilities(results, document, banner)),
        ("strata", "Subgroups", banner + _strata(results, document)),
        ("further", "Further metrics", banner + _further(results, document)),
        ("worst", "Worst cases", _pictures(pictures)),
        ("method", "How it was measured", _method()),
    ]
    return html.page("FLR benchmark: evaluation", [s for s in sections if s[2]])


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


def _claims(document: Document) -> str:
    rows = [[c["claim"], c["source"], f"**{c['status']}**", c["evidence"]] for c in document["claims"]]
    text = (
        "Each sentence of the paper that numbers can decide, by the paired comparisons below: held or reversed where the difference is "
        f"significant, tie where it is shown to lie within ±{document['settings']['tie_margin']:g}, undecided otherwise; not testable "
        "where numbers are missing or too few."
    )
    return html.paragraph(text, "note") + html.table(["Claim", "Where", "Here", "Evidence"], rows, wide=(0, 3))


def _further(results: Results, document: Document) -> str:
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
            shown = html.table(["", *(display_name(a) for a, _ in own)], rows, wide=range(1, len(own) + 1))
            parts.append(html.folded(f"{part.caption}: {COLUMNS[column].title}", shown, is_open=part is Part.TEST))
    text = (
        "Mean [95 % interval]; n is the number of cases with a defined value, u the number of undefined ones: means over different "
        "cases are no comparison. med., pen.: median and mean in which a miss (an empty prediction of a structure that is there) counts "
        "as the worst: 0, or the image's diagonal for a distance. rank: mean of the per-case ranks among the architectures that have all "
        "cases, in which a miss is last and 1 is best."
    )
    return html.paragraph(text, "note") + "".join(parts)


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


def _plots(results: Results, draw: Any, caption: str, *data: Any) -> str:
    return "".join(html.figure(draw(results, part, *data), f"{caption}; {part.caption}.") for part in Part)


def _comparisons(document: Document) -> str:
    parts = []
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
            head = ["", "a", "b", "metric", "n", "a - b", "95 % interval", "90 % interval", "Wilcoxon p", "p (Holm)", "a is"]
            of_dice = [row for row in rows if row[3] == COMPARED]
            parts.append(html.folded(kind.value, html.table(head, of_dice, wide=(1, 2)), is_open=True))
            others = [row for row in rows if row[3] != COMPARED]
            if others:
                parts.append(html.folded(f"{kind.value}: other metrics", html.table(head, others, wide=(1, 2)), is_open=False))
    settings = document["settings"]
    margin = settings["tie_margin"]
    text = (
        "All paired by case, a miss counted as 0. Wilcoxon's n: differences that are not 0. Holm's correction runs over the comparisons of "
        "one kind and metric in one part, of which both sides have predictions, whatever came out (the number beside p). Tie: the 90 % "
        f"interval lies within ±{margin:g}; higher, lower: Holm's p is below {settings['alpha']:g} and the 95 % interval leaves out 0; "
        f"undecided: neither, or fewer than {MIN_PAIRS_DECIDED} pairs. {DASH}: too few cases."
    )
    caption = f"Paired difference of Dice with its 90 % interval; the band is the margin of a tie, ±{margin:g}"
    plots = [
        html.figure(figures.forest(document["comparisons"], part, margin), f"{caption}; {part.caption}. Pale: undecided.")
        for part in Part
    ]
    return html.paragraph(text, "note") + "".join(plots) + "".join(parts)


def _detectable(results: Results, document: Document) -> str:
    rows = [
        [e["part"], _side(e["a"]), _side(e["b"]), e["metric"], str(e["n"]), _number(e["sd"]), _number(e["smallest"])]
        for e in document["detectable"]["pairs"]
        if e["metric"] == COMPARED
    ]
    if not rows:
        return ""
    cases = len(results.cases[Part.TEST])
    needed = [f"{largest_spread(d, cases):.3f} for {d}" for d in (0.003, 0.005)] if cases >= MIN_CASES else []
    paper = (
        f" The paper's three highest FLR Dice, 0.767, 0.764 and 0.762, lie 0.003 and 0.005 apart; {cases} held-out cases can show such a "
        f"difference only if the paired differences have a standard deviation of at most {', '.join(needed)}."
        if needed
        else ""
    )
    text = (
        f"The smallest mean difference that a paired two-sided t test at {ALPHA:g} would find with {POWER:.0%} power, from the standard "
        f"deviation (SD, ddof 1) of the differences that were observed. A smaller difference that was not found may still be there.{paper}"
    )
    shown = html.table(["", "a", "b", "metric", "n", "SD of a - b", "smallest difference"], rows)
    return html.paragraph(text, "note") + html.folded("Pairs", shown, is_open=False)


def _ranking(document: Document) -> str:
    caption = (
        "How often each candidate takes which rank by the mean of its per-case ranks of Dice when the cases are drawn again; the best "
        "of ours on top, a miss last in its case. A bar of mixed shades is undecided"
    )
    plots = [html.figure(figures.rank_bars(document["rankings"], part), f"{caption}; {part.caption}.") for part in Part]
    if not any(plots):
        return html.paragraph("Nothing to rank: one architecture that has all cases, or too few cases.")
    return "".join(plots)


def _volumes(results: Results, document: Document) -> str:
    caption = "Bland-Altman of the FLR volume, prediction minus reference: bias (line) and 95 % limits (dashed)"
    parts = [_plots(results, figures.bland_altman_grid, caption, document["bland_altman"])]
    limits = []
    for part, names in document["bland_altman"].items():
        for name, columns in names.items():
            for column, cell in columns.items():
                values = [_number(cell[key], 1, sign=True) for key in ("bias_ml", "lower_ml", "upper_ml")]
                limits.append([part, display_name(name), COLUMNS[column].title, str(cell["n"]), *values])
    if not limits:
        return ""
    parts.append(html.table(["", "Model", "Column", "n", "bias [ml]", "lower limit", "upper limit"], limits))
    text = (
        "The FLR% is remnant over liver, tumour left out of both. Beside each other stand only FLR% of the same kind. Of the true liver "
        "and CRLM: the FLR mask alone makes the error, in every column. Of its own: of the liver and CRLM that the same architecture "
        "predicted from the CT, where it has both, as the FLR% is that a CT alone gives. At a generic cut-off of the measured "
        f"FLR% ({_cutoffs()}): how often the prediction lies on the other side, too high (the truth is below, the prediction is not) + too "
        "low, of n. These are no clinical thresholds: the cited ones of 20 and 30 % are of FLR / standardised liver volume (sTLV), which "
        "is another quantity."
    )
    head = [
        "",
        "Model",
        "Column",
        "n",
        "bias [points]",
        "lower limit",
        "upper limit",
        *(f"at {t} %" for t in FLR_THRESHOLDS_PERCENT),
    ]
    parts.append(html.paragraph(text, "note"))
    for of, own in (("true", ""), ("own predicted", "_own")):
        rows = _flr_percent_rows(document[f"flr_percent_agreement{own}"], document[f"threshold_crossings{own}"])
        if rows:
            parts.append(html.folded(f"FLR% of the {of} liver and CRLM", html.table(head, rows), is_open=True))
    return "".join(parts)


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


def _cutoffs() -> str:
    return ", ".join(str(percent) for percent in FLR_THRESHOLDS_PERCENT) + " %"


def _first(tree: Mapping[str, Any]) -> Any:
    return next(iter(tree.values()))


def _lesions(results: Results, document: Document) -> str:
    if not document["lesions"]:
        return ""
    caption = "Share of metastases found by diameter; filled: IoU > 0.1, outlined: IoU > 0.5"
    plots = _plots(results, figures.lesion_recall_bars, caption, document["lesions"])
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
    text = (
        f"Lesions of the truth: told apart by the source of the labels in {instances} cases, 26-connected components in {components}. "
        "A predicted lesion is a component; a size is the diameter of the sphere of the volume; lesions are matched one to one, best "
        "IoU first. Covered: missed, but more than half of it lies in one predicted lesion (of a neighbour that it touches, or far too "
        "large). A false alarm is a predicted lesion without a match, counted by its own size."
    )
    return plots + html.paragraph(text, "note") + html.table(["", "Model", "Column", "", *sizes], rows)


def _detected(counts: Mapping[str, Any]) -> str:
    covered = f" ({counts['missed_but_covered']} covered)" if counts["missed_but_covered"] else ""
    return f"{counts['found']} of {counts['reference']}{covered}, {counts['false_alarms']} false"


def _probabilities(results: Results, document: Document, banner: str) -> str:
    tree = document["probabilities"]
    if not tree:
        return ""
    lacking = "".join(html.paragraph(line, "warn") for line in document["unscored_probabilities"])
    froc = (
        f"FROC of metastases: a candidate is a 26-connected component of p > {CANDIDATE_THRESHOLD:g}, made once; its score is its maximum "
        f"probability, and a threshold keeps or drops it whole. By falling score, each finds the lesion left that it overlaps best, with "
        f"an IoU above {HIT_IOU:g}, or is a false positive"
    )
    reliability = "Reliability by bins of probability, voxels of all cases together: inside the liver that the stage was given, or the whole CT"
    sweep = "Mean Dice of the masks p > threshold, over the cases whose truth is not empty"
    parts = [
        _plots(results, probability_figures.froc_panels, froc, tree),
        _plots(results, probability_figures.reliability_panels, reliability, tree),
        _plots(results, probability_figures.sweep_panels, sweep, tree),
    ]
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
    heads = [f"at {fp:g} FP" for fp in FALSE_POSITIVES_PER_CASE]
    text = (
        "Sensitivity at so many false positives per case; Brier score and expected calibration error (10 bins) per case, mean; each with "
        "its 95 % interval. The best threshold was chosen on these very cases, so its Dice is too good; choose one on other cases."
    )
    tables = html.table(["", "Model", "Column", "cases", "lesions", *heads], found) if found else ""
    head = ["", "Model", "Column", "Brier score", "ECE", "n", "Dice at 0.5", "best Dice"]
    return banner + lacking + "".join(parts) + html.paragraph(text, "note") + tables + html.table(head, rows)


def _strata(results: Results, document: Document) -> str:
    text = (
        "Means over the cases of a stratum, with 95 % intervals and the number of cases. To explore: no test, and no correction for how "
        "many strata there are; few cases show little. The limits of tumour burden (tumour over liver volume) and FLR% are round numbers of "
        "ours. Steatosis, chemotherapy and bilobar disease come from the clinical sheet, where the work folder has it."
    )
    parts = [html.paragraph(text, "note")]
    for division in divisions(results.clinical):
        tree, order = document["strata"].get(division.name, {}), division.order
        for metric in STRATIFIED:
            rows = [
                [part, display_name(name), COLUMNS[column].title, *(_stratum(strata.get(s), metric) for s in order)]
                for part, architectures in tree.items()
                for name, columns in architectures.items()
                for column, strata in columns.items()
            ]
            shown = html.table(["", "Model", "Column", *order], rows)
            unit = f" [{METRICS[metric].unit}]" if METRICS[metric].unit else ""
            parts.append(
                html.folded(f"{METRICS[metric].title}{unit} by {division.name}", shown, is_open=metric == STRATIFIED[0])
            )
    return "".join(parts)


def _stratum(cell: Mapping[str, Any] | None, metric: str) -> str:
    return DASH if cell is None else _stats(cell[metric], metric)


def _pictures(pictures: Iterable[Picture]) -> str:
    shown = "".join(html.picture(p.png_base64, p.caption) for p in pictures)
    if not shown:
        return ""
    text = "The lowest Dice of each column, on the slice that differs most. Green: truth. Pink, dashed: prediction."
    return html.paragraph(text, "note") + f'<div class="pictures">{shown}</div>'


def _method() -> str:
    tolerances = ", ".join(f"{s} {mm:g} mm" for s, mm in NSD_TOLERANCE_MM.items())
    text = (
        f"Surfaces and their areas as in surface-distance; HD95 is the larger of the two area-weighted 95 % percentiles, ASSD "
        f"the area-weighted mean over both surfaces. NSD tolerances: {tolerances}. In the cross-validation, mean and ± are "
        "the mean and the standard deviation (ddof 0) of the fold means, our reading of the paper's ±; on the held-out cases "
        f"they are over the cases. Intervals: percentile bootstrap, {RESAMPLES} resamples of the cases (inside each fold), "
        f"seed {SEED}. Fewer than 3 cases (or 2 in a fold) give no interval and no test. The paper does not say how empty masks score; here "
        "(for the cut, empty: no interface of remnant and resection deeper than the rind):"
    )
    states = [Emptiness.REFERENCE, Emptiness.PREDICTION, Emptiness.BOTH]
    rows = [[name, *(_outcome(row[state]) for state in states)] for name, row in {**EMPTY_MASKS, **EMPTY_CUTS}.items()]
    return html.paragraph(text) + html.table(["", *(state.value for state in states)], rows)


def _outcome(outcome: Outcome) -> str:
    return "undefined" if isinstance(outcome, Undefined) else f"{outcome:g}"
