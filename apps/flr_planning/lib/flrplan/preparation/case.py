"""Prepares one case: reads CT and truth, writes the files of the work folder, and the record last."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flrplan.anatomy import to_compartments
from flrplan.errors import FlrError, ImageError, OutputError
from flrplan.image import CT, read_ct, write_label_map, write_volume
from flrplan.preparation.record import (
    Record,
    is_complete,
    output_paths,
    read_record,
    record_path,
    remove_case,
    sha256_of,
    stamp_of,
    write_record,
)
from flrplan.preparation.sources import CaseSource, Problem, ProblemKind, SourceKind
from flrplan.preparation.table import dataset_row
from flrplan.preparation.truth import Truth, read_truth_of
from flrplan.workfolder import WorkFolder, write_instances

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseTask:
    """One case, where it goes, and whether a complete one is made anew."""

    source: CaseSource
    kind: SourceKind
    out: Path
    force: bool = False


@dataclass(frozen=True)
class CaseResult:
    """``kept``: it was complete already. ``problem``: why it was left out, then nothing of it is in the work folder."""

    case_id: str
    kept: bool = False
    problem: Problem | None = None


def prepare_case(task: CaseTask) -> CaseResult:
    """Prepares one case, or keeps it. A case that cannot be used comes back with its problem and leaves no file.

    Raises: OutputError where the work folder cannot be written: that is nothing of this case.
    """
    source, out = task.source, task.out
    try:
        record = read_record(record_path(out, source.case_id))
        if source.problem is not None:
            if source.problem.kind is ProblemKind.MISSING and is_complete(out, record, None):
                return CaseResult(source.case_id, kept=True)
            remove_case(out, source.case_id)
            return CaseResult(source.case_id, problem=source.problem)
        stamp = stamp_of(source)
        if not task.force and is_complete(out, record, stamp):
            return CaseResult(source.case_id, kept=True)
        remove_case(out, source.case_id)
        _prepare(task, stamp)
    except OutputError:
        raise
    except FlrError as error:
        return _broken(task, str(error))
    except Exception as error:  # a file nobody thought of: it costs its case, not the other 196; the log says where
        _LOG.exception("case %s", source.case_id)
        return _broken(task, f"unexpected {type(error).__name__}: {error}")
    return CaseResult(source.case_id)


def _broken(task: CaseTask, reason: str) -> CaseResult:
    remove_case(task.out, task.source.case_id)
    return CaseResult(task.source.case_id, problem=Problem(task.source.case_id, ProblemKind.BROKEN, reason))


def _prepare(task: CaseTask, stamp: str) -> None:
    source, out = task.source, task.out
    image_files, label_files = source.image_files(), source.label_files()
    ct = _read_image(source, image_files)
    truth = read_truth_of(source, ct)
    planning, lost = to_compartments(truth.liver, truth.crlm, truth.flr)
    of_labels, of_instances = ([sha256_of([p]) for p in files] for files in (label_files, source.instance_files()))
    hashes = (sha256_of(image_files), of_labels, of_instances)
    row = dataset_row(source, task.kind, ct, truth, lost, hashes)
    names = output_paths(source.case_id)
    for structure, mask in _masks(truth).items():
        write_label_map(out / names[structure], mask, ct.geometry)
    for name, vein in truth.veins.items():
        write_label_map(WorkFolder(out).vein(source.case_id, name), vein, ct.geometry)
    layers = []
    if truth.instances is not None:
        layers = write_instances(WorkFolder(out).instances / source.case_id, truth.instances, ct.geometry)
    write_label_map(out / names["label"], planning, ct.geometry)
    write_volume(out / names["image"], ct.array_zyx, ct.geometry)  # last: a folder of images holds no case without a label
    of_veins = [WorkFolder(out).vein(source.case_id, name) for name in truth.veins]
    written = [*names.values(), *(path.relative_to(out).as_posix() for path in (*layers, *of_veins))]
    outputs = {name: sha256_of([out / name]) for name in written}
    write_record(out, Record(source.case_id, task.kind, stamp, outputs, row))


def _masks(truth: Truth) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    return {"liver": truth.liver, "crlm": truth.crlm, "flr": truth.flr}


def _read_image(source: CaseSource, files: list[Path]) -> CT:
    if source.image is None or not files:
        raise ImageError(f"case {source.case_id}: no image in {source.image}; download it again")
    if source.images_expected is not None and source.image.is_dir() and len(files) != source.images_expected:
        raise ImageError(
            f"{source.image}: metadata.csv announces {source.images_expected} images, found {len(files)}; download the series again"
        )
    return read_ct(source.image, source.series)
