"""Which files of a folder make up its one CT volume, and what is said of the others. Headers only; nothing is written."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from flrplan.errors import ImageError
from flrplan.files import entries, files_below, is_junk

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_CT_CLASSES = (CT_IMAGE_STORAGE, *MULTI_FRAME_CT_STORAGE)
_DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"

_ABOUT_IMAGES = ("SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG")

NOT_SLICES = frozenset({"LOCALIZER", "SCREEN SAVE", "MIP", "MINIP", "MIN_IP", "MAX_IP", "VRT", "VOLUME_RENDER"})
"""Values of ImageType of pictures that are stored as CT images but are no slices in HU. DERIVED alone says nothing:
thin reformats (MPR) are DERIVED and fine."""

HU_RESCALE_TYPES = ("", "HU", "HU_MOD", "US")
"""RescaleType of HU; US (unspecified) is common and decided by the values. Others are dual-energy maps such as Z_EFF."""

_PREAMBLE_BYTES = 128
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_MARK = b"DICM"
_FIRST_ELEMENT = re.compile(
    rb"DICM\x02\x00|\x02\x00[\x00-\x16]\x00[A-Z]{2}|\x08\x00[\x00-\x18]\x00([A-Z]{2}|..\x00\x00)|\x00\x08\x00[\x00-\x18][A-Z]{2}",
    re.DOTALL,
)
"""How a file without preamble begins: with the mark, the meta header, or an element of group 0008 in any of three codings."""

_LISTED_SERIES, _NAMED_FILES = 20, 5
_REFERENCES = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_TAGS = [
    *_REFERENCES, "SOPClassUID", "Modality", "PatientID", "ImageType", "SeriesDescription", "AcquisitionNumber",
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "GantryDetectorTilt",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "NumberOfFrames", "LossyImageCompression",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip

_FRAME_TAGS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "FrameContentSequence": ("StackID", "TemporalPositionIndex"),
    "CTAcquisitionDetailsSequence": ("GantryDetectorTilt",),
}
"""Functional groups of an enhanced CT (PS3.3, C.7.6.16 and C.8.15.3), and what of them a single slice has in its header."""


@dataclass(frozen=True)
class DicomFile:
    """A file, or one frame of a multi-frame file, and the part of its header that says what it is and where it lies."""

    path: Path
    header: Any
    frame: int | None = None

    @property
    def name(self) -> str:
        """For messages; frames count from 1, as in DICOM."""
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame + 1}"

    @property
    def kind(self) -> str:
        """The SOP class, as the data set or, where that does not, the file meta information states it; else empty."""
        return self.text("SOPClassUID") or self._meta("MediaStorageSOPClassUID")

    @property
    def instance(self) -> str:
        """The SOPInstanceUID, from the data set or the file meta information; else empty."""
        return self.text("SOPInstanceUID") or self._meta("MediaStorageSOPInstanceUID")

    def text(self, keyword: str) -> str:
        """A value as text without blanks around it; empty where it is absent."""
        value = self.header.get(keyword)
        return "" if value is None else str(value).strip()

    def _meta(self, keyword: str) -> str:
        return str((getattr(self.header, "file_meta", None) or {}).get(keyword) or "").strip()

    def words(self, keyword: str) -> list[str]:
        """A value of one or more parts as upper-case words."""
        value = self.header.get(keyword)
        parts = [] if value is None else [value] if isinstance(value, str) else list(value)
        return [str(p).upper() for p in parts]


@dataclass(frozen=True)
class Series:
    """One series of a folder: the slices (files or frames) that can make up a CT, and why the others cannot.

    uid: empty where the files state none. warnings: what of the folder is not used although it might belong to this CT.
    """

    uid: str
    slices: tuple[DicomFile, ...]
    refused: tuple[tuple[DicomFile, str], ...]
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The UID, or words where there is none."""
        return self.uid or "without SeriesInstanceUID"

    @property
    def files(self) -> list[Path]:
        """The files of the slices, each once, in their order."""
        return list(dict.fromkeys(file.path for file in self.slices))

    @property
    def patient_id(self) -> str:
        """PatientID of the slices, empty where none states it. Raises ImageError where they state several."""
        ids = sorted({file.text("PatientID") for file in self.slices} - {""})
        if len(ids) > 1:
            raise ImageError(
                f"series {self.title} holds slices of {len(ids)} patients (PatientID {', '.join(map(repr, ids[:5]))}); "
                "keep the slices of one patient in the folder"
            )
        return ids[0] if ids else ""

    def describe(self) -> str:
        """One line for an error: UID, description, number of slices, what else is in it."""
        any_file = self.slices[0] if self.slices else self.refused[0][0]
        reasons = sorted({reason for _, reason in self.refused})
        rest = f"; {len(self.refused)} not used: {', '.join(reasons)}" if reasons else ""
        return f"  {self.uid or '(no UID)'}  {any_file.text('SeriesDescription') or '(no description)'!s}  {len(self.slices)} CT slices{rest}"


@dataclass(frozen=True)
class _Lost:
    """A file that might have been a slice, and why it cannot be told."""

    path: Path
    reason: str


def is_dicom(path: Path) -> bool:
    """True for a file with DICOM's mark after the preamble, one that begins as DICOM does without it, or a usual ending.

    False for what systems leave in folders (:func:`is_junk`), such as ``._IM1.dcm``.
    """
    if is_junk(path):
        return False
    try:
        with path.open("rb") as stream:
            return _begins_as_dicom(stream.read(_PREAMBLE_BYTES + 4)) or path.suffix.lower() in _DICOM_SUFFIXES
    except OSError:
        return False


def choose_series(path: Path, uid: str | None = None) -> Series:
    """The CT volume of a DICOM folder and its subfolders, or of the folder of one DICOM file (then that file's series).

    Without ``uid``, exactly one series must have two or more CT slices. Images that state no SeriesInstanceUID are one series.
    Junk and files of other kinds are skipped; a file that might be a lost slice (empty, without an ending and no DICOM, not
    readable, a CT slice of another series) is an error if it is called like the slices, else a warning that names it.

    Raises: ImageError for a path that is not there, unreadable DICOM files, no CT volume, several, or no such ``uid``; it lists what was found.
    """
    if not path.exists():
        raise ImageError(f"{path}: no such file or folder; expected a folder with the slices of a CT series")
    folder = path if path.is_dir() else path.parent
    if uid is None and path.is_file():
        uid = _read_header(path).text("SeriesInstanceUID")
    files, lost = _sort_out(files_below(folder, hidden=True) if path.is_dir() else _files_of(folder))
    found = _series_of(files)
    if not found:
        empty = f" ({named(lost)} {lost[0].reason})" if lost else ""
        raise ImageError(f"{folder}: no DICOM images in this folder{empty}; expected the slices of a CT series")
    chosen = _volume(folder, found) if uid is None else _named_series(folder, found, uid)
    _refuse_lost_slices(folder, chosen, lost)
    others = [file for series in found if series is not chosen and len(series.slices) < 2 for file in series.slices]
    return replace(chosen, warnings=tuple(_unused(chosen, others, lost)))


def ct_volumes(folder: Path) -> list[Series]:
    """The series of a DICOM folder and its subfolders that hold two or more CT slices, the largest first.

    Raises: ImageError for an unreadable DICOM file.
    """
    files, _ = _sort_out(files_below(folder, hidden=True))
    return sorted((s for s in _series_of(files) if len(s.slices) >= 2), key=lambda s: -len(s.slices))


def first_image(folder: Path, series: str | None = None) -> DicomFile | None:
    """The header of the first DICOM image of a folder (of ``series``, if given) by name; None where there is none.

    What only refers to images (SEG, SR and the like), and files that cannot be read, are passed over.
    """
    for path in files_below(folder):
        if path.is_file() and is_dicom(path):
            try:
                file = _read_header(path)
            except ImageError:
                continue
            wanted = series is None or file.text("SeriesInstanceUID") == series
            if wanted and file.kind != _DIRECTORY_STORAGE and file.text("Modality") not in _ABOUT_IMAGES:
                return file
    return None


def in_one_row(folders: Sequence[Path]) -> bool:
    """Whether the CT slices of all these folders together lie in even steps: parts of one volume, not whole ones."""
    try:
        files = [_read_header(p) for folder in folders for p in files_below(folder) if p.is_file() and is_dicom(p)]
        slices = [file.header for file in files if why_no_slice(file) is None]
        row, column = np.asarray(slices[0].ImageOrientationPatient, float).reshape(2, 3)
        along = np.array([np.asarray(s.ImagePositionPatient, float) @ np.cross(row, column) for s in slices])
    except (ImageError, AttributeError, IndexError, TypeError, ValueError):
        return False
    steps = np.diff(np.sort(along))
    return len(steps) > 1 and bool(steps.min() > 0 and steps.max() < 1.5 * steps.min())


def _files_of(folder: Path) -> list[Path]:
    return [p for p in entries(folder) if not p.is_dir()]


def _begins_as_dicom(head: bytes) -> bool:
    return head[_PREAMBLE_BYTES:] == _MARK or _FIRST_ELEMENT.match(head) is not None


def _sort_out(paths: Sequence[Path]) -> tuple[list[Path], list[_Lost]]:
    """The DICOM files, and the files that might have been some."""
    files, lost = [], []
    for path in paths:
        try:
            if not path.is_file() and not path.is_symlink():
                continue  # a pipe or a socket
            with path.open("rb") as stream:
                head = stream.read(_PREAMBLE_BYTES + 4)
        except OSError as error:
            if not is_junk(path):
                lost.append(_Lost(path, f"cannot be read: {error.strerror}"))
            continue
        if is_junk(path):
            if head[_PREAMBLE_BYTES:] == _MARK and path.name.startswith("."):
                lost.append(_Lost(path, "hidden"))
        elif _begins_as_dicom(head) or path.suffix.lower() in _DICOM_SUFFIXES:
            files.append(path)
        elif not head:
            lost.append(_Lost(path, "empty"))
        elif not path.suffix or path.suffix[1:].isdecimal():
            lost.append(_Lost(path, "no DICOM"))
        else:
            lost.append(_Lost(path, ""))
    return files, lost


def _volume(folder: Path, found: Sequence[Series]) -> Series:
    """The one series of at least two slices."""
    volumes = [s for s in found if len(s.slices) >= 2]
    single = [s for s in found if len(s.slices) == 1]
    if len(volumes) < 2 and len(single) > 2 and len(single) >= sum(len(s.slices) for s in volumes):
        raise ImageError(
            f"{folder}: {len(single)} CT slices state {len(single)} different SeriesInstanceUIDs, expected one for all slices of a "
            "series; some anonymisers draw a new one for each file: export or anonymise the series again with UIDs kept consistent"
        )
    if not volumes:
        raise ImageError(f"{folder}: no CT volume, expected one series of at least 2 CT slices; found\n{_listing(found)}")
    if len(volumes) > 1:
        advice = "give the folder of one, or its UID (series=UID, flrplan plan --series UID)"
        if any(not s.uid for s in volumes):
            advice += "; where slices of one series have lost their SeriesInstanceUID, export it again"
        raise ImageError(f"{folder}: {len(volumes)} CT series, expected one; {advice}:\n{_listing(found)}")
    return volumes[0]


def _named_series(folder: Path, found: Sequence[Series], uid: str) -> Series:
    chosen = next((s for s in found if s.uid == uid), None)
    if chosen is None:
        raise ImageError(f"{folder}: no series {uid or 'without SeriesInstanceUID'}; found\n{_listing(found)}")
    if len(chosen.slices) < 2:
        raise ImageError(
            f"{folder}: series {chosen.title} is not a CT volume, expected at least 2 CT slices; found\n{_listing(found)}"
        )
    return chosen


def _listing(found: Sequence[Series]) -> str:
    lines = [s.describe() for s in sorted(found, key=lambda s: -len(s.slices))[:_LISTED_SERIES]]
    return "\n".join(lines + [f"  ... and {len(found) - len(lines)} more"] * (len(found) > len(lines)))


def _refuse_lost_slices(folder: Path, chosen: Series, lost: Sequence[_Lost]) -> None:
    """Raises ImageError where files that are called like the slices are no DICOM: slices that were lost on the way."""
    slices = {called(path) for path in chosen.files}
    gone = [entry for entry in lost if entry.reason != "hidden" and called(entry.path) in slices]
    if gone:
        reasons = ", ".join(sorted({entry.reason or "no DICOM" for entry in gone}))
        raise ImageError(
            f"{folder}: {len(gone)} files called like the slices cannot be read as DICOM ({reasons}): {named(gone)}; they are cut off "
            "or damaged: copy or export the series again, or take them out of the folder if they are no slices"
        )


def called(path: Path) -> tuple[Path, str]:
    """Folder and name without DICOM's ending, every number as one sign: alike for the slices of an export."""
    name = path.stem if path.suffix.lower() in _DICOM_SUFFIXES else path.name
    return path.parent, re.sub(r"[0-9a-f]{8,}|\d+", "#", name.lower())


def why_no_reference(slices: Sequence[DicomFile]) -> str | None:
    """Why a DICOM SEG or SR cannot refer to these slices, in words; None if it can."""
    stated = {
        k: [file.instance if k == "SOPInstanceUID" else file.text(k) for file in slices] for k in ("SOPClassUID", *_REFERENCES)
    }
    missing = [k for k in _REFERENCES if not all(stated[k])]
    if missing:
        return f"the slices state no {', '.join(missing)}"
    for keyword, uids in stated.items():
        wrong = [uid for uid in dict.fromkeys(uids) if uid and not pydicom.uid.UID(uid).is_valid]
        if wrong:
            return f"the slices state a {keyword} that is no UID ({', '.join(map(repr, wrong[:_NAMED_FILES]))})"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if len(set(stated[keyword])) > 1:
            return f"the slices state several {keyword} ({', '.join(sorted(set(stated[keyword]))[:_NAMED_FILES])})"
    twice = len(slices) - len({(file.instance, file.frame) for file in slices})
    return f"{twice} slices state the SOPInstanceUID of another one" if twice else None


def missing_references(slices: Sequence[DicomFile]) -> list[str]:
    """What a SEG or an SR of a CT of these slices would have to state, and cannot; a sentence, or none."""
    why = why_no_reference(slices)
    if why is None:
        return []
    alone = "; all CT images of the folder that state none are taken as one series"
    no_series = "" if slices[0].text("SeriesInstanceUID") else alone
    return [f"{why}{no_series}, and no DICOM SEG or SR of this CT can be written without it"]


def _unused(chosen: Series, others: Sequence[DicomFile], lost: Sequence[_Lost]) -> list[str]:
    """A sentence for each kind of file that is not used although it might belong to the CT."""
    sentences = []
    by_reason: dict[str, list[DicomFile]] = defaultdict(list)
    for file, reason in chosen.refused:
        by_reason[reason].append(file)
    for reason, files in sorted(by_reason.items()):
        sentences.append(f"{len(files)} images of the series are not used: {reason}: {named(files)}")
    if others:
        sentences.append(
            f"{len(others)} CT slices of other series in the folder are not used: {named(others)}; do they belong to it?"
        )
    doubtful = [entry for entry in lost if entry.reason]
    if doubtful:
        reasons = ", ".join(sorted({entry.reason for entry in doubtful}))
        sentences.append(
            f"{len(doubtful)} files of the folder are not used ({reasons}): {named(doubtful)}; is a slice among them?"
        )
    return sentences


def named(files: Sequence[DicomFile | _Lost]) -> str:
    """The names of the first files, and how many more there are."""
    names = [file.name if isinstance(file, DicomFile) else file.path.name for file in files]
    more = f" and {len(names) - _NAMED_FILES} more" if len(names) > _NAMED_FILES else ""
    return ", ".join(names[:_NAMED_FILES]) + more


def lacks_preamble(path: Path) -> bool:
    """True for a file that begins with the mark itself, which no reader of DICOM knows what to do with."""
    with path.open("rb") as stream:
        return stream.read(len(_MARK)) == _MARK


def with_preamble(path: Path) -> bytes:
    """The file with the 128 bytes before its mark that it lacks."""
    return bytes(_PREAMBLE_BYTES) + path.read_bytes()


def _read_header(path: Path) -> DicomFile:
    try:
        source = BytesIO(with_preamble(path)) if lacks_preamble(path) else path
        file = DicomFile(path, pydicom.dcmread(source, stop_before_pixels=True, specific_tags=_TAGS, force=True))
        _ = [file.header[keyword].value for keyword in _TAGS if keyword in file.header]  # values are decoded on access
        is_ct = file.kind in _CT_CLASSES or (not file.kind and file.text("Modality") == "CT")
        if not file.kind and not is_ct:
            raise InvalidDicomError("it holds no DICOM image header")
        if is_ct and "Rows" not in file.header:
            raise InvalidDicomError("its header ends before the size of the image")
    except (
        InvalidDicomError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        NotImplementedError,
        TypeError,
    ) as error:
        raise ImageError(f"{path}: this DICOM file is cut off or damaged ({error}); copy or export the series again") from error
    return file


def _frames(file: DicomFile) -> list[DicomFile]:
    """The frames of an enhanced CT, each with the header that a slice of its own would have; any other file as it is."""
    groups = file.header.get("PerFrameFunctionalGroupsSequence")
    if file.kind not in MULTI_FRAME_CT_STORAGE or not groups:
        return [file]
    if len(groups) != int(file.text("NumberOfFrames") or 1):
        raise ImageError(
            f"{file.path}: this DICOM file is damaged: {len(groups)} functional groups for {file.text('NumberOfFrames')} frames; "
            "export it again"
        )
    shared = (file.header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    common: Any = pydicom.Dataset()
    common.update({element.tag: element for element in file.header if element.VR != "SQ"})
    common.file_meta = getattr(file.header, "file_meta", None)
    return [DicomFile(file.path, _frame_header(common, shared, own), n) for n, own in enumerate(groups)]


def _frame_header(common: Any, shared: Any, own: Any) -> Any:
    header: Any = pydicom.Dataset()
    header.update(common)
    header.file_meta = common.file_meta
    for sequence, keywords in _FRAME_TAGS.items():
        group: Any = next(iter(own.get(sequence) or shared.get(sequence) or []), {})
        for keyword in keywords:
            if keyword in group:
                header.add(group[keyword])
    kind: Any = next(iter(own.get("CTImageFrameTypeSequence") or shared.get("CTImageFrameTypeSequence") or []), {})
    if "FrameType" in kind:
        header.add_new("ImageType", "CS", kind["FrameType"].value)  # an assignment would change the element of all frames
    return header


def _series_of(files: Sequence[Path]) -> list[Series]:
    return _group([frame for file in files for frame in _frames(_read_header(file))])


def _group(files: Sequence[DicomFile]) -> list[Series]:
    by_uid: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        if file.kind != _DIRECTORY_STORAGE:
            by_uid[file.text("SeriesInstanceUID")].append(file)
    series = []
    for uid, members in sorted(by_uid.items()):
        reasons = [(file, why_no_slice(file)) for file in members]
        refused = tuple((file, reason) for file, reason in reasons if reason is not None)
        series.append(Series(uid, tuple(file for file, reason in reasons if reason is None), refused))
    return series


def why_no_slice(file: DicomFile) -> str | None:
    """Why a file or frame is not one slice of a CT in HU, in words for a listing; None if it can be.

    A CT SOP class says CT where the modality is absent; a CT modality says CT Image Storage where the class is.
    """
    modality, kind = file.text("Modality"), file.kind
    if modality != "CT" and (modality or kind not in _CT_CLASSES):
        return f"modality {modality or 'unknown'}, not CT"
    if file.frame is None and (kind in MULTI_FRAME_CT_STORAGE or int(file.text("NumberOfFrames") or 1) > 1):
        return "multi-frame (enhanced) CT, convert it to NIfTI first, for example with dcm2niix: no functional groups place its frames"
    if kind not in ("", *_CT_CLASSES):
        return f"{getattr(pydicom.uid.UID(kind), 'name', kind)}, not CT Image Storage"
    pictures = sorted(NOT_SLICES & set(file.words("ImageType")))
    if pictures:
        return f"ImageType {pictures[0]}"
    if int(file.text("SamplesPerPixel") or 1) != 1 or file.text("PhotometricInterpretation") not in ("", "MONOCHROME2"):
        return f"colour or inverted picture ({file.text('PhotometricInterpretation')})"
    if int(file.text("BitsAllocated") or 16) < 16:
        return "8-bit picture"
    if file.text("RescaleType").upper() not in HU_RESCALE_TYPES:
        return f"values of type {file.text('RescaleType')}, not HU"
    return None
