"""A TCIA download in small, written tag by tag: CT slices, SEGs with overlapping segments on their own slab, metadata.csv.

The case (``SPACING`` 0.8 x 0.9 x 2.5 mm, a voxel of 0.0018 ml, grid 8 x 16 x 16):
liver 4 x 8 x 10 = 320 voxels, remnant its half = 160; Tumor_1 6 voxels and Tumor_2 6 voxels share 1; of Tumor_2, 2 lie in the
resection; Tumor_3 has 2 voxels outside the liver ("in the lung"). So the CRLM has 13 voxels, 11 in the liver, 9 in the remnant.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixel_data_handlers.numpy_handler import pack_bits
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from flrplan.image import Geometry

Masks = dict[str, NDArray[np.bool_]]
SHAPE = (8, 16, 16)
ORIGIN = (-10.5, 20.25, -120.25)
GEOMETRY = Geometry((16, 16, 8), (0.8, 0.9, 2.5), ORIGIN)


def box(z: slice, y: slice, x: slice) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, np.bool_)
    mask[z, y, x] = True
    return mask


def case_masks() -> Masks:
    return {
        "Liver": box(slice(2, 6), slice(4, 12), slice(3, 13)),
        "Liver Remnant": box(slice(2, 6), slice(4, 12), slice(3, 8)),
        "Hepatic": box(slice(2, 4), slice(8, 9), slice(5, 9)),
        "Portal": box(slice(2, 4), slice(9, 10), slice(5, 9)),
        "Tumor_1": box(slice(3, 4), slice(5, 7), slice(4, 7)),
        "Tumor_2": box(slice(3, 4), slice(6, 8), slice(6, 9)),
        "Tumor_3": box(slice(6, 7), slice(2, 3), slice(2, 4)),
    }


def hounsfield(seed: int = 7) -> NDArray[np.int16]:
    array = np.full(SHAPE, -1000, np.int16)
    array[:, 1:15, 1:15] = np.random.default_rng(seed).integers(-100, 200, (8, 14, 14))
    return array


def item(**values: object) -> Dataset:
    data = Dataset()
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data


def save(path: Path, sop_class: str, **values: Any) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    for keyword, value in values.items():
        setattr(data, keyword, value)
    data.is_little_endian, data.is_implicit_VR = True, False
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, write_like_original=False)
    return path


Offsets = Mapping[int, float]


def write_ct(
    folder: Path,
    series_uid: str,
    hu: NDArray[np.int16],
    skip: tuple[int, ...] = (),
    offset_mm: Offsets | None = None,
    **tags: Any,
) -> Path:
    """Slices 2.5 mm apart (but for ``offset_mm``) that state a SliceThickness of 7 mm, with names against their order."""
    for z, plane in enumerate(hu):
        if z in skip:
            continue
        plain: dict[str, Any] = {
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "StudyInstanceUID": "1.2.1",
            "SeriesInstanceUID": series_uid,
            "FrameOfReferenceUID": "1.2.9",
            "Rows": plane.shape[0],
            "Columns": plane.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "PixelSpacing": [0.9, 0.8],
            "SliceThickness": 7,
            "ImagePositionPatient": [ORIGIN[0], ORIGIN[1], ORIGIN[2] + 2.5 * z + (offset_mm or {}).get(z, 0.0)],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "PixelData": plane.tobytes(),
        }
        save(folder / f"1-{99 - z}.dcm", CTImageStorage, **{**plain, **tags})
    return folder


def write_seg(
    path: Path, masks: Mapping[str, NDArray[np.bool_]], shift_mm: float = 0.0, offset_mm: Offsets | None = None, **tags: Any
) -> Path:
    """A BINARY SEG as dcmqi writes it: a frame per segment and slice with voxels, no others; SliceThickness 7 mm."""
    groups, frames = [], []
    for number, mask in enumerate(masks.values(), 1):
        for z in np.flatnonzero(mask.any(axis=(1, 2))):
            off_mm = shift_mm + (offset_mm or {}).get(int(z), 0.0)
            position = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + 2.5 * float(z) + off_mm]
            groups.append(
                item(
                    PlanePositionSequence=[item(ImagePositionPatient=position)],
                    SegmentIdentificationSequence=[item(ReferencedSegmentNumber=number)],
                )
            )
            frames.append(mask[z])
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[0.9, 0.8], SliceThickness=7)],
    )
    values: dict[str, Any] = {
        "Modality": "SEG",
        "SegmentationType": "BINARY",
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": generate_uid(),
        "SegmentSequence": [item(SegmentNumber=n, SegmentLabel=name) for n, name in enumerate(masks, 1)],
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
        "NumberOfFrames": len(frames),
        "Rows": SHAPE[1],
        "Columns": SHAPE[2],
        "SamplesPerPixel": 1,
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "PixelRepresentation": 0,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": pack_bits(np.stack(frames).astype(np.uint8).ravel()),
    }
    return save(path, SegmentationStorage, **{**values, **tags})


class TciaTree:
    """Adds subjects to a download and keeps its metadata.csv."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[dict[str, str]] = []

    def add(self, subject: str, masks: Masks | None = None, skip: tuple[int, ...] = (), seed: int = 7, **seg_tags: Any) -> None:
        uid = f"1.2.3.{subject[-4:]}"
        ct = self.folder(subject, "CT")
        write_ct(ct, uid, hounsfield(seed), skip)
        self.row(subject, "CT", uid, 8)
        write_seg(self.folder(subject, "SEG") / "1-1.dcm", masks or case_masks(), **seg_tags)
        self.row(subject, "SEG", uid + ".1", 1)

    def folder(self, subject: str, modality: str) -> Path:
        return self.root / "Colorectal-Liver-Metastases" / subject / "06-07-1992-NA-CT ANGIO" / f"100.000000-{modality}-1"

    def row(self, subject: str, modality: str, uid: str, images: int, location: str | None = None) -> None:
        path = self.folder(subject, modality).relative_to(self.root).as_posix()
        self.rows.append(
            {
                "Series UID": uid,
                "Subject ID": subject,
                "Modality": modality,
                "Number of Images": str(images),
                "File Location": location or ".\\" + path.replace("/", "\\"),
            }
        )

    def save(self) -> Path:
        with (self.root / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        return self.root


@pytest.fixture
def tree(tmp_path: Path) -> TciaTree:
    root = tmp_path / "download"
    root.mkdir()
    return TciaTree(root)


@pytest.fixture
def masks() -> Masks:
    return case_masks()


@pytest.fixture
def hu() -> NDArray[np.int16]:
    return hounsfield()


@pytest.fixture
def geometry() -> Geometry:
    return GEOMETRY


@pytest.fixture
def make_seg() -> Any:
    """:func:`write_seg`."""
    return write_seg


@pytest.fixture
def make_ct() -> Any:
    """:func:`write_ct`."""
    return write_ct
