"""One evaluation from folders to files: finds, checks, scores in parallel, summarises, writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from tqdm import tqdm

import flrplan
from flrplan.errors import SettingsError
from flrplan.evaluation.breakdowns import bland_altman, lesion_detection, strata, threshold_crossings
from flrplan.evaluation.claims import check_claims
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.comparisons import comparisons, rankings
from flrplan.evaluation.files import cases_csv, lesions_csv
from flrplan.evaluation.headers import header_gaps
from flrplan.evaluation.inputs import (
    CaseFiles,
    Found,
    find_labels,
    find_predictions,
    find_work_labels,
    match_cases,
    require_columns,
    require_no_gaps,
)
from flrplan.evaluation.output import writable_folder
from flrplan.evaluation.paper import architecture_order
from flrplan.evaluation.pictures import worst_pictures
from flrplan.evaluation.report import build_report
from flrplan.evaluation.rows import CaseResult, LesionRow, Row
from flrplan.evaluation.scoring import score_cases
from flrplan.evaluation.settings import EvaluationSettings
from flrplan.evaluation.standings import add_standings
from flrplan.evaluation.statistics import ALPHA, RESAMPLES, SEED
from flrplan.evaluation.summary import Results, summarise
from flrplan.evaluation.tables import markdown_table, table_name
from flrplan.evaluation.trained import require_unseen
from flrplan.io import write_json, write_text
from flrplan.metrics.catalogue import NSD_TOLERANCE_MM
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT
from flrplan.splits import Split, read_split

log = logging.getLogger(__name__)


def evaluate(settings: EvaluationSettings) -> dict[str, Path]:
    """Runs one evaluation; returns the files written, by name.

    Writes ``cases.csv``, ``baselines.csv``, ``lesions.csv``, ``summary.json``, ``table1.md``, ``table2.md``, ``report.html``.
    Raises: SettingsError for folders and splits that cannot be used; LabelError naming every missing, extra or broken case
        unless ``allow_missing``; OutputError for a folder that cannot be written to. Nothing is written then.
    """
    found, split, unrecorded = find(settings)
    with writable_folder(settings.out_folder):
        if not settings.allow_missing:
            require_no_gaps(sorted([*found.gaps, *header_gaps(found.cases)]), allow_missing=False)
            if settings.predictions is None:
                require_columns(found.absent, settings.absent)
        running = score_cases(found.cases, settings.workers)
        scored = list(tqdm(running, total=len(found.cases), desc="scoring", unit="case"))
        results = replace(collect(scored, found, split, settings.table_note), unrecorded=unrecorded, margin=settings.margin)
        require_no_gaps(results.gaps, settings.allow_missing)
        if not results.rows:
            raise SettingsError("no prediction could be scored; see the messages about missing and broken files")
        return write(results, {case.case: case for case in found.cases}, settings)


def find(settings: EvaluationSettings) -> tuple[Found, Split, tuple[str, ...]]:
    """Labels, predictions and split, brought together; and the models of a work folder that could not be checked.

    Raises: SettingsError for models of the work folder that were trained on what they predict.
    """
    split = read_split(settings.splits_file)
    if settings.labels is not None:
        labels = find_labels(settings.labels)
    elif settings.work is not None:
        labels = find_work_labels(settings.work)
    else:
        raise SettingsError("give --labels or --work")
    predictions = find_predictions(settings.predictions_folder, settings.out_folder)
    of_work = settings.work if settings.predictions is None else None
    unrecorded = require_unseen(of_work, predictions, split, settings.splits_file) if of_work else ()
    return match_cases(labels, predictions, split), split, unrecorded


def collect(scored: Sequence[CaseResult], found: Found, split: Split, note: str) -> Results:
    """The results of all workers in a fixed order."""
    place = {case.case: k for k, case in enumerate(found.cases)}
    rank = {name: k for k, name in enumerate(architecture_order(set(found.architectures)))}
    column = {name: k for k, name in enumerate(COLUMNS)}

    def order(row: Row | LesionRow) -> tuple[Any, ...]:
        # A baseline's name is no architecture: baselines keep to their own names' order.
        architecture = (rank.get(row.architecture, len(rank)), row.architecture)
        return row.part is Part.TEST, architecture, column[row.column_name], place[row.case]

    gaps = sorted([*found.gaps, *(gap for result in scored for gap in result.gaps)])
    return Results(
        rows=tuple(sorted((row for result in scored for row in result.rows), key=order)),
        baselines=tuple(sorted((row for result in scored for row in result.baselines), key=order)),
        lesions=tuple(sorted((row for result in scored for row in result.lesions), key=order)),
        cases={Part.CV: tuple(c for fold in split.folds for c in fold), Part.TEST: split.test},
        gaps=tuple(gaps),
        absent=found.absent,
        note=note,
    )


def build_document(results: Results) -> dict[str, Any]:
    """The content of ``summary.json``; what cannot be computed is None, which is written as null."""
    summary, of_baselines = summarise(results), summarise(results, baselines=True)
    compared = comparisons(results)
    add_standings(summary, of_baselines, results, compared)
    return {
        **summary,
        "baselines": of_baselines,
        "comparisons": compared,
        "rankings": rankings(results),
        "strata": strata(results),
        "lesions": lesion_detection(results),
        "threshold_crossings": threshold_crossings(results),
        "bland_altman": bland_altman(results),
        "claims": [verdict.to_json() for verdict in check_claims(summary, compared)],
        "gaps": [{"kind": g.kind, "where": g.where, "case": g.case, "detail": g.detail} for g in results.gaps],
        "absent_columns": list(results.absent),
        "unrecorded_models": list(results.unrecorded),
        "note": results.note,
        "settings": {
            "cases": {part.value: len(cases) for part, cases in results.cases.items()},
            "nsd_tolerance_mm": {s.value: mm for s, mm in NSD_TOLERANCE_MM.items()},
            "flr_percent_cutoffs": list(FLR_THRESHOLDS_PERCENT),
            "tie_margin": results.margin,
            "alpha": ALPHA,
            "bootstrap_resamples": RESAMPLES,
            "seed": SEED,
            "flrplan": flrplan.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }


def write(results: Results, files: dict[str, CaseFiles], settings: EvaluationSettings) -> dict[str, Path]:
    """Writes every output; each is complete or not there."""
    document = build_document(results)
    pictures = worst_pictures(results, files, settings.images_folder)
    texts: dict[str, Callable[[], str]] = {
        "cases.csv": lambda: cases_csv(results.rows, results.gaps),
        "baselines.csv": lambda: cases_csv(results.baselines),
        "lesions.csv": lambda: lesions_csv(results.lesions),
        **{table_name(p): lambda p=p: markdown_table(results, document, document["baselines"], p) for p in Part},  # type: ignore[misc]
        "report.html": lambda: build_report(results, document, pictures),
    }
    folder = settings.out_folder
    written = {name: folder / name for name in (*texts, "summary.json")}
    for name, text in texts.items():
        write_text(written[name], text())
    write_json(written["summary.json"], document)
    for gap in results.gaps:
        log.warning("left out: %s", gap)
    return written
