"""A small CT as array, and writers of DICOM slices that the tests control tag by tag."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from flrplan.image import Geometry

Hu = NDArray[np.int16]


@pytest.fixture
def hu() -> Hu:
    """``(12, 20, 24) int16``: air around a body of noise."""
    rng = np.random.default_rng(7)
    array = np.full((12, 20, 24), -1000, np.int16)
    array[:, 4:16, 4:20] = rng.integers(-100, 200, (12, 12, 16))
    return array


@pytest.fixture
def geometry() -> Geometry:
    c, s = np.cos(0.2), np.sin(0.2)
    return Geometry((24, 20, 12), (0.8, 0.9, 2.5), (-31.25, 12.5, 700.75), (c, -s, 0, s, c, 0, 0, 0, 1))


WriteSlice = Callable[..., Path]


@pytest.fixture
def write_slice() -> WriteSlice:
    """Writes one slice of stored values; keywords replace tags, None removes one."""

    def write(path: Path, stored: NDArray[Any], z: float = 0.0, **tags: Any) -> Path:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = tags.get("SOPClassUID") or CTImageStorage
        meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{abs(hash(str(path))) % 10**9}")
        meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        plain: dict[str, Any] = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "StudyInstanceUID": "1.2.1",
            "SeriesInstanceUID": "1.2.2",
            "SeriesDescription": "portal",
            "Rows": stored.shape[0],
            "Columns": stored.shape[1],
            "BitsAllocated": 8 * stored.dtype.itemsize,
            "BitsStored": 8 * stored.dtype.itemsize,
            "HighBit": 8 * stored.dtype.itemsize - 1,
            "PixelRepresentation": int(stored.dtype.kind == "i"),
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "PixelSpacing": [0.9, 0.8],
            "SliceThickness": 7,
            "ImagePositionPatient": [-10.5, 20.25, z],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "PixelData": stored.tobytes(),
        }
        for keyword, value in {**plain, **tags}.items():
            if value is not None:
                setattr(data, keyword, value)
        data.is_little_endian, data.is_implicit_VR = True, False
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(path)
        return path

    return write


@pytest.fixture
def write_series(write_slice: WriteSlice, hu: Hu) -> Callable[..., Path]:
    """Writes a folder of slices 2.5 mm apart with names against their order; ``skip`` leaves slices out."""

    def write(folder: Path, skip: tuple[int, ...] = (), **tags: Any) -> Path:
        for z, plane in enumerate(hu):
            if z not in skip:
                write_slice(folder / f"{99 - z}.dcm", plane, z=100 + 2.5 * z, **tags)
        return folder

    return write


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(item, keyword, value)
    return item


@pytest.fixture
def write_enhanced(write_slice: WriteSlice) -> Callable[..., Path]:
    """Writes an enhanced CT (PS3.3, A.38.1) of stored values ``(N, Y, X)``, a frame at each of ``z_mm``.

    ``frames`` holds for each frame what differs from the shared groups: slope, intercept, stack, time, cosines, kind. Keywords are
    tags of the whole.
    """

    def write(path: Path, stored: NDArray[Any], z_mm: Sequence[float], frames: Any = None, **tags: Any) -> Path:
        groups = []
        for z, own in zip(z_mm, frames or [{}] * len(stored), strict=True):
            content = _item(StackID=own.get("stack", "1"), InStackPositionNumber=1, TemporalPositionIndex=own.get("time"))
            group = _item(
                FrameContentSequence=[content], PlanePositionSequence=[_item(ImagePositionPatient=[-10.5, 20.25, float(z)])]
            )
            if "slope" in own:
                scale = _item(RescaleSlope=own["slope"], RescaleIntercept=own["intercept"], RescaleType="HU")
                group.PixelValueTransformationSequence = [scale]
            if "cosines" in own:
                group.PlaneOrientationSequence = [_item(ImageOrientationPatient=own["cosines"])]
            if "kind" in own:
                group.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", own["kind"], "NONE"])]
            groups.append(group)
        shared = _item(
            PixelMeasuresSequence=[_item(PixelSpacing=[0.9, 0.8], SliceThickness=7)],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelValueTransformationSequence=[_item(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")],
        )
        whole: dict[str, Any] = {
            "SOPClassUID": EnhancedCTImageStorage,
            "NumberOfFrames": len(stored),
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": groups,
            "PixelData": stored.tobytes(),
            **dict.fromkeys(
                ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept")
            ),
        }
        return write_slice(path, stored[0], **{**whole, **tags})

    return write


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The public CTs; skips where they are absent."""
    folder = Path(os.environ.get("FLRPLAN_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    if not (folder / "dcmqi").is_dir():
        pytest.skip(f"no public data in {folder}; set FLRPLAN_TEST_DATA to a folder with dcmqi/ and totalseg/")
    return folder
