"""Writes a cohort: images, planning maps and one table of facts; a broken run goes on where it stopped.

With faults, ``labels/`` hold the faulty maps, ``truth/`` the right ones, ``masks/<case>/`` the binary structures of a label that
a map cannot hold (:mod:`flrplan.workfolder.cases`), and ``faults.json`` says what is wrong where.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from flrplan.anatomy import PLANNED, Structure
from flrplan.cohort.asked_faults import parse_kinds, plant_asked_faults
from flrplan.cohort.case import make_case
from flrplan.cohort.faults import plant_faults
from flrplan.cohort.settings import COHORT_VERSION, FAULTS_NAME, CohortSettings, case_name
from flrplan.errors import CohortError, SettingsError
from flrplan.files import write_json
from flrplan.image import write_label_map, write_volume
from flrplan.workfolder import WorkFolder, map_cases, read_record, require_same

TABLE_NAME = "cohort.json"
"""Settings, version and facts per case; ``complete`` is true once every case is there."""

_FAULTS_KEY = "label_faults"

_VOLUME_FOLDERS = ("images", "labels", "truth", "masks", "facts")
_DICOM_FOLDER = "dicom"
_OURS = "synth-*-[0-9][0-9][0-9][0-9]"
OUR_SLICES = "slice_[0-9][0-9][0-9][0-9].dcm"
"""Files of a DICOM series that a cohort wrote."""

_LOG = logging.getLogger(__name__)


def image_path(out_dir: Path, case_id: str) -> Path:
    """Where the CT of a case is stored, HU int16."""
    return out_dir / "images" / f"{case_id}.nii.gz"


def label_path(out_dir: Path, case_id: str) -> Path:
    """Where the planning map of a case is stored, uint8."""
    return out_dir / "labels" / f"{case_id}.nii.gz"


def truth_path(out_dir: Path, case_id: str) -> Path:
    """Where the true planning map of a case is stored, if its cohort has label faults."""
    return out_dir / "truth" / f"{case_id}.nii.gz"


def mask_path(out_dir: Path, case_id: str, structure: Structure) -> Path:
    """Where a binary structure is stored, if the planning map cannot hold the label of a case."""
    return out_dir / "masks" / case_id / f"{structure}.nii.gz"


def dicom_folder(out_dir: Path, case_id: str) -> Path:
    """Where the DICOM series of a case lies, if its cohort has them (:mod:`flrplan.cohort.write_dicom`)."""
    return out_dir / _DICOM_FOLDER / case_id


def facts_path(out_dir: Path, case_id: str) -> Path:
    """Where the facts of a case lie; written last, so its presence says that the case is complete."""
    return out_dir / "facts" / f"{case_id}.json"


def write_cohort(settings: CohortSettings, out_dir: Path, workers: int = 1, force: bool = False, progress: bool = True) -> Path:
    """Writes ``images/``, ``labels/`` (planning maps) and ``cohort.json``; returns the path of ``cohort.json``.

    A folder with the same settings is continued: complete cases stay as they are. ``force`` writes every case anew. Every worker
    holds one case at a time: about 0.3 GB for a small one, 1.3 GB for a full one of 240 slices.

    Raises:
        CohortError: the folder holds a cohort of other settings or another version, or files of unknown origin.
        CohortError: a worker was killed. SettingsError: ``workers`` is not positive, an unknown kind of fault. OutputError: a file could not be written.
    """
    if workers < 1:
        raise SettingsError(f"workers must be at least 1, got {workers}")
    parse_kinds(settings.fault_kinds)
    out_dir = Path(out_dir)
    _check_folder(settings, out_dir, force)
    if force:
        _remove_old(out_dir)
    _remove_half_written(out_dir)
    write_json(out_dir / TABLE_NAME, _table(settings, out_dir))
    todo = [i for i in settings.indices if not _is_complete(settings, out_dir, case_name(settings.seed, i))]
    _LOG.info("cohort %s: %d of %d cases to make", out_dir, len(todo), settings.cases)
    make = partial(_write_case, settings, out_dir)
    for _ in map_cases(make, todo, workers, "synthetic cohort", name=partial(case_name, settings.seed), progress=progress):
        pass
    table = _table(settings, out_dir)
    if settings.faults:
        write_json(out_dir / FAULTS_NAME, _fault_table(settings, table["cases"]))
    write_json(out_dir / TABLE_NAME, table)
    return out_dir / TABLE_NAME


def _write_case(settings: CohortSettings, out_dir: Path, index: int) -> None:
    case = make_case(settings.seed, index, settings.size, settings.is_wide(index))
    facts = {"case_id": case.case_id, **case.facts}
    planning = case.planning_zyx
    hu, grid, label_grid = case.hu_zyx, case.geometry, case.geometry
    if settings.faults:
        label = (
            plant_asked_faults(case, settings.seed, index, settings.faults, settings.fault_kinds)
            if settings.fault_kinds
            else plant_faults(case, settings.seed, index, settings.faults)
        )
        view, grid, label_grid = label.view or ..., label.image_geometry or case.geometry, label.geometry
        hu = case.hu_zyx[view]
        write_label_map(truth_path(out_dir, case.case_id), planning[view], grid)
        planning, lost = label.planning_map()
        masks = dict(zip(PLANNED, (label.liver, label.crlm, label.flr), strict=True))
        if label.lrs is not None:
            masks[Structure.LRS] = label.lrs
        for structure, mask in masks.items():
            if lost.findings() or label.lrs is not None:
                write_label_map(mask_path(out_dir, case.case_id, structure), mask, label_grid)
        facts[_FAULTS_KEY] = [fault.as_dict() for fault in label.faults]
    write_label_map(label_path(out_dir, case.case_id), planning, label_grid)
    # Last of the volumes: a folder of images holds no case without a label.
    write_volume(image_path(out_dir, case.case_id), hu, grid)
    write_json(facts_path(out_dir, case.case_id), facts)


def _is_complete(settings: CohortSettings, out_dir: Path, case_id: str) -> bool:
    volumes = (image_path, label_path, *((truth_path,) if settings.faults else ()))
    there = (path(out_dir, case_id) for path in volumes)
    return all(path.is_file() and path.stat().st_size > 0 for path in there) and bool(_read_facts(out_dir, case_id))


def _read_facts(out_dir: Path, case_id: str) -> dict[str, Any]:
    """The facts of a case, nothing where they are missing or damaged."""
    try:
        facts = json.loads(facts_path(out_dir, case_id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _fault_table(settings: CohortSettings, cases: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "share": settings.faults,
        "cases": [{"case_id": case["case_id"], "faults": case[_FAULTS_KEY]} for case in cases],
    }


def _table(settings: CohortSettings, out_dir: Path) -> dict[str, Any]:
    cases = [case_name(settings.seed, i) for i in settings.indices]
    ready = [c for c in cases if _is_complete(settings, out_dir, c)]
    facts = [_read_facts(out_dir, c) for c in ready]
    return {
        "version": COHORT_VERSION,
        "settings": settings.as_dict(),
        "complete": len(ready) == len(cases),
        "cases": facts,
    }


def _check_folder(settings: CohortSettings, out_dir: Path, force: bool) -> None:
    table = out_dir / TABLE_NAME
    if not table.is_file():
        held = sorted(p.name for p in out_dir.iterdir() if p != WorkFolder(out_dir).workflow) if out_dir.is_dir() else []
        if held:
            raise CohortError(
                f"{out_dir} is not empty and holds no {TABLE_NAME} (found {', '.join(held[:4])}); give an empty folder"
            )
        return
    if force:
        return
    found = read_record(table, CohortError)
    try:
        before = {"version": found["version"], "settings": CohortSettings(**found["settings"]).as_dict()}
    except (ValueError, KeyError, TypeError) as error:
        raise CohortError(
            f"{table} is not a table of a synthetic cohort ({error}); give another folder, or --force (force=True)"
        ) from error
    now = {"version": COHORT_VERSION, "settings": settings.as_dict()}
    remedy = "give another folder, or --force (force=True) to replace it"
    require_same(before, now, f"{out_dir}: the cohort there", remedy, CohortError)


def _remove_half_written(out_dir: Path) -> None:
    """Removes what a killed run left beside its place: a file, or the folder of a DICOM series."""
    for folder in (*_VOLUME_FOLDERS, _DICOM_FOLDER):
        for part in list((out_dir / folder).rglob(".part-*-synth-*")):
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()


def _remove_old(out_dir: Path) -> None:
    """Removes the files of an earlier cohort, and nothing else: those named as it names them, in its folders."""
    for folder, ending in (("facts", "json"), ("labels", "nii.gz"), ("truth", "nii.gz"), ("images", "nii.gz")):
        for path in (out_dir / folder).glob(f"{_OURS}.{ending}"):
            path.unlink()
    for case in (out_dir / "masks").glob(_OURS):
        _remove_from(case, [mask_path(out_dir, case.name, structure) for structure in Structure])
    for series in (out_dir / _DICOM_FOLDER).glob(_OURS):
        _remove_from(series, series.glob(OUR_SLICES))
    (out_dir / FAULTS_NAME).unlink(missing_ok=True)


def _remove_from(folder: Path, files: Iterable[Path]) -> None:
    for path in list(files):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # somebody's own file in it stays, and its folder
        folder.rmdir()
