"""A CT as a DICOM series: one file a slice, which reads back voxel for voxel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from flrplan.errors import GridError, ImageError, OutputError
from flrplan.files import part_folder, replace_folder
from flrplan.image.dicom_files import CT_IMAGE_STORAGE
from flrplan.image.dicom_series import read_dicom_series
from flrplan.image.geometry import Geometry

_NAMESPACE = UUID("6ae7fc1c-31a5-4f0c-8d8f-94f1c5a0f0b7")
SYNTHETIC_DESCRIPTION = "Synthetic CT, not a patient"
LIVER_WINDOW_HU = (60, 400)
"""Centre and width of the window that a viewer opens the series with: the usual one of the liver."""
_MAX_PATIENT_ID = 64


def write_dicom_series(
    folder: Path, array_zyx: NDArray[np.int16], geometry: Geometry, case_id: str, description: str, force: bool = False
) -> list[Path]:
    """Writes HU ``(Z, Y, X) int16`` as a CT series into ``folder``; returns its files, in the order of the slices.

    ``case_id`` is PatientID and PatientName; the UIDs follow from it, those of series and slices from grid and voxels as well,
    so the same CT has the same UIDs everywhere and another CT others. DICOM knows right-handed grids only: the slices of a
    left-handed one run the other way, at the same places in the patient. The series is read back before it takes its place.

    Raises: ImageError for values that are not int16 or a case id that DICOM cannot hold; GridError for another shape;
        OutputError where the folder exists (unless ``force``) or cannot be written whole.
    """
    folder = Path(folder)
    if array_zyx.dtype != np.int16:
        raise ImageError(f"{folder}: a DICOM series is written from HU as int16, got {array_zyx.dtype}; round the values first")
    if array_zyx.shape != geometry.shape_zyx:
        raise GridError(f"{folder}: shape {array_zyx.shape} on a grid of {geometry.shape_zyx} (z, y, x)")
    if not 1 <= len(case_id) <= _MAX_PATIENT_ID or not case_id.isascii() or not case_id.isprintable() or "\\" in case_id:
        raise ImageError(f"{folder}: a PatientID is 1 to {_MAX_PATIENT_ID} plain ASCII characters, got {case_id!r}")
    array_zyx, geometry = _right_handed(array_zyx, geometry)
    common = _common_tags(array_zyx, geometry, case_id, description)
    with _replacing_folder(folder, force) as part:
        names = [f"slice_{z + 1:04d}.dcm" for z in range(len(array_zyx))]
        for z, name in enumerate(names):
            pydicom.dcmwrite(part / name, _slice(array_zyx[z], geometry, z, common), write_like_original=False)
        hu, found, *_ = read_dicom_series(part)
        if not found.is_same_grid(geometry) or (hu != array_zyx).any():
            raise OutputError(f"could not write {folder}: read back, the series differs from what was written")
    return [folder / name for name in names]


def series_uid(array_zyx: NDArray[np.int16], geometry: Geometry, case_id: str) -> str:
    """The SeriesInstanceUID that :func:`write_dicom_series` gives this CT."""
    array_zyx, geometry = _right_handed(array_zyx, geometry)
    content = sha256(np.ascontiguousarray(array_zyx).tobytes() + geometry.describe().encode()).hexdigest()
    return _uid("series", case_id, content)


def _right_handed(array_zyx: NDArray[np.int16], geometry: Geometry) -> tuple[NDArray[np.int16], Geometry]:
    matrix = geometry.direction_matrix
    if np.linalg.det(matrix) > 0:
        return array_zyx, geometry
    last = geometry.world_mm(np.array([[0, 0, len(array_zyx) - 1]], float))[0]
    flipped = matrix * [1, 1, -1]
    turned = Geometry(geometry.size_xyz, geometry.spacing_mm, tuple(last.tolist()), tuple(flipped.ravel().tolist()))
    return array_zyx[::-1], turned


def _common_tags(array_zyx: NDArray[np.int16], geometry: Geometry, case_id: str, description: str) -> dict[str, Any]:
    """What all slices share: the type 1 and 2 attributes of the CT image, and the window."""
    series = series_uid(array_zyx, geometry, case_id)
    cosines = geometry.direction_matrix[:, :2].T.ravel()
    return {
        "SOPClassUID": CT_IMAGE_STORAGE,
        "ImageType": ["DERIVED", "PRIMARY", "AXIAL"],
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "Modality": "CT",
        "Manufacturer": "flrplan",
        "ReferringPhysicianName": "",
        "StudyDescription": description,
        "SeriesDescription": description,
        "PatientName": case_id,
        "PatientID": case_id,
        "PatientBirthDate": "",
        "PatientSex": "",
        "SliceThickness": format_number_as_ds(geometry.spacing_mm[2]),
        "KVP": "",
        "PatientPosition": "HFS",
        "StudyInstanceUID": _uid("study", case_id),
        "SeriesInstanceUID": series,
        "StudyID": "1",
        "SeriesNumber": 1,
        "AcquisitionNumber": 1,
        "ImageOrientationPatient": [format_number_as_ds(float(c)) for c in cosines],
        "FrameOfReferenceUID": _uid("frame of reference", series),
        "PositionReferenceIndicator": "",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": geometry.size_xyz[1],
        "Columns": geometry.size_xyz[0],
        "PixelSpacing": [format_number_as_ds(geometry.spacing_mm[i]) for i in (1, 0)],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "WindowCenter": LIVER_WINDOW_HU[0],
        "WindowWidth": LIVER_WINDOW_HU[1],
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "HU",
    }


def _slice(hu_yx: NDArray[np.int16], geometry: Geometry, z: int, common: dict[str, Any]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(CT_IMAGE_STORAGE)
    meta.MediaStorageSOPInstanceUID = _uid("slice", common["SeriesInstanceUID"], str(z))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in common.items():
        setattr(data, keyword, value)
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.InstanceNumber = z + 1
    position_mm = geometry.world_mm(np.array([[0, 0, z]], float))[0]
    data.ImagePositionPatient = [format_number_as_ds(float(p)) for p in position_mm]
    data.PixelData = np.ascontiguousarray(hu_yx).astype("<i2").tobytes()
    data.is_little_endian, data.is_implicit_VR = True, False
    return data


def _uid(*words: str) -> UID:
    """A UID of the arc for UUIDs (DICOM PS3.5, B.2), the same for the same words."""
    return UID(f"2.25.{uuid5(_NAMESPACE, '|'.join(words)).int}")


@contextmanager
def _replacing_folder(folder: Path, force: bool) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place if the block succeeds, and vanishes if not."""
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists already; remove it, or write with force to replace it")
    try:
        with part_folder(folder) as part:
            yield part
            replace_folder(part, folder)
    except OutputError:
        raise
    except (OSError, ImageError) as error:
        raise OutputError(
            f"could not write {folder}: {error}; check that the disk has room and the folder is writable"
        ) from error
