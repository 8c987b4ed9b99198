"""A small CT as DICOM series of several kinds, and a plan on it with a metastasis on each side of the cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, generate_uid

from flrplan.anatomy import Structure
from flrplan.image import CT, Geometry, read_ct
from flrplan.image.dicom_write import write_dicom_series
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan
from flrplan.workfolder import ModelIdentity

C, S = float(np.cos(0.3)), float(np.sin(0.3))
AXIAL = Geometry((20, 16, 10), (0.8, 0.9, 2.5), (-31.25, 12.5, 700.75))
UPSIDE_DOWN = Geometry((20, 16, 10), (0.8, 0.9, 2.5), (-31.25, 12.5, 700.75), (1, 0, 0, 0, -1, 0, 0, 0, -1))
OBLIQUE = Geometry((20, 16, 10), (0.8, 0.9, 2.5), (-31.25, 12.5, 700.75), (C, 0, S, 0, 1, 0, -S, 0, C))
MODEL = ModelIdentity("liver", "liver/nnunet", (0, 1), {"0": "a1b2c3d4e5", "1": "99aabbccdd"}, "nnunet", demo=True)


def written(folder: Path, geometry: Geometry, name: str = "Case^One") -> list[Path]:
    hu = np.random.default_rng(3).integers(-1000, 200, geometry.shape_zyx).astype(np.int16)
    files = write_dicom_series(folder, hu, geometry, name, "a CT")
    for n, file in enumerate(files):  # names against the order of the slices
        file.rename(folder / f"{99 - n}.dcm")
    return sorted(folder.iterdir())


def item(**values: Any) -> Dataset:
    out = Dataset()
    for keyword, value in values.items():
        setattr(out, keyword, value)
    return out


def enhanced(folder: Path, files: list[Path], parts: int) -> Path:
    """The same slices as frames, against their order, of one or more enhanced CT files of one series."""
    slices = sorted((pydicom.dcmread(f) for f in files), key=lambda s: int(s.InstanceNumber))
    folder = folder.with_name(f"{folder.name}-enhanced")
    folder.mkdir()
    for n, part in enumerate(np.array_split(np.arange(len(slices))[::-1], parts)):
        frames = [slices[i] for i in part]
        whole = pydicom.dcmread(files[0])
        whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
        whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        whole.NumberOfFrames, whole.PixelData = len(frames), b"".join(f.PixelData for f in frames)
        whole.SharedFunctionalGroupsSequence = [
            item(
                PixelMeasuresSequence=[item(PixelSpacing=whole.PixelSpacing)],
                PlaneOrientationSequence=[item(ImageOrientationPatient=whole.ImageOrientationPatient)],
                PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")],
            )
        ]
        whole.PerFrameFunctionalGroupsSequence = [
            item(PlanePositionSequence=[item(ImagePositionPatient=f.ImagePositionPatient)]) for f in frames
        ]
        for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept"):
            delattr(whole, keyword)
        whole.save_as(folder / f"{n}.dcm")
    return folder


@pytest.fixture
def make_ct(tmp_path: Path) -> Callable[..., CT]:
    def make(kind: str = "axial") -> CT:
        grid = {"upside down": UPSIDE_DOWN, "oblique": OBLIQUE}.get(kind, AXIAL)
        folder = tmp_path / "ct"
        files = written(folder, grid)
        if kind.startswith("enhanced"):
            folder = enhanced(folder, files, int(kind[-1]))
        ct = read_ct(folder)
        assert ct.geometry.is_same_grid(grid)
        return ct

    return make


def plan_of(ct: CT, flr_given: bool = False) -> Plan:
    """Liver, cut at x = 11, a resected metastasis of 8 voxels, one of 2 in the remnant, and one of 6 that is cut through."""
    liver, crlm, flr = (np.zeros(ct.geometry.shape_zyx, bool) for _ in range(3))
    liver[1:9, 2:14, 2:18] = True
    flr[1:9, 2:14, 2:11] = True
    crlm[2:4, 4:6, 14:16] = True
    crlm[7, 12, 4:6] = True
    crlm[6, 8:10, 10:13] = True
    predicted = Source.PREDICTED
    sources = {
        Structure.LIVER: predicted,
        Structure.CRLM: Source.GIVEN,
        Structure.FLR: Source.GIVEN if flr_given else predicted,
    }
    masks = {Structure.LIVER: liver, Structure.CRLM: crlm, Structure.FLR: flr}
    return Plan(CascadeResult(ct, masks, sources, {"liver": MODEL}, {}, ()))


@pytest.fixture
def make_plan(make_ct: Callable[..., CT]) -> Callable[..., Plan]:
    """A plan on a CT of some kind, or on one that is given."""
    return lambda kind="axial", **options: plan_of(kind if isinstance(kind, CT) else make_ct(kind), **options)
