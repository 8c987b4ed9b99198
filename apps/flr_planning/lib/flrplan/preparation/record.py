"""The record of a prepared case, written last: without one that fits, the case is prepared anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from flrplan.errors import OutputError, SettingsError
from flrplan.files import is_junk, write_json
from flrplan.preparation.segment_roles import VEINS
from flrplan.preparation.sources import CaseSource, SourceKind
from flrplan.workfolder import IMAGE_SUFFIX, TRUTH, WorkFolder

RECORD_VERSION = 1
RECORDS = "prepared"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Record:
    """What was made of which source. ``outputs``: path in the work folder to SHA-256. ``row``: the line of dataset.csv."""

    case_id: str
    kind: SourceKind
    stamp: str
    outputs: Mapping[str, str]
    row: Mapping[str, Any]


def output_paths(case_id: str) -> dict[str, str]:
    """The files that each case has in a work folder: ``image``, ``label`` and each structure of the truth."""
    masks = {str(s): f"masks/{case_id}/{s}{IMAGE_SUFFIX}" for s in TRUTH}
    return {"image": f"images/{case_id}{IMAGE_SUFFIX}", "label": f"labels/{case_id}{IMAGE_SUFFIX}", **masks}


def sha256_of(files: Sequence[Path]) -> str:
    """SHA-256 of one file; of several, that of their digests (hex, one after the other, in the order given)."""
    digests = []
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        digests.append(digest.hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def stamp_of(source: CaseSource) -> str:
    """Changes with what the source says and with any of its files (name, size, time of change); opens no file."""
    files = [*source.image_files(), *source.label_files(), *source.instance_files()]
    state = [(str(p), (stat := p.stat()).st_size, stat.st_mtime_ns) for p in files]
    return hashlib.sha256(repr((RECORD_VERSION, source, state)).encode()).hexdigest()


def record_path(out: Path, case_id: str) -> Path:
    """Where the record of a case lies."""
    return out / RECORDS / f"{case_id}.json"


def write_record(out: Path, record: Record) -> None:
    """Writes the record. Raises OutputError."""
    content = {"version": RECORD_VERSION, "case": record.case_id, "kind": record.kind, "stamp": record.stamp}
    write_json(record_path(out, record.case_id), {**content, "outputs": record.outputs, "row": record.row})


def read_record(path: Path) -> Record | None:
    """A record; None where there is none, or one that this version does not read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != RECORD_VERSION:
            return None
        kind = SourceKind(content["kind"])
        return Record(str(content["case"]), kind, str(content["stamp"]), dict(content["outputs"]), dict(content["row"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_records(out: Path) -> list[Record]:
    """Every readable record of a work folder, sorted by case."""
    found = (read_record(p) for p in sorted((out / RECORDS).glob("*.json")) if not is_junk(p))
    return [r for r in found if r is not None]


def is_complete(out: Path, record: Record | None, stamp: str | None) -> bool:
    """True if the record is of this source and every file is still what was written (read again in full).

    ``stamp`` None: the source is gone (a download deleted to save room), and what was made of it is judged alone.
    """
    if record is None or (stamp is not None and record.stamp != stamp):
        return False
    files = {out / name: digest for name, digest in record.outputs.items()}
    return all(p.is_file() and sha256_of([p]) == digest for p, digest in files.items())


def remove_case(out: Path, case_id: str) -> None:
    """Removes the record first, then the files of a case, so that no half of it is left. Raises OutputError."""
    try:
        record_path(out, case_id).unlink(missing_ok=True)
        instances = WorkFolder(out).instances / case_id
        veins = [WorkFolder(out).vein(case_id, name) for name in VEINS]
        paths = [*(out / name for name in output_paths(case_id).values()), *instances.glob("layer*.nii.gz"), *veins]
        paths += instances.glob(".part-*-layer*.nii.gz")
        for path in paths:
            path.unlink(missing_ok=True)
            for part in path.parent.glob(f".part-*-{escape(path.name)}"):  # of a run that was killed while it wrote
                part.unlink(missing_ok=True)
        for folder in (WorkFolder(out).masks / case_id, instances, WorkFolder(out).veins / case_id):
            with suppress(OSError):  # not there, or it holds files that are not ours
                folder.rmdir()
    except OSError as error:
        raise OutputError(f"could not remove old files of case {case_id} in {out}: {error}") from error


def open_work_folder(out: Path, kind: SourceKind) -> None:
    """Makes the folder of records, by which a work folder is known from its first moment on.

    Raises: SettingsError where it holds cases of another kind, or images that were not prepared here. OutputError.
    """
    other = sorted({str(r.kind) for r in read_records(out)} - {str(kind)})
    if other:
        raise SettingsError(f"{out} holds cases prepared from {', '.join(other)}, not {kind}; give a work folder of its own")
    images = sorted(p.name for p in WorkFolder(out).images.glob(f"*{IMAGE_SUFFIX}") if not is_junk(p))
    if images and not (out / RECORDS).is_dir():
        raise SettingsError(f"{out} holds images that were not prepared here, such as {images[0]}; give an empty folder")
    try:
        (out / RECORDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"could not make {out / RECORDS}: {error}; check that the folder is writable") from error
