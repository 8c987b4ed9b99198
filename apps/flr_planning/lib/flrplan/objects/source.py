"""The CT series that a derived DICOM object refers to: whose it is, and which instance and frame each slice of the grid is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import DA, TM, PersonName, format_number_as_ds

from flrplan import __version__
from flrplan.errors import OutputError
from flrplan.image import CT
from flrplan.image.dicom_files import CT_IMAGE_STORAGE, DicomFile, lacks_preamble, why_no_reference, with_preamble

MANUFACTURER = "flrplan"
NO_SERIAL_NUMBER = "none"
EQUIPMENT: Mapping[str, Any] = {
    "manufacturer": MANUFACTURER,
    "manufacturer_model_name": MANUFACTURER,
    "software_versions": __version__,
    "device_serial_number": NO_SERIAL_NUMBER,
}
"""What made an object, as highdicom takes it."""
PLAN_CONTENT = "FLRPLAN"
"""ContentLabel of the SEG of a plan, which is nobody's label, though masks in it may be given."""
LABEL_CONTENT = "SEGMENTATION"
"""ContentLabel of the SEG of a label, which counts as one where it is stored at a DICOMweb server."""
PRIVATE_SCHEME = "99FLRPLAN"
UTF_8 = "ISO_IR 192"
"""SpecificCharacterSet of what is written: highdicom states none, and without one a name beyond ASCII is lost."""
_BLANK = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
"""Attributes that must be there and may be empty (type 2)."""
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_LOSSY_TAGS = tuple(tag_for_keyword(keyword) for keyword in _LOSSY)
_OF_ONE_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageOrientationPatient", "ImagePositionPatient",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The slices of a CT as highdicom takes them, in the order of its grid.

    images: a header a slice, on the CT's grid; each has the attributes of patient and study. frames: the frame of each in its file, from 1; None for a file of one slice.
    """

    images: tuple[Dataset, ...]
    frames: tuple[int | None, ...]


def why_no_objects(ct: CT) -> str | None:
    """Why no DICOM SEG or SR of this CT can be written, in words; None if they can."""
    return why_no_reference(ct.slices) if ct.slices else "the CT is no DICOM series that they could refer to"


def source_series(ct: CT, anonymize: bool = False) -> SourceSeries:
    """The series of a CT. anonymize: patient and study stay empty, but for the UIDs, without which nothing refers to the series.

    A series without a FrameOfReferenceUID that is one gets one of its own. Raises: OutputError where nothing can refer to it, or a file is gone.
    """
    why = why_no_objects(ct)
    if why is not None:
        raise OutputError(f"{ct.source}: no DICOM SEG or SR can be written: {why}; export the series again")
    first = _patient_and_study(ct.slices[0], anonymize)
    grid = ct.geometry
    stated = UID(str(first.get("FrameOfReferenceUID") or ""))
    frame_of_reference = stated if stated.is_valid else generate_uid(prefix=None)
    cosines = [format_number_as_ds(float(c)) for c in grid.direction_matrix[:, :2].T.ravel()]
    positions = grid.world_mm(np.array([(0, 0, z) for z in range(grid.size_xyz[2])], float))
    images = []
    for file, position in zip(ct.slices, positions, strict=True):
        image = Dataset()
        image.update(first)
        image.SOPClassUID, image.SOPInstanceUID = UID(file.kind or CT_IMAGE_STORAGE), UID(file.instance)
        image.SeriesInstanceUID, image.FrameOfReferenceUID = UID(file.text("SeriesInstanceUID")), frame_of_reference
        image.Modality = "CT"
        image.Rows, image.Columns = grid.size_xyz[1], grid.size_xyz[0]
        image.PixelSpacing = [format_number_as_ds(round(grid.spacing_mm[axis], 9)) for axis in (1, 0)]
        image.SliceThickness = image.SpacingBetweenSlices = format_number_as_ds(round(grid.spacing_mm[2], 9))
        image.ImageOrientationPatient = cosines
        image.ImagePositionPatient = [format_number_as_ds(round(float(p), 6)) for p in position]
        images.append(image)
    return SourceSeries(tuple(images), tuple(None if f.frame is None else f.frame + 1 for f in ct.slices))


def _patient_and_study(file: DicomFile, anonymize: bool) -> Dataset:
    """What the header of a file says of patient, study, frame of reference and lossy compression; what cannot be decoded is left out."""
    try:
        content = BytesIO(with_preamble(file.path)) if lacks_preamble(file.path) else file.path
        header = pydicom.dcmread(content, stop_before_pixels=True, force=True)
    except OSError as error:
        raise OutputError(
            f"{file.path}: the CT's series can no longer be read ({error.strerror}), and SEG and SR refer to it"
        ) from error
    kept = Dataset()
    for tag in header.keys():  # noqa: SIM118  # a Dataset iterates over its elements, which decodes them
        if tag.group in (0x0008, 0x0010, 0x0012, 0x0020) or tag in _LOSSY_TAGS:
            with suppress(ValueError, TypeError, KeyError, AttributeError, NotImplementedError, OverflowError):
                kept[tag] = header[tag]
    named = kept
    if anonymize:
        named = Dataset()
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", *_LOSSY):
            if keyword in kept:
                named[keyword] = kept[keyword]
        named.PatientIdentityRemoved = "YES"
        named.DeidentificationMethod = "flrplan: patient and study left out, UIDs kept"
    for keyword in _OF_ONE_IMAGE:
        named.pop(keyword, None)
    for keyword in _BLANK:
        setattr(named, keyword, _usable(named.get(keyword), keyword))
    if any(not named.get(keyword) for keyword in _LOSSY):
        named.pop("LossyImageCompression", None)  # 01 needs the other two
    return named


def _usable(value: Any, keyword: str) -> Any:
    """A value of a type 2 attribute, or empty where DICOM does not allow it."""
    if keyword == "PatientSex":
        return value if value in ("M", "F", "O") else ""
    if keyword == "PatientName" and not isinstance(value, PersonName):
        return ""  # several, parted by a backslash
    kind = DA if keyword.endswith("Date") else TM if keyword.endswith("Time") else None
    try:
        return "" if value is None else value if kind is None else kind(value) or ""
    except (ValueError, TypeError):
        return ""


@contextmanager
def without_highdicom_warnings() -> Iterator[None]:
    """Of the source's own values, such as a patient's name without its parts, which are copied as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
