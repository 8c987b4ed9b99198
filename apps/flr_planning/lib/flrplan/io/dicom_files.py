"""Which files of a folder make up its one CT volume. Headers only; nothing is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from flrplan.errors import ImageError

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")

NOT_SLICES = frozenset({"LOCALIZER", "SCREEN SAVE", "MIP", "MINIP", "MIN_IP", "MAX_IP", "VRT", "VOLUME_RENDER"})
"""Values of ImageType of pictures that are stored as CT images but are no slices in HU. DERIVED alone says nothing:
thin reformats (MPR) are DERIVED and fine."""

HU_RESCALE_TYPES = ("", "HU", "HU_MOD", "US")
"""RescaleType of HU; US (unspecified) is common and decided by the values. Others are dual-energy maps such as Z_EFF."""

_PREAMBLE_BYTES = 128
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesDescription", "AcquisitionNumber",
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "GantryDetectorTilt",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "NumberOfFrames", "LossyImageCompression",
    "RescaleSlope", "RescaleIntercept", "RescaleType",
]  # fmt: skip


@dataclass(frozen=True)
class DicomFile:
    """A file and the part of its header that says what it is and where it lies."""

    path: Path
    header: Any

    def text(self, keyword: str) -> str:
        """A value as text; empty where it is absent."""
        value = self.header.get(keyword)
        return "" if value is None else str(value)

    def words(self, keyword: str) -> list[str]:
        """A value of one or more parts as upper-case words."""
        value = self.header.get(keyword)
        parts = [] if value is None else [value] if isinstance(value, str) else list(value)
        return [str(p).upper() for p in parts]


@dataclass(frozen=True)
class Series:
    """One series of a folder: the files that can be slices of a CT, and why the others cannot."""

    uid: str
    slices: tuple[DicomFile, ...]
    refused: tuple[tuple[DicomFile, str], ...]

    def describe(self) -> str:
        """One line for an error: UID, description, number of slices, what else is in it."""
        any_file = self.slices[0] if self.slices else self.refused[0][0]
        reasons = sorted({reason for _, reason in self.refused})
        rest = f"; {len(self.refused)} not used: {', '.join(reasons)}" if reasons else ""
        return f"  {self.uid}  {any_file.text('SeriesDescription') or '(no description)'!s}  {len(self.slices)} CT slices{rest}"


def is_dicom(path: Path) -> bool:
    """True for a file with DICOM's mark after the preamble, or an ending that only DICOM has."""
    try:
        with path.open("rb") as stream:
            return stream.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")
    except OSError:
        return False


def choose_series(path: Path, uid: str | None = None) -> Series:
    """The CT volume of a DICOM folder and its subfolders, or of the folder of one DICOM file (then that file's series).

    Files that are not DICOM are skipped. Without ``uid``, exactly one series must have two or more CT slices.

    Raises: ImageError for a path that is not there, unreadable DICOM files, no CT volume, several, or no such ``uid``; it lists what was found.
    """
    if not path.exists():
        raise ImageError(f"{path}: no such file or folder; expected a folder with the slices of a CT series")
    folder = path if path.is_dir() else path.parent
    if uid is None and path.is_file():
        uid = _read_header(path).text("SeriesInstanceUID") or None
    files = sorted(folder.rglob("*") if path.is_dir() else folder.iterdir())
    found = _group([_read_header(p) for p in files if p.is_file() and is_dicom(p)])
    listing = "\n".join(s.describe() for s in found)
    if not found:
        raise ImageError(f"{folder}: no DICOM images in this folder; expected the slices of a CT series")
    if uid is not None:
        chosen = [s for s in found if s.uid == uid]
        if not chosen:
            raise ImageError(f"{folder}: no series {uid}; found\n{listing}")
        if len(chosen[0].slices) < 2:
            raise ImageError(f"{folder}: series {uid} is not a CT volume, expected at least 2 CT slices; found\n{listing}")
        return chosen[0]
    volumes = [s for s in found if len(s.slices) >= 2]
    if not volumes:
        raise ImageError(f"{folder}: no CT volume, expected one series of at least 2 CT slices; found\n{listing}")
    if len(volumes) > 1:
        raise ImageError(
            f"{folder}: {len(volumes)} CT series, expected one; give the folder of one, or its UID (series=UID, flrplan plan --series UID):\n{listing}"
        )
    return volumes[0]


def _read_header(path: Path) -> DicomFile:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
        if "SOPClassUID" not in header and "MediaStorageSOPClassUID" not in getattr(header, "file_meta", {}):
            raise InvalidDicomError("it holds no DICOM image header")
        _ = [header[keyword].value for keyword in _TAGS if keyword in header]  # values are decoded on access
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
    return DicomFile(path, header)


def _group(files: Sequence[DicomFile]) -> list[Series]:
    by_uid: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        if file.text("SeriesInstanceUID"):  # a DICOMDIR has none
            by_uid[file.text("SeriesInstanceUID")].append(file)
    series = []
    for uid, members in sorted(by_uid.items()):
        reasons = [(file, why_no_slice(file)) for file in members]
        refused = tuple((file, reason) for file, reason in reasons if reason is not None)
        series.append(Series(uid, tuple(file for file, reason in reasons if reason is None), refused))
    return series


def why_no_slice(file: DicomFile) -> str | None:
    """Why a file is not one slice of a CT in HU, in words for a listing; None if it can be."""
    modality, kind = file.text("Modality"), file.text("SOPClassUID")
    if modality != "CT":
        return f"modality {modality or 'unknown'}, not CT"
    if kind in MULTI_FRAME_CT_STORAGE or int(file.text("NumberOfFrames") or 1) > 1:
        return "multi-frame (enhanced) CT, convert it to NIfTI first, for example with dcm2niix"
    if kind != CT_IMAGE_STORAGE:
        name = getattr(file.header.get("SOPClassUID"), "name", kind)
        return f"{name}, not CT Image Storage"
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
