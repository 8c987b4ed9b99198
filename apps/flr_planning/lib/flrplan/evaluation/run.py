"""One evaluation from folders to files: finds, checks, scores in parallel, summarises, writes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import scipy

import flrplan
from flrplan.errors import SettingsError
from flrplan.evaluation.breakdowns import (
    bland_altman,
    flr_percent_agreement,
    lesion_detection,
    lesion_sources,
    strata,
    threshold_crossings,
)
from flrplan.evaluation.checklist import checklist
from flrplan.evaluation.claims import check_claims
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.comparisons import comparisons, rankings
from flrplan.evaluation.files import cases_csv, lesions_csv
from flrplan.evaluation.fixed_plane import LiverSample, fit_planes, planes_json, sample_case
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
    with_instances,
)
from flrplan.evaluation.original import summarise_original, with_original
from flrplan.evaluation.paper import architecture_order
from flrplan.evaluation.pictures import worst_pictures
from flrplan.evaluation.power import POWER, detectable
from flrplan.evaluation.probabilities import ProbabilityRow, find_probabilities, summarise_probabilities, with_probabilities
from flrplan.evaluation.provenance import model_records
from flrplan.evaluation.report import build_report
from flrplan.evaluation.rows import CaseResult, LesionRow, Row
from flrplan.evaluation.scoring import score_case
from flrplan.evaluation.settings import EvaluationSettings
from flrplan.evaluation.standings import add_standings
from flrplan.evaluation.statistics import ALPHA, RESAMPLES, SEED
from flrplan.evaluation.subgroups import read_clinical
from flrplan.evaluation.summary import Results, summarise
from flrplan.evaluation.tables import markdown_table, table_name
from flrplan.evaluation.trained import require_unseen
from flrplan.evaluation.variants import is_ensemble, variants_of
from flrplan.files import make_writable, write_json, write_text
from flrplan.image import natural_key
from flrplan.metrics.catalogue import NSD_TOLERANCE_MM
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT, OWN
from flrplan.workfolder import Split, map_cases, read_split

log = logging.getLogger(__name__)


def evaluate(settings: EvaluationSettings) -> dict[str, Path]:
    """Runs one evaluation; returns the files written, by name.

    Writes ``cases.csv``, ``baselines.csv``, ``lesions.csv``, ``summary.json``, ``table1.md``, ``table2.md``, ``checklist.md``, ``report.html``.
    Raises: SettingsError for folders and splits that cannot be used; LabelError naming every missing, extra or broken case
        unless ``allow_missing``; OutputError for a folder that cannot be written to. Nothing is written then.
    """
    found, split, unrecorded = find(settings)
    clinical = read_clinical(settings.work, {case.case for case in found.cases})
    with _writable_folder(settings.out_folder):
        if not settings.allow_missing:
            require_no_gaps(sorted([*found.gaps, *header_gaps(found.cases)]), allow_missing=False)
            if settings.predictions is None:
                require_columns(found.absent, settings.absent)
        planes = fit_planes(read_samples(found.cases, settings.workers))
        name = attrgetter("case")
        scored = list(map_cases(partial(score_case, planes=planes), found.cases, settings.workers, "scoring", name=name))
        variants = variants_of(settings.models_work, found.architectures)
        models = model_records(settings.models_work, [row for row in found.architectures if not is_ensemble(variants[row])])
        results = collect(scored, found, split, settings.table_note)
        results = replace(results, unrecorded=unrecorded, models=models, variants=variants, clinical=clinical)
        results = replace(results, planes=planes, original_missing=found.without_original, margin=settings.margin)
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
    if settings.instances_folder is not None:
        labels = with_instances(labels, settings.instances_folder)
    predictions = find_predictions(settings.predictions_folder, settings.out_folder)
    of_work = settings.models_work
    unrecorded = require_unseen(of_work, predictions, split, settings.splits_file) if of_work else ()
    found = match_cases(labels, predictions, split)
    if settings.original is not None:
        cases, missing = with_original(found.cases, settings.original)
        found = replace(found, cases=cases, without_original=missing)
    if settings.probabilities_folder is not None:
        found = with_probabilities(found, find_probabilities(settings.probabilities_folder))
    return found, split, unrecorded


def read_samples(cases: Sequence[CaseFiles], workers: int) -> list[LiverSample]:
    """The first pass: samples of the livers of all folds, in natural order of the cases."""
    of_folds = [case for case in cases if case.fold is not None]
    running = map_cases(sample_case, of_folds, workers, "fixed plane", name=attrgetter("case"))
    return sorted((sample for sample in running if sample is not None), key=lambda sample: natural_key(sample.case))


def collect(scored: Sequence[CaseResult], found: Found, split: Split, note: str) -> Results:
    """The results of all workers in a fixed order."""
    place = {case.case: k for k, case in enumerate(found.cases)}
    rank = {name: k for k, name in enumerate(architecture_order(set(found.architectures)))}
    column = {name: k for k, name in enumerate(COLUMNS)}

    def order(row: Row | LesionRow | ProbabilityRow) -> tuple[Any, ...]:
        # A baseline's name is no architecture: baselines keep to their own names' order.
        architecture = (rank.get(row.architecture, len(rank)), row.architecture)
        return row.part is Part.TEST, architecture, column[row.column_name], place[row.case]

    gaps = sorted([*found.gaps, *(gap for result in scored for gap in result.gaps)])
    return Results(
        rows=tuple(sorted((row for result in scored for row in result.rows), key=order)),
        baselines=tuple(sorted((row for result in scored for row in result.baselines), key=order)),
        original=tuple(sorted((row for result in scored for row in result.original), key=order)),
        lesions=tuple(sorted((row for result in scored for row in result.lesions), key=order)),
        probabilities=tuple(sorted((row for result in scored for row in result.probabilities), key=order)),
        cases={Part.CV: tuple(c for fold in split.folds for c in fold), Part.TEST: split.test},
        gaps=tuple(gaps),
        absent=found.absent,
        unscored_probabilities=found.unscored_probabilities,
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
        "original_labels": summarise_original(results),
        "fixed_planes": planes_json(results.planes),
        "comparisons": compared,
        "detectable": {"alpha": ALPHA, "power": POWER, "pairs": detectable(results, compared)},
        "rankings": rankings(results),
        "strata": strata(results),
        "lesions": lesion_detection(results),
        "lesions_from": lesion_sources(results),
        "probabilities": summarise_probabilities(results.probabilities),
        "unscored_probabilities": list(results.unscored_probabilities),
        "threshold_crossings": threshold_crossings(results),
        "threshold_crossings_own": threshold_crossings(results, OWN),
        "flr_percent_agreement": flr_percent_agreement(results),
        "flr_percent_agreement_own": flr_percent_agreement(results, OWN),
        "bland_altman": bland_altman(results),
        "claims": [verdict.to_json() for verdict in check_claims(summary, compared, results.models)],
        "gaps": [{"kind": g.kind, "where": g.where, "case": g.case, "detail": g.detail} for g in results.gaps],
        "absent_columns": list(results.absent),
        "unrecorded_models": list(results.unrecorded),
        "models": {record.architecture: record.to_json() for record in results.models},
        "variants": {row: list(own) for row, own in results.variants.items() if own},
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
    # All of it is made before the first file is written, so a run that is killed leaves no mixture of two evaluations.
    texts = {
        "cases.csv": cases_csv(results.rows, results.gaps),
        "baselines.csv": cases_csv((*results.baselines, *results.original)),
        "lesions.csv": lesions_csv(results.lesions),
        **{table_name(part): markdown_table(results, document, document["baselines"], part) for part in Part},
        "checklist.md": checklist(results, document),
        "report.html": build_report(results, document, pictures),
    }
    folder = settings.out_folder
    written = {name: folder / name for name in (*texts, "summary.json")}
    for name, text in texts.items():
        write_text(written[name], text)
    write_json(written["summary.json"], document)
    for line in results.unscored_probabilities:
        log.warning("%s", line)
    for gap in results.gaps:
        log.warning("left out: %s", gap)
    return written


@contextmanager
def _writable_folder(folder: Path) -> Iterator[None]:
    """Makes a folder and tries to write into it, before hours of work; if the block fails, what it made and left empty is removed.

    Raises: OutputError where it cannot be made or written to.
    """
    made: list[Path] = []
    try:
        with suppress(OSError):  # a name that is too long, which is told below
            made += [path for path in (folder, *folder.parents) if not path.exists()]
        make_writable(folder, "give another folder with --out")
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
