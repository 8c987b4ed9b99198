"""``checklist.md``: what three reporting guidelines ask, answered as far as the run knows. Topics are in our words, numbers the guidelines'.

CLAIM (Mongan 2020, doi 10.1148/ryai.2020200029), TRIPOD+AI (Collins 2024, doi 10.1136/bmj-2023-078378; written for diagnosis and
prognosis, so it is answered as far as it fits a segmentation), Metrics Reloaded (Maier-Hein 2024, doi 10.1038/s41592-023-02151-z).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flrplan
from flrplan.anatomy import Structure
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.paper import architecture_title
from flrplan.evaluation.provenance import NOT_RECORDED, start_lines, view_lines
from flrplan.evaluation.statistics import RESAMPLES, SEED
from flrplan.evaluation.subgroups import divisions
from flrplan.evaluation.summary import Results
from flrplan.evaluation.tables import markdown_line
from flrplan.evaluation.variants import is_ensemble, variant_lines
from flrplan.metrics.catalogue import NSD_TOLERANCE_MM

UNKNOWN = "not known by the run: fill in"

Answers = Sequence[tuple[str, str, str | None]]
"""Number of the item, what it asks, and the answer; None where only people know it."""


class _Facts:
    """Sentences about one evaluation that several items share."""

    def __init__(self, results: Results, document: Mapping[str, Any]) -> None:
        cases = {part: len(results.cases[part]) for part in Part}
        folds = sorted({row.fold for row in results.rows if row.fold is not None})
        self.parts = f"{cases[Part.CV]} cases in {len(folds)} scored folds of a cross-validation, {cases[Part.TEST]} held out"
        gaps = f"{len(results.gaps)} gaps, named over the tables" if results.gaps else "no case was missing, extra or broken"
        absent = f"; not predicted: {', '.join(results.absent)}" if results.absent else ""
        self.flow = f"{self.parts}; {gaps}{absent}"
        self.architectures = ", ".join(architecture_title(name) for name in results.architectures)
        self.columns = ", ".join(COLUMNS[name].title for name in COLUMNS if name in {row.column_name for row in results.rows})
        self.own_models = bool(results.models) and all(NOT_RECORDED not in record.starts for record in results.models)
        known = [record for record in results.models if record.has_start]
        self.start = " ".join(start_lines(known)) or None
        self.view = " ".join([*variant_lines(results.variants), *view_lines(results.models)]) or None
        combined = [row for row, own in results.variants.items() if is_ensemble(own)]
        folds_of = ["mean logits of the folds on held-out cases; one fold in the cross-validation"] if self.own_models else []
        self.ensembling = (
            "; ".join(folds_of + ([f"rows combined from others: {', '.join(combined)}"] if combined else [])) or None
        )
        self.raters = (
            "the original labels scored against these as a pseudo-rater, in both tables; between annotators: fill in"
            if results.original
            else None
        )
        scored = sorted({f"{row.architecture}/{row.column_name}" for row in results.probabilities})
        self.calibration = (
            f"Brier score, ECE and reliability of the saved probabilities: {', '.join(scored)}"
            if scored
            else "not assessed: no probabilities were scored"
        )
        self.has_probabilities = bool(scored)
        self.metrics = METRICS_USED + ("; of saved probabilities FROC, calibration and Dice by threshold" if scored else "")
        self.unseen = (
            f"models are checked against the ids that trained them; without such a record: {', '.join(results.unrecorded) or 'none'}"
            if known
            else None
        )
        self.subgroups = ", ".join(division.name for division in divisions(results.clinical))
        smallest = [
            (entry["smallest"], entry["n"])
            for entry in document["detectable"]["pairs"]
            if entry["metric"] == "dice" and entry["part"] == Part.TEST.value and entry["smallest"]
        ]
        self.sample = self.parts + (
            f"; smallest detectable paired differences of Dice on held-out cases: {min(smallest)[0]:.3f} to {max(smallest)[0]:.3f} "
            "(report.html, What so many cases can show)"
            if smallest
            else ""
        )
        undefined = sum(1 for row in results.rows if "dice" in row.reasons)
        self.empty = (
            f"declared for every metric and state of emptiness; Dice is undefined for {undefined} predictions, counted as u"
        )


STATISTICS = (
    f"95 % percentile bootstrap of the cases, {RESAMPLES} resamples inside each fold, seed {SEED}; paired Wilcoxon tests with Holm's "
    "correction, ties by a margin; stability of ranks under the bootstrap"
)
_TOLERANCES = ", ".join(f"{s} {mm:g} mm" for s, mm in NSD_TOLERANCE_MM.items() if s is not Structure.LRS)
METRICS_USED = f"Dice, precision, recall, NSD ({_TOLERANCES}), HD95, ASSD, volumes, FLR%, the cut, lesions by size, panoptic quality; in cases.csv"
_TABLES = "table1.md (cross-validation), table2.md (held out), each with the number of cases and 95 % intervals"
_SOFTWARE = (
    f"flrplan {flrplan.__version__}; versions of numpy and scipy in summary.json, of the training in each model's run.json"
)


def claim(f: _Facts) -> Answers:
    """CLAIM, items 1 to 42."""
    trained = "settings, cases, versions and result of each training in its run.json" if f.own_models else None
    return (
        ("1", "title names the kind of AI", None),
        ("2", "structured abstract", None),
        ("3", "clinical background, intended use", None),
        ("4", "aims and hypotheses", None),
        ("5", "prospective or retrospective", None),
        ("6", "goal of the study", None),
        ("7", "where the data come from", None),
        ("8", "who was eligible", None),
        ("9", "preprocessing", "spacing, resampling and normalisation in each model's plans.json" if f.own_models else None),
        ("10", "choice of a part of the data", f.flow),
        ("11", "definitions of data elements", "structures and compartments: liver, CRLM, FLR, as binary masks"),
        ("12", "de-identification", None),
        ("13", "missing data", f.flow),
        ("14", "definition of the reference standard", None),
        ("15", "why that reference standard", None),
        ("16", "who annotated", None),
        ("17", "tools of annotation", None),
        ("18", "variability between and within annotators", f.raters),
        ("19", "sample size", f.sample),
        ("20", "partitions", f.parts),
        ("21", "level at which partitions are disjoint", f"case ids; {f.unseen}" if f.unseen else "case ids"),
        ("22", "the model", f.architectures + (f". {f.view}" if f.view else "")),
        ("23", "software", _SOFTWARE),
        ("24", "initial weights", f.start),
        ("25", "training", trained),
        ("26", "which model was chosen", "weights after the last epoch, no choice by validation" if f.own_models else None),
        (
            "27",
            "ensembling",
            f.ensembling,
        ),
        ("28", "measures of performance", f.metrics),
        ("29", "statistics and uncertainty", STATISTICS),
        ("30", "robustness", f"pipelined against cascaded inputs where predicted; subgroups: {f.subgroups}"),
        ("31", "explanation of single predictions", "none computed; the worst cases are pictured in report.html"),
        ("32", "external data", None),
        ("33", "flow of cases", f.flow),
        (
            "34",
            "characteristics of each partition",
            "counts by subgroup in report.html; age, sex and others are not known: fill in",
        ),
        ("35", "performance on each partition", _TABLES),
        ("36", "estimates with their precision", _TABLES),
        ("37", "failures", "worst cases in report.html, missed and false lesions in lesions.csv"),
        ("38", "limitations", None),
        ("39", "implications for practice", None),
        ("40", "registration", None),
        ("41", "protocol, code and data", _SOFTWARE),
        ("42", "funding", None),
    )


def tripod(f: _Facts) -> Answers:
    """TRIPOD+AI, items 1 to 27."""
    return (
        ("1", "title", None),
        ("2", "abstract", None),
        ("3", "context, users, known inequalities", None),
        ("4", "aims", None),
        ("5", "source and dates of the data", None),
        ("6", "setting, eligibility, treatments", None),
        ("7", "data preparation", "plans.json and prepared.json of each stage" if f.own_models else None),
        ("8", "outcome and who assessed it", "masks of liver, CRLM and FLR; who drew them: fill in"),
        ("9", "predictors", f"CT alone, or with true or predicted masks: {f.columns}"),
        ("10", "sample size", f.sample),
        ("11", "missing data", f.flow),
        ("12", "analysis: partitions, model, measures", f"{f.parts}; {f.architectures}; {f.metrics}; {STATISTICS}"),
        ("13", "class imbalance", "patches oversample the target as run.json says" if f.own_models else None),
        ("14", "fairness", f"subgroups: {f.subgroups}; no groups of age, sex or origin: fill in"),
        (
            "15",
            "output of the model",
            f"binary masks{' and probabilities' if f.has_probabilities else ''}; thresholds of FLR% are generic cut-offs",
        ),
        ("16", "differences of training and test data", f"one split of one data set: {f.parts}"),
        ("17", "ethics", None),
        (
            "18",
            "funding, interests, protocol, registration, data, code",
            f"code: flrplan {flrplan.__version__}; the rest: fill in",
        ),
        ("19", "patients and public", None),
        ("20", "participants", f.flow),
        ("21", "cases of development", "train_ids in run.json; " + f.parts if f.own_models else f.parts),
        ("22", "the full model", "each model folder: plans.json, dataset.json, checkpoint" if f.own_models else None),
        ("23", "performance, with intervals and subgroups", _TABLES),
        ("24", "updating of the model", f.start),
        ("25", "interpretation", None),
        ("26", "limitations", None),
        ("27", "use in practice, what comes next", None),
    )


def metrics_reloaded(f: _Facts) -> Answers:
    """Metrics Reloaded: the parts of its problem fingerprint that decide here; what has no number is named in words."""
    return (
        ("S1", "kind of problem", "semantic segmentation of liver and FLR; of CRLM also detection of single lesions"),
        ("FP2.1", "boundaries matter", f"yes: NSD ({_TOLERANCES}), HD95, ASSD, and those of the cut, beside Dice"),
        ("FP2.2", "volume matters", "yes: volume and FLR% errors, Bland-Altman limits"),
        ("FP2.5", "errors cost differently", "precision and recall apart; FLR% called too high apart from too low"),
        ("FP2.7.1", "calibration", f.calibration),
        ("FP4.2", "prevalence as in the population", None),
        ("size", "small structures, unequal sizes", "lesions by diameter, tolerance of 2 mm for CRLM"),
        ("empty", "empty references or predictions", f.empty),
        (
            "aggregation",
            "from cases to one number",
            "per case, then over cases (held out) or over fold means (cross-validation)",
        ),
        ("reporting", "single values", "cases.csv, lesions.csv, baselines.csv"),
    )


def checklist(results: Results, document: Mapping[str, Any]) -> str:
    """The checklist as Markdown. ``document``: the content of ``summary.json``."""
    facts = _Facts(results, document)
    lines = [
        "# Reporting checklist",
        "",
        "What this run knows of the items of three guidelines. The numbers are the guidelines', the words ours: read an item there before "
        f'you answer it. "{UNKNOWN}" stands where only people know.',
        "",
        *([results.note, ""] if results.note else []),
    ]
    for title, answers in (
        ("CLAIM 2020 (doi 10.1148/ryai.2020200029)", claim(facts)),
        ("TRIPOD+AI 2024 (doi 10.1136/bmj-2023-078378), as far as it fits a segmentation", tripod(facts)),
        ("Metrics Reloaded 2024 (doi 10.1038/s41592-023-02151-z)", metrics_reloaded(facts)),
    ):
        rows = [markdown_line([number, asked, answer or UNKNOWN]) for number, asked, answer in answers]
        lines += [f"## {title}", "", markdown_line(["item", "asks for", "answer"]), "|---|---|---|", *rows, ""]
    return "\n".join(lines)
