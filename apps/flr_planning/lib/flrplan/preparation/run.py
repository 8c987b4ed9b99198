"""Prepares a work folder from sources: every case on its own, then the tables and the split."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flrplan.errors import SettingsError
from flrplan.files import write_json, write_text
from flrplan.preparation.case import CaseTask, prepare_case
from flrplan.preparation.clinical import CLINICAL, Clinical, read_clinical
from flrplan.preparation.record import open_work_folder, read_records
from flrplan.preparation.sources import CaseSource, Problem, ProblemKind, SourceKind, left_out
from flrplan.preparation.table import dataset_csv, problems_csv
from flrplan.workfolder import Split, WorkFolder, map_cases, read_split

PROBLEMS = "left_out.csv"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareSettings:
    """What one run is asked to do.

    cases: only these ids; empty: all. split: the split of the work folder; its ids are the cases that are expected.
    allow_missing: cases that are missing are said but are no failure, and the split is written without them.
    force: complete cases are made anew. clinical: the clinical sheet (:mod:`flrplan.preparation.clinical`); None: what ``dataset.csv``
    has of it already stays.
    """

    out: Path
    kind: SourceKind
    cases: tuple[str, ...] = ()
    split: Path | None = None
    allow_missing: bool = False
    force: bool = False
    clinical: Path | None = None
    workers: int = 1
    progress: bool = True


@dataclass(frozen=True)
class Prepared:
    """Ids that are ready, those of them that were complete before, what was left out, and a sentence about the split."""

    ready: tuple[str, ...]
    kept: tuple[str, ...]
    problems: tuple[Problem, ...]
    split: str
    failed: bool


def expected_cases(sources: Sequence[CaseSource], settings: PrepareSettings) -> list[CaseSource]:
    """The sources of the asked cases; an expected case without a source comes as missing. Sorted by id.

    Raises: SettingsError where nothing is left, an id occurs twice, or cannot be a file name.
    """
    by_id = {s.case_id: s for s in sources}
    if len(by_id) != len(sources):
        ids = [s.case_id for s in sources]
        raise SettingsError(f"cases that occur twice: {sorted({i for i in ids if ids.count(i) > 1})[:10]}; rename one of each")
    unsafe = sorted(i for i in {*by_id, *settings.cases} if not i or Path(i).name != i or i.startswith(".") or "\\" in i)
    if unsafe:
        raise SettingsError(
            f"case ids become file names, but these cannot: {unsafe[:10]}; correct the table or rename the files"
        )
    wanted = set(settings.cases) or set(by_id)
    if not settings.cases and settings.split is not None:
        split = read_split(settings.split)
        wanted |= _ids(split)
    if not wanted:
        raise SettingsError("no cases to prepare")
    reason = "no such case in the source; download it, or leave it out with --allow-missing"
    return [by_id.get(case) or left_out(case, ProblemKind.MISSING, reason) for case in sorted(wanted)]


def prepare(sources: Sequence[CaseSource], settings: PrepareSettings) -> Prepared:
    """Writes images, labels, masks and records of every usable case, then ``dataset.csv``, ``left_out.csv``, ``splits.json``.

    A run that was stopped goes on; a case that cannot be used is left out with its reason. ``dataset.csv`` holds every
    complete case of the folder, also of earlier runs.

    Raises: SettingsError for a folder of another kind, a bad split or no cases. OutputError where nothing can be written.
    """
    cases = expected_cases(sources, settings)
    open_work_folder(settings.out, settings.kind)
    known = _clinical(settings, sorted({*(case.case_id for case in cases), *(r.case_id for r in read_records(settings.out))}))
    tasks = [CaseTask(case, settings.kind, settings.out, settings.force) for case in cases]
    running = map_cases(
        *(prepare_case, tasks, settings.workers, f"preparing from {settings.kind}"),
        name=lambda task: task.source.case_id,
        progress=settings.progress,
    )
    results = list(running)
    problems = tuple(r.problem for r in results if r.problem is not None)
    for problem in problems:
        _LOG.warning("%s", problem)
    records = read_records(settings.out)
    write_text(WorkFolder(settings.out).dataset, dataset_csv([{**r.row, **known.get(r.case_id, {})} for r in records]))
    write_text(settings.out / PROBLEMS, problems_csv(problems))
    fits, said = _write_split(settings, {r.case_id for r in records})
    serious = [p for p in problems if p.kind is ProblemKind.BROKEN or not settings.allow_missing]
    return Prepared(
        ready=tuple(r.case_id for r in results if r.problem is None),
        kept=tuple(r.case_id for r in results if r.kept),
        problems=problems,
        split=said,
        failed=bool(serious) or not fits,
    )


def _clinical(settings: PrepareSettings, cases: Sequence[str]) -> Clinical:
    """What is known of the cases by the sheet that was given, else by the table that is there."""
    if settings.clinical is not None:
        return read_clinical(settings.clinical, cases)
    path = WorkFolder(settings.out).dataset
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row.get("case", ""): {name: row.get(name) or "" for name in CLINICAL} for row in csv.DictReader(file)}


def _ids(split: Split) -> set[str]:
    return {*split.test, *(case for fold in split.folds for case in fold)}


def _write_split(settings: PrepareSettings, ready: set[str]) -> tuple[bool, str]:
    """Copies the split to the work folder where it covers the cases; returns whether that is so (or was not asked), and words."""
    path = WorkFolder(settings.out).splits
    if settings.split is None:
        return (
            True,
            f"no split was given; draw one with benchmark/draw_split.py --dataset {WorkFolder(settings.out).dataset} --out {path}",
        )
    split = read_split(settings.split)
    missing, extra = sorted(_ids(split) - ready), sorted(ready - _ids(split))
    if extra:
        return False, f"{path} was not written: {settings.split} does not name {', '.join(extra)}"
    if missing and not settings.allow_missing:
        if settings.cases:
            return True, f"{path} was not written: only some cases of {settings.split} were asked for"
        return (
            False,
            f"{path} was not written: {len(missing)} cases of {settings.split} are not there (--allow-missing drops them)",
        )
    kept = Split(
        tuple(tuple(c for c in fold if c in ready) for fold in split.folds), tuple(c for c in split.test if c in ready)
    )
    if any(not fold for fold in kept.folds):
        return False, f"{path} was not written: without the missing cases a fold is empty"
    write_json(path, {"test": kept.test, "folds": kept.folds})
    return True, f"{path} is {settings.split}" + (f" without {', '.join(missing)}" if missing else "")
