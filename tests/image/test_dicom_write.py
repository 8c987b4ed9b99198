"""A CT written as a DICOM series, through files and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import GridError, ImageError, OutputError
from flrplan.image import Geometry, read_ct
from flrplan.image.dicom_write import series_uid, write_dicom_series

Hu = NDArray[np.int16]

c, s = np.cos(0.3), np.sin(0.3)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # columns: x runs along y, y along z, z along x
OBLIQUE = (c, -s, 0.0, s * c, c * c, -s, s * s, c * s, c)
LEFT_HANDED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


@pytest.mark.parametrize("direction", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
def test_the_same_voxels_on_the_same_grid_come_back(
    hu: Hu, geometry: Geometry, tmp_path: Path, direction: tuple[float, ...]
) -> None:
    grid = replace(geometry, direction=direction, spacing_mm=(0.7123456789, 0.9, 2.0 / 3.0))
    files = write_dicom_series(tmp_path / "series", hu, grid, "case-1", "a phantom")
    assert len(files) == len(hu)
    assert all(f.is_file() for f in files)
    ct = read_ct(tmp_path / "series")
    assert ct.array_zyx.dtype == np.int16
    assert np.array_equal(ct.array_zyx, hu)
    assert np.allclose(ct.geometry.corners_mm(), grid.corners_mm(), atol=1e-6)
    assert ct.warnings == ()


def test_a_left_handed_grid_keeps_every_voxel_at_its_place(hu: Hu, geometry: Geometry, tmp_path: Path) -> None:
    grid = replace(geometry, direction=LEFT_HANDED)
    write_dicom_series(tmp_path / "series", hu, grid, "case-1", "")
    ct = read_ct(tmp_path / "series")
    assert np.array_equal(ct.array_zyx, hu[::-1])
    for z in (0, 5, 11):
        there = grid.world_mm(np.array([[3.0, 4.0, z]]))
        assert np.allclose(ct.geometry.world_mm(np.array([[3.0, 4.0, 11 - z]])), there, atol=1e-6)


def test_another_reader_sees_the_same_hu(geometry: Geometry, tmp_path: Path) -> None:
    extremes = np.full((12, 20, 24), -2048, np.int16)
    extremes[:, 5:15] = np.arange(-1024, 3071, 4095 // 24, dtype=np.int16)[:24]
    files = write_dicom_series(tmp_path / "series", extremes, geometry, "case-1", "")
    for z in (0, 11):
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(files[z])))[0], extremes[z])


def test_the_header_by_hand(hu: Hu, geometry: Geometry, tmp_path: Path) -> None:
    files = write_dicom_series(tmp_path / "series", hu, replace(geometry, direction=AXIAL), "case-1", "a phantom")
    third = pydicom.dcmread(files[2])
    assert (third.PatientID, third.StudyDescription, third.Modality, third.InstanceNumber) == ("case-1", "a phantom", "CT", 3)
    assert [float(v) for v in third.ImagePositionPatient] == [-31.25, 12.5, 705.75]
    assert [float(v) for v in third.PixelSpacing] == [0.9, 0.8]  # between rows, then between columns
    assert [float(v) for v in third.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert (third.RescaleSlope, third.RescaleIntercept, third.RescaleType) == (1, 0, "HU")
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in files]
    assert len({h.SOPInstanceUID for h in headers}) == len(files)
    assert len({h.SeriesInstanceUID for h in headers}) == len({h.StudyInstanceUID for h in headers}) == 1
    assert all(len(str(h.SOPInstanceUID)) <= 64 for h in headers)


def test_uids_follow_from_the_case_and_what_it_shows(hu: Hu, geometry: Geometry, tmp_path: Path) -> None:
    def uids(name: str, array: Hu, case_id: str) -> tuple[str, str]:
        header = pydicom.dcmread(write_dicom_series(tmp_path / name, array, geometry, case_id, "")[0])
        return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)

    first = uids("a", hu, "case-1")
    assert uids("b", hu, "case-1") == first
    assert first[1] == series_uid(hu, geometry, "case-1")
    other = uids("c", hu + np.int16(1), "case-1")
    assert (other[0] == first[0], other[1] == first[1]) == (True, False)
    assert set(uids("d", hu, "case-2")).isdisjoint(first)


def test_what_is_there_stays(hu: Hu, geometry: Geometry, tmp_path: Path) -> None:
    files = write_dicom_series(tmp_path / "series", hu, geometry, "case-1", "")
    before = files[0].read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_dicom_series(tmp_path / "series", hu + np.int16(1), geometry, "case-1", "")
    assert files[0].read_bytes() == before
    write_dicom_series(tmp_path / "series", hu + np.int16(1), geometry, "case-1", "", force=True)
    assert np.array_equal(read_ct(tmp_path / "series").array_zyx, hu + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["series"]


def test_a_folder_that_cannot_be_made_is_told(hu: Hu, geometry: Geometry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not write"):
        write_dicom_series(tmp_path / "file" / "series", hu, geometry, "case-1", "")


@pytest.mark.parametrize("case_id", ["", "x" * 65, "a\\b", "Müller", "a\nb"])
def test_a_case_id_that_dicom_cannot_hold(hu: Hu, geometry: Geometry, tmp_path: Path, case_id: str) -> None:
    with pytest.raises(ImageError, match="PatientID is 1 to 64 plain ASCII characters"):
        write_dicom_series(tmp_path / "series", hu, geometry, case_id, "")


def test_only_whole_hu_on_their_grid_are_written(hu: Hu, geometry: Geometry, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="got float32"):
        write_dicom_series(tmp_path / "series", hu.astype(np.float32), geometry, "case-1", "")  # type: ignore[arg-type]
    with pytest.raises(GridError, match="shape"):
        write_dicom_series(tmp_path / "series", hu[1:], geometry, "case-1", "")
