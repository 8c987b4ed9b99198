from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, SecondaryCaptureImageStorage

from flrplan.errors import ImageError
from flrplan.image import read_ct


def test_slices_are_sorted_by_position_and_exact(tmp_path: Path, hu: Any, write_series: Callable[..., Path]) -> None:
    ct = read_ct(write_series(tmp_path / "P01"))
    assert ct.name == "P01"
    assert ct.array_zyx.dtype == np.int16
    assert np.array_equal(ct.array_zyx, hu)
    assert ct.geometry.spacing_mm == (0.8, 0.9, 2.5)  # not SliceThickness 7; PixelSpacing is rows first
    assert ct.geometry.origin_mm == (-10.5, 20.25, 100.0)
    assert ct.warnings == ()


def test_rescale_may_vary_from_slice_to_slice(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    expected = hu.astype(np.float64)
    for z in range(12):
        slope, intercept = (0.5, -1000.25) if z == 3 else (1, -1024)
        stored = np.rint((hu[z] - intercept) / slope).astype(np.uint16)
        expected[z] = stored * slope + intercept
        write_slice(tmp_path / f"{z}.dcm", stored, z=2.5 * z, RescaleSlope=slope, RescaleIntercept=intercept)
    ct = read_ct(tmp_path)
    assert ct.array_zyx.dtype == np.float32
    assert np.array_equal(ct.array_zyx, expected)


@pytest.mark.parametrize(
    "cosines", [[1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1], [-1, 0, 0, 0, 1, 0], [0.8, 0.6, 0, -0.6, 0.8, 0]]
)
def test_any_orientation_is_stacked_along_its_normal(
    tmp_path: Path, hu: Any, write_slice: Callable[..., Path], cosines: list[float]
) -> None:
    row, column = np.array(cosines[:3], float), np.array(cosines[3:], float)
    normal = np.cross(row, column)
    for z, plane in enumerate(hu):
        position = [float(v) for v in 3.0 + 2.5 * z * normal]
        write_slice(tmp_path / f"{z * 7 % 12}.dcm", plane, ImagePositionPatient=position, ImageOrientationPatient=cosines)
    ct = read_ct(tmp_path)
    assert np.array_equal(ct.array_zyx, hu)
    assert np.allclose(ct.geometry.direction_matrix, np.stack([row, column, normal], axis=1))
    assert np.allclose(ct.geometry.origin_mm, 3.0)


def test_other_files_no_suffix_and_subfolders(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"S{z % 2}" / f"IM{z}", plane, z=2.5 * z)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "S0" / "empty").write_bytes(b"")
    assert np.array_equal(read_ct(tmp_path).array_zyx, hu)


def test_one_file_stands_for_its_series(tmp_path: Path, hu: Any, write_series: Callable[..., Path]) -> None:
    folder = write_series(tmp_path / "P01")
    ct = read_ct(folder / "95.dcm")
    assert ct.name == "P01"
    assert np.array_equal(ct.array_zyx, hu)


def test_two_volumes_need_a_choice(tmp_path: Path, hu: Any, write_series: Callable[..., Path]) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", SeriesInstanceUID="1.2.9", SeriesDescription="arterial")
    with pytest.raises(ImageError, match=r"2 CT series, expected one; give the folder of one, or its UID") as caught:
        read_ct(tmp_path)
    assert "1.2.2  portal  12 CT slices" in str(caught.value)
    assert "1.2.9  arterial  12 CT slices" in str(caught.value)
    assert np.array_equal(read_ct(tmp_path, series="1.2.9").array_zyx, hu)
    with pytest.raises(ImageError, match=r"no series 9\.9; found"):
        read_ct(tmp_path, series="9.9")


def test_a_localizer_and_a_screenshot_do_not_count(
    tmp_path: Path, hu: Any, write_series: Callable[..., Path], write_slice: Callable[..., Path]
) -> None:
    write_series(tmp_path)
    for z in range(2):
        write_slice(tmp_path / f"l{z}", hu[z], z=z, SeriesInstanceUID="1.2.8", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(tmp_path / "shot", hu[0], SeriesInstanceUID="1.2.7", SOPClassUID=SecondaryCaptureImageStorage)
    assert read_ct(tmp_path).array_zyx.shape == (12, 20, 24)
    write_slice(tmp_path / "l9", hu[0], z=500, ImageType=["DERIVED", "SECONDARY", "MIP"])
    assert read_ct(tmp_path).warnings == ("1 images of the series are not used: ImageType MIP: l9",)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "MR"}, "modality MR, not CT"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "Secondary Capture Image Storage, not CT Image Storage"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "ImageType LOCALIZER"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "ImageType SCREEN SAVE"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "colour or inverted picture"),
        ({"BitsAllocated": 8}, "8-bit picture"),
        ({"RescaleType": "Z_EFF"}, "values of type Z_EFF, not HU"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, r"multi-frame \(enhanced\) CT, convert it to NIfTI"),
    ],
)
def test_what_is_no_ct(tmp_path: Path, write_series: Callable[..., Path], tags: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=rf"no CT volume, expected one series(.|\n)*{message}"):
        read_ct(write_series(tmp_path, **tags))


@pytest.mark.parametrize("missing", [(1,), (5,), (10,), (4, 5)])
def test_missing_slices(tmp_path: Path, write_series: Callable[..., Path], missing: tuple[int, ...]) -> None:
    gap, before, after = 2.5 * (len(missing) + 1), 100 - missing[0], 98 - missing[-1]
    text = (
        rf"{len(missing)} slices are missing: expected steps of 2.5 mm, found {gap:g} mm between {before}.dcm and {after}.dcm"
    )
    with pytest.raises(ImageError, match=text):
        read_ct(write_series(tmp_path, skip=missing))


def test_positions_rounded_to_a_tenth_are_fine(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"{z}.dcm", plane, z=round(0.625 * z, 1))
    ct = read_ct(tmp_path)
    assert ct.geometry.spacing_mm[2] == pytest.approx(6.9 / 11)
    assert "from even steps of 0.627 mm; even steps are assumed" in ct.warnings[0]


def test_duplicate_positions(
    tmp_path: Path, hu: Any, write_series: Callable[..., Path], write_slice: Callable[..., Path]
) -> None:
    write_series(tmp_path, AcquisitionNumber=1)
    write_slice(tmp_path / "copy.dcm", hu[2], z=105, AcquisitionNumber=2)
    with pytest.raises(ImageError, match=r"1 slices lie where another one lies, .*97.dcm.*acquisitions 1, 2: several phases"):
        read_ct(tmp_path)


def test_gantry_tilt(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"{z}.dcm", plane, ImagePositionPatient=[0, 0.5 * z, 2.5 * z], GantryDetectorTilt=11.3)
    with pytest.raises(ImageError, match=r"11.dcm is 5.50 mm beside the first one, as after a gantry tilt of 11.3 degrees"):
        read_ct(tmp_path)


def test_a_slight_drift_is_a_warning(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"{z}.dcm", plane, ImagePositionPatient=[0, 0.01 * z, 2.5 * z])
    warnings = read_ct(tmp_path).warnings
    assert warnings == ("slices lie up to 0.11 mm beside a straight line, as by 0.23 degrees; a straight grid is assumed",)


@pytest.mark.parametrize(
    ("digits", "doubt"), [(6, ""), (3, "0.0.. degrees off a right angle"), (2, "0.894 degrees off a right angle")]
)
def test_rounded_cosines_are_straightened(
    tmp_path: Path, hu: Any, write_slice: Callable[..., Path], digits: int, doubt: str
) -> None:
    c, s = np.cos(0.31), np.sin(0.31)
    row, column = np.array([c, s, 0]), np.array([-s * c, c * c, s])
    normal = np.cross(row, column)
    cosines = [round(float(v), digits) for v in (*row, *column)]
    positions = [[float(v) for v in np.round(2.5 * z * normal, 3)] for z in range(12)]
    if digits == 2:
        cosines[1] += 0.01  # as careless as two digits can be
        positions = [[float(v) for v in 2.5 * z * np.cross(cosines[:3], cosines[3:])] for z in range(12)]
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"{z}.dcm", plane, ImagePositionPatient=positions[z], ImageOrientationPatient=cosines)
    ct = read_ct(tmp_path)
    assert np.array_equal(ct.array_zyx, hu)
    assert np.allclose(ct.geometry.direction_matrix.T @ ct.geometry.direction_matrix, np.eye(3), atol=2e-6)
    assert ct.geometry.spacing_mm[2] == pytest.approx(2.5, rel=2e-2 if digits == 2 else 1e-3)
    assert bool(ct.warnings) == bool(doubt)
    assert re.search(doubt, " ".join(ct.warnings))


def test_cosines_that_are_no_axes(tmp_path: Path, write_series: Callable[..., Path]) -> None:
    with pytest.raises(ImageError, match=r"ImageOrientationPatient: the direction is not orthonormal: \[1.1, "):
        read_ct(write_series(tmp_path / "a", ImageOrientationPatient=[1.1, 0, 0, 0, 1, 0]))
    with pytest.raises(
        ImageError, match=r"ImageOrientationPatient: the voxel grid is sheared .* 5.7.. degrees off a right angle, 1.71 mm"
    ):
        read_ct(write_series(tmp_path / "b", ImageOrientationPatient=[1, 0, 0, 0.1, 0.995, 0]))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [0.9, 0.7]}, "slices of one pixel spacing, but PixelSpacing is"),
        ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, "slices of one orientation, but ImageOrientationPatient is"),
        ({"PixelSpacing": None}, "50.dcm states no usable PixelSpacing"),
        ({"ImagePositionPatient": None}, "50.dcm states no usable ImagePositionPatient"),
        ({"PixelSpacing": [0, 0.8]}, "PixelSpacing must be positive, found 0 mm"),
        ({"RescaleSlope": 0}, "50.dcm has the rescale slope 0, so it holds no HU"),
    ],
)
def test_one_odd_slice(
    tmp_path: Path, hu: Any, write_series: Callable[..., Path], write_slice: Callable[..., Path], tags: Any, message: str
) -> None:
    write_series(tmp_path)
    write_slice(tmp_path / "50.dcm", hu[0], z=97.5, **tags)
    with pytest.raises(ImageError, match=message):
        read_ct(tmp_path)


def test_one_slice_of_another_size(
    tmp_path: Path, hu: Any, write_series: Callable[..., Path], write_slice: Callable[..., Path]
) -> None:
    write_series(tmp_path)
    write_slice(tmp_path / "50.dcm", np.ascontiguousarray(hu[0, :10]), z=97.5)
    with pytest.raises(ImageError, match=r"slices of one size, but Rows is \[\d+.0\] in 50.dcm and"):
        read_ct(tmp_path)


def test_stored_values_without_intercept_are_refused_by_their_values(
    tmp_path: Path, hu: Any, write_slice: Callable[..., Path]
) -> None:
    for z, plane in enumerate(hu):
        tags = {"RescaleSlope": None, "RescaleIntercept": None}
        write_slice(tmp_path / f"{z}.dcm", (plane + 1024).astype(np.uint16), z=2.5 * z, **tags)
    with pytest.raises(ImageError, match=r"looks like a CT stored as HU \+ 1024 \(rescale intercept lost\)"):
        read_ct(tmp_path)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, UID("1.2.840.10008.1.2.4.80")])
def test_undecodable_compression(tmp_path: Path, write_series: Callable[..., Path], syntax: UID) -> None:
    write_series(tmp_path, TransferSyntaxUID=syntax, PixelData=encapsulate([b"no such picture." * 9]))
    with pytest.raises(ImageError, match=r"its pixels cannot be decoded \(transfer syntax JPEG.*without compression"):
        read_ct(tmp_path)


@pytest.mark.parametrize(
    ("keep", "message"), [(-200, "cannot be decoded"), (60, "cut off or damaged"), (0, "cut off or damaged")]
)
def test_a_file_cut_off(tmp_path: Path, write_series: Callable[..., Path], keep: int, message: str) -> None:
    write_series(tmp_path)
    file = tmp_path / "94.dcm"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ImageError, match=rf"94.dcm: .*{message}"):
        read_ct(tmp_path)


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no DICOM images in this folder"):
        read_ct(tmp_path)


def test_one_slice_is_no_volume(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    write_slice(tmp_path / "1.dcm", hu[0], z=0)
    with pytest.raises(ImageError, match=r"no CT volume, expected one series of at least 2 CT slices; found(.|\n)*1 CT slices"):
        read_ct(tmp_path)


def test_colour_pictures_are_no_ct(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    for z in range(3):
        write_slice(tmp_path / f"{z}.dcm", hu[z], z=z, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    with pytest.raises(ImageError, match=r"no CT volume(.|\n)*colour or inverted picture \(RGB\)"):
        read_ct(tmp_path)
