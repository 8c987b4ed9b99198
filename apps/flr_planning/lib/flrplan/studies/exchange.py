"""Labels in and out of a studies folder: cases of a work folder become studies, and what was confirmed becomes a data set to publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flrplan import __version__
from flrplan.anatomy import APPEARANCE, PLANNED, Compartment, Mask, PlanningLabel, Structure, to_compartments, to_label_map
from flrplan.errors import FlrError, LabelError, OutputError
from flrplan.files import link, read_json, replacing, sha256_of_file, write_json, write_text
from flrplan.image import Geometry, case_names, find_cases, read_ct, read_grid, write_label_map
from flrplan.image.segmentation import read_segmentation
from flrplan.studies.folder import StudiesFolder
from flrplan.studies.names import ORIGINAL
from flrplan.studies.review import CaseReview, LabelUse
from flrplan.studies.stored import StoredImage
from flrplan.workfolder import Case, find_labelled_cases

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
SCHEMA = 1

Names = Callable[[Mapping[str, Any], str], dict[str, int]]
"""Label names and values from what is kept beside a label."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Exchanged:
    """What came through, and what did not, with the reason; both by case."""

    done: tuple[str, ...]
    left_out: Mapping[str, str]


# In


def import_cases(work: Path, studies: Path, tell: Tell) -> Exchanged:
    """Makes a study of each case of a work folder: its CT, and its truth as one map that a client can edit, under the tag ``original``.

    Done again, only what differs is written; labels that people submitted are never touched.
    Raises: LabelError where ``work`` is no work folder; OutputError where the studies folder cannot be written. Other errors of a
        case leave that case out.
    """
    cases = find_labelled_cases(work)
    try:
        studies.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{studies} cannot be made ({error.strerror}); choose another folder") from error
    folder = StudiesFolder(studies)
    done, out = [], {}
    for case in cases:
        try:
            note = _import(case, folder)
        except OutputError:
            raise
        except FlrError as error:
            out[case.case_id] = " ".join(str(error).split())
            tell(f"{case.case_id}: left out: {out[case.case_id]}")
            continue
        done.append(case.case_id)
        tell(f"{case.case_id}: {note}")
    return Exchanged(tuple(done), out)


def _import(case: Case, folder: StudiesFolder) -> str:
    grid = read_grid(case.image)
    held = [s for s in PLANNED if case.truth.file_of(s) is not None]
    masks, _ = case.truth.read(held, case.case_id, grid, str(case.image))
    notes = []
    if len(held) == len(PLANNED):
        array, lost = to_compartments(*(masks[s] for s in PLANNED))
        names = {c.label_name: int(c) for c in Compartment}
        notes = lost.findings()
    else:
        array, names = to_label_map(PlanningLabel(masks), f"the labels of {case.case_id}")
    present = {name: value for name, value in names.items() if (array == value).any()}
    info = {
        "label_info": [{"name": n, "idx": i} for n, i in names.items()],
        "params": {"label_names": present},  # 3D Slicer takes the names of an original label from here
        "origin": {"description": "imported label", "work_folder_case": case.case_id, "notes": notes},
    }
    known = folder.scan().get(case.case_id)
    with TemporaryDirectory(prefix="flrplan_label_") as temporary:
        file = Path(temporary, "label.nii.gz")
        write_label_map(file, array, grid)
        if known is None or sha256_of_file(known.path) != sha256_of_file(case.image):
            folder.save_image(case.case_id, case.image, {})
        before = folder.label(case.case_id, ORIGINAL)
        same = before is not None and folder.is_same_label(before, file, info)
        if not same:
            folder.save_label(case.case_id, ORIGINAL, file, info)
    return "; ".join(["as it was" if same else f"imported, labels {', '.join(map(str, held))}", *notes])


# Out


@dataclass(frozen=True)
class ExportRequest:
    """use: confirmed labels alone, or all that count. dicom: folder with the DICOM series of the cases, for SEGs. images: CTs as well."""

    studies: Path
    out: Path
    use: LabelUse = LabelUse.APPROVED
    dicom: Path | None = None
    images: bool = False


@dataclass
class _Readers:
    """Who drew and confirmed, as numbers in the order of their first label: names are not published."""

    known: dict[str, str] = field(default_factory=dict)

    def number(self, name: str) -> str | None:
        return self.known.setdefault(name, f"reader {len(self.known) + 1}") if name else None


def export_labels(request: ExportRequest, names: Names, tell: Tell) -> Exchanged:
    """Writes the labels that count as a data set: ``masks/<case>/<structure>.nii.gz``, planning maps as ``labels/<case>.nii.gz``, SEGs as
    ``seg/<case>.dcm``, :data:`MANIFEST` and :data:`SUMS` (``sha256sum -c``). Readers are numbers in it, not names. Done again, what an
    earlier export wrote there and this one does not is removed: nobody publishes a label that was sent back since.

    Raises: OutputError where it cannot be written, or the folder holds something else; LabelError where no label counts. Other errors
        of a case leave that case out.
    """
    before = _exported(request.out)
    images = StudiesFolder(request.studies, read_only=True).scan()
    series = _series(request.dicom)
    readers = _Readers()
    cases: list[dict[str, Any]] = []
    out: dict[str, str] = {}
    for case_id, image in images.items():
        try:
            entry = _export(case_id, image, request, names, series.get(case_id), readers)
        except OutputError:
            raise
        except FlrError as error:
            out[case_id] = " ".join(str(error).split())
            tell(f"{case_id}: left out: {out[case_id]}")
            continue
        cases.append(entry)
        tell(f"{case_id}: {entry['state']}, {', '.join(entry['volumes_ml'])}{''.join(f'; {n}' for n in entry['notes'])}")
    if not cases:
        raise LabelError(
            f"{request.studies}: no label to export; {'; '.join(f'{c}: {r}' for c, r in out.items()) or 'no images'}"
        )
    files = {name: digest for entry in cases for name, digest in entry["files"].items()}
    for name in before - files.keys():
        try:
            (request.out / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{request.out / name} of an earlier export cannot be removed ({error.strerror})") from error
    manifest = {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "software": f"flrplan {__version__}",
        "labels": request.use.value,
        "cases": cases,
        "left_out": out,
    }
    write_text(request.out / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())))
    write_json(request.out / MANIFEST, manifest)
    return Exchanged(tuple(entry["case"] for entry in cases), out)


def _exported(out: Path) -> set[str]:
    """The files that an earlier export wrote into the folder. Raises: OutputError where it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return set()
    if not (out / MANIFEST).is_file():
        raise OutputError(f"{out} holds something else; choose an empty folder")
    try:
        names = [name for case in read_json(out / MANIFEST, "a manifest", OutputError)["cases"] for name in case["files"]]
    except (KeyError, TypeError) as error:
        raise OutputError(f"{out / MANIFEST} is of no export of this software; choose an empty folder") from error
    return {name for name in names if (out / name).resolve().is_relative_to(out.resolve())}


def _series(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    return {name: path for path, name in case_names(find_cases([folder])).items()}


def _export(
    case_id: str, image: StoredImage, request: ExportRequest, names: Names, series: Path | None, readers: _Readers
) -> dict[str, Any]:
    review = CaseReview.of({tag: label.info for tag, label in image.labels.items()})
    chosen = review.choose(request.use)
    if chosen.tag is None:
        raise LabelError(chosen.note)
    version = next(v for v in review.versions if v.tag == chosen.tag)
    stored, grid = image.labels[chosen.tag], read_grid(image.path)
    held = read_segmentation(stored.path)
    named = {} if held.names is not None else names(stored.info, str(stored.path))
    label = held.label(grid, str(image.path), named)
    masks = {s: m for s, m in label.masks.items() if s is not Structure.LRS or Structure.FLR not in label.masks}
    paths = [Path("masks", case_id, f"{s}.nii.gz") for s in masks]
    for path, mask in zip(paths, masks.values(), strict=True):
        write_label_map(request.out / path, mask, grid)
    notes = [chosen.note] if chosen.note else []
    if all(s in masks for s in PLANNED):
        planning, lost = to_compartments(*(masks[s] for s in PLANNED))
        notes += lost.findings()
        paths.append(Path("labels", f"{case_id}.nii.gz"))
        write_label_map(request.out / paths[-1], planning, grid)
    if series is not None:
        paths.append(Path("seg", f"{case_id}.dcm"))
        write_seg(request.out / paths[-1], held.label, named, series, tuple(masks))
    elif request.dicom is not None:
        notes.append(f"no DICOM series of this case below {request.dicom}, so no SEG")
    if request.images:
        paths.append(Path("images", f"{case_id}{image.ending.lower()}"))
        link(image.path, request.out / paths[-1])
    return {
        "case": case_id,
        "state": str(review.state if version is review.newest or version is not review.confirmed else "confirmed"),
        "drafted_by": readers.number(review.first_reader),
        "drawn_by": readers.number(version.by),
        "confirmed_by": readers.number(version.approved_by) if version is review.confirmed else None,
        "confirmed_by_verified": version is review.confirmed and version.review_verified,
        "saved": datetime.fromtimestamp(version.saved, timezone.utc).date().isoformat(),
        "volumes_ml": {s.value: round(float(np.count_nonzero(m)) * grid.voxel_volume_ml, 3) for s, m in masks.items()},
        "image_sha256": sha256_of_file(image.path),
        "files": {path.as_posix(): sha256_of_file(request.out / path) for path in paths},
        "notes": notes,
    }


def write_seg(
    path: Path,
    read: Callable[[Geometry, str, Mapping[str, int]], PlanningLabel],
    names: Mapping[str, int],
    series: Path,
    structures: tuple[Structure, ...],
) -> None:
    """Writes structures as a BINARY DICOM SEG whose segments overlap, on the grid of a DICOM series; empty ones have no segment.

    Raises: GridError where the label does not lie on that series; OutputError where the series cannot be referred to.
    """
    from flrplan.objects.seg import Segment, segmentation  # highdicom: seconds of imports that only a SEG needs
    from flrplan.objects.source import LABEL_CONTENT

    ct = read_ct(series)
    label = read(ct.geometry, str(series), names)
    drawn: list[tuple[Structure, Mask]] = [(s, label.masks[s]) for s in structures if label.masks[s].any()]
    partition = np.zeros(ct.geometry.shape_zyx, np.uint8)
    for bit, (_, mask) in enumerate(drawn):
        partition[mask] |= 1 << bit
    segments = [
        Segment(s.value, APPEARANCE[s], frozenset(v for v in range(1, 1 << len(drawn)) if v >> bit & 1))
        for bit, (s, _) in enumerate(drawn)
    ]
    seg = segmentation(partition, segments, ct, "FLR planning: published label", anonymize=True, content=LABEL_CONTENT)
    with replacing(path) as part:
        seg.save_as(part)
