"""TCIA's download of Colorectal-Liver-Metastases as the NBIA Data Retriever leaves it: ``metadata.csv`` and series folders.

The table names each series' folder; on Windows with backslashes, and after a move with parts that no longer exist. Paths are
therefore matched by their end, folder by folder, and without regard to case where the exact name is not there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from flrplan.errors import ImageError
from flrplan.files import entries, files_below, read_table
from flrplan.image.dicom_files import is_dicom
from flrplan.preparation.sources import CaseSource, Problem, ProblemKind, SegLabel, left_out

TABLE = "metadata.csv"
NEEDED_COLUMNS = ("Subject ID", "Modality", "File Location")
_SERIES_UID, _COUNT = "Series UID", "Number of Images"


@dataclass(frozen=True)
class SeriesRow:
    """One line of ``metadata.csv``: a series of a subject, and where the table says that it lies."""

    subject: str
    modality: str
    location: str
    uid: str | None
    images: int | None
    root: Path


def find_tcia_cases(root: Path) -> list[CaseSource]:
    """One source per subject of ``<root>/metadata.csv`` (or of every ``<root>/*/metadata.csv``), sorted by id.

    A subject without a CT or SEG, with several of them, or whose folder is not there comes back with its problem.

    Raises: ImageError where there is no table, or it lacks a column.
    """
    tables = [root / TABLE] if (root / TABLE).is_file() else [p / TABLE for p in entries(root) if (p / TABLE).is_file()]
    if not tables:
        raise ImageError(f"{root}: no {TABLE}; give the folder that the NBIA Data Retriever wrote (it holds {TABLE})")
    by_subject: dict[str, dict[tuple[str, str], SeriesRow]] = defaultdict(dict)
    for table in tables:
        for row in read_series_table(table):
            by_subject[row.subject][row.modality, row.uid or row.location] = row  # a resumed download repeats its lines
    return [_case(subject, list(rows.values())) for subject, rows in sorted(by_subject.items())]


def read_series_table(path: Path) -> list[SeriesRow]:
    """The CT and SEG lines of a ``metadata.csv``. Raises ImageError for a table that cannot be read or lacks a column."""
    rows = []
    for line in read_table(path, ImageError):
        cells = {name.lower(): cell for name, cell in line.items()}
        lacking = [c for c in NEEDED_COLUMNS if c.lower() not in cells]
        if lacking:
            raise ImageError(f"{path}: expected the columns {', '.join(NEEDED_COLUMNS)}, missing {', '.join(lacking)}")
        modality = cells["modality"].upper()
        if modality not in ("CT", "SEG") or not cells["subject id"]:
            continue
        count = cells.get(_COUNT.lower(), "")
        uid = cells.get(_SERIES_UID.lower()) or None
        images = int(count) if count.isdigit() else None
        rows.append(SeriesRow(cells["subject id"], modality, cells["file location"], uid, images, path.parent))
    return rows


def locate(row: SeriesRow) -> Path | None:
    """The folder or file of a series: the longest end of its location that exists below the table's folder, or None.

    An end must still name the subject where the location does: a folder of another subject is never taken.
    """
    parts = [p for p in row.location.replace("\\", "/").split("/") if p not in ("", ".")]
    for start in range(len(parts)):
        tail = parts[start:]
        if ".." in tail or (row.subject in parts and row.subject not in tail):
            continue
        found = _descend(row.root, tail)
        if found is not None:
            return found
    return None


def _descend(folder: Path, parts: list[str]) -> Path | None:
    for part in parts:
        exact = folder / part
        if not exact.exists():
            alike = [p for p in entries(folder) if p.name.lower() == part.lower()] if folder.is_dir() else []
            if len(alike) != 1:
                return None
            exact = alike[0]
        folder = exact
    return folder


def _case(subject: str, rows: list[SeriesRow]) -> CaseSource:
    image = _one_series(subject, "CT", rows)
    if not isinstance(image, tuple):
        return image
    case = CaseSource(subject, image[1], None, image[0].uid, image[0].images)
    label = _one_series(subject, "SEG", rows)
    if not isinstance(label, tuple):
        return replace(case, problem=label.problem)  # the CT is kept: labels may come from elsewhere
    seg = _seg_file(label[1])
    if isinstance(seg, str):
        kind = ProblemKind.MISSING if seg.startswith("no ") else ProblemKind.BROKEN
        return replace(case, problem=Problem(subject, kind, seg))
    return replace(case, labels=SegLabel(seg))


def _one_series(subject: str, modality: str, rows: list[SeriesRow]) -> tuple[SeriesRow, Path] | CaseSource:
    own = [r for r in rows if r.modality == modality]
    if not own:
        return left_out(subject, ProblemKind.MISSING, f"{TABLE} lists no {modality}; download it, then run again")
    if len(own) > 1:
        listed = ", ".join(r.uid or r.location for r in own)
        return left_out(subject, ProblemKind.BROKEN, f"{TABLE} lists {len(own)} {modality} series, expected one: {listed}")
    place = locate(own[0])
    if place is None:
        reason = f"{modality} folder {own[0].location!r} of {TABLE} is not below {own[0].root}; download it, then run again"
        return left_out(subject, ProblemKind.MISSING, reason)
    return own[0], place


def _seg_file(place: Path) -> Path | str:
    """The one DICOM file of a SEG series, or what is wrong, in words."""
    if place.is_file():
        return place
    files = [p for p in files_below(place) if p.is_file() and is_dicom(p)]
    if len(files) == 1:
        return files[0]
    return (
        f"no DICOM SEG in {place}; download it again" if not files else f"{len(files)} DICOM files in {place}, expected one SEG"
    )
