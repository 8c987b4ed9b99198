"""Enhanced (multi-frame) CT: frames are slices, placed and scaled by their functional groups, and checked as slices are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from flrplan.errors import ImageError
from flrplan.image import read_ct
from flrplan.preparation.slice_offsets import slice_offsets_mm

Write = Callable[..., Path]
ORDER = [7, 2, 11, 0, 5, 9, 1, 10, 3, 6, 4, 8]
Z_MM = [100 + 2.5 * z for z in ORDER]


@pytest.mark.parametrize("name", ["enhanced.dcm", "IM1"])
def test_frames_in_any_order_are_placed_by_their_groups(tmp_path: Path, hu: Any, write_enhanced: Write, name: str) -> None:
    path = write_enhanced(tmp_path / "P1" / name, hu[ORDER], Z_MM)
    for ct in (read_ct(path), read_ct(path.parent)):
        assert ct.array_zyx.dtype == np.int16
        assert np.array_equal(ct.array_zyx, hu)
        assert ct.geometry.spacing_mm == (0.8, 0.9, 2.5)  # not SliceThickness 7
        assert ct.geometry.origin_mm == (-10.5, 20.25, 100.0)
        assert ct.warnings == ()
    assert np.array_equal(slice_offsets_mm(path, None, ct.geometry), np.zeros(12))


def test_each_frame_has_its_own_rescale(tmp_path: Path, hu: Any, write_enhanced: Write) -> None:
    frames: list[dict[str, Any]] = [{"slope": 1, "intercept": -1024}] * 12
    frames[4] = {"slope": 0.5, "intercept": -1000.25}
    stored = (hu + 1024).astype(np.uint16)
    stored[4] = np.rint((hu[4] + 1000.25) / 0.5).astype(np.uint16)
    ct = read_ct(write_enhanced(tmp_path / "ct.dcm", stored, 2.5 * np.arange(12), frames))
    expected = hu.astype(float)
    expected[4] = stored[4] * 0.5 - 1000.25
    assert ct.array_zyx.dtype == np.float32
    assert np.array_equal(ct.array_zyx, expected)


def test_a_series_of_two_multi_frame_files_and_legacy_class(tmp_path: Path, hu: Any, write_enhanced: Write) -> None:
    for n, part in enumerate((slice(0, 5), slice(5, 12))):
        legacy = "1.2.840.10008.5.1.4.1.1.2.2"
        write_enhanced(tmp_path / f"{n}.dcm", hu[part], 2.5 * np.arange(12)[part], SOPClassUID=legacy, Modality=None)
    assert np.array_equal(read_ct(tmp_path).array_zyx, hu)


@pytest.mark.parametrize("key", ["stack", "time"])
def test_several_stacks_or_phases_are_named(tmp_path: Path, hu: Any, write_enhanced: Write, key: str) -> None:
    one, two = ("1", "2") if key == "stack" else (1, 2)
    frames = [{key: one}] * 12 + [{key: two}] * 12
    path = write_enhanced(tmp_path / "ct.dcm", np.concatenate([hu, hu + 9]), 2.5 * np.array([*range(12)] * 2), frames)
    what = {"stack": "stacks 1, 2", "time": "times 1, 2"}[key]
    with pytest.raises(
        ImageError, match=rf"12 slices lie where .* frame 1 and .* frame 13 \({what}: several phases in one series"
    ):
        read_ct(path)


def test_frames_are_checked_as_slices_are(tmp_path: Path, hu: Any, write_enhanced: Write) -> None:
    z_mm = 2.5 * np.arange(12)
    with pytest.raises(ImageError, match=r"2 slices are missing: .* between ct.dcm frame 6 and ct.dcm frame 7"):
        read_ct(write_enhanced(tmp_path / "a" / "ct.dcm", hu, z_mm + 5 * (np.arange(12) > 5)))
    turned = [{}] * 11 + [{"cosines": [0, 1, 0, -1, 0, 0]}]
    with pytest.raises(ImageError, match=r"slices of one orientation, but .* in ct.dcm frame 12"):
        read_ct(write_enhanced(tmp_path / "b" / "ct.dcm", hu, z_mm, turned))
    scout = [{"kind": "LOCALIZER"}] + [{"kind": "VOLUME"}] * 11
    ct = read_ct(write_enhanced(tmp_path / "c" / "ct.dcm", hu, z_mm, scout))
    assert np.array_equal(ct.array_zyx, hu[1:])
    assert ct.warnings == ("1 images of the series are not used: ImageType LOCALIZER: ct.dcm frame 1",)


def test_damaged_multi_frame_files(tmp_path: Path, hu: Any, write_enhanced: Write) -> None:
    z_mm = 2.5 * np.arange(12)
    path = write_enhanced(tmp_path / "ct.dcm", hu, z_mm)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3000])
    with pytest.raises(
        ImageError, match=r"ct.dcm: the pixels of frame 1 cannot be read \(12 frames need 11520 bytes, found 8520\)"
    ):
        read_ct(path)
    with pytest.raises(ImageError, match=r"ct.dcm: this DICOM file is damaged: 12 functional groups for 13 frames"):
        read_ct(write_enhanced(path, hu, z_mm, NumberOfFrames=13))
    with pytest.raises(ImageError, match=r"ct.dcm frame 1 states no usable ImageOrientationPatient"):
        read_ct(write_enhanced(path, hu, z_mm, SharedFunctionalGroupsSequence=None))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless, JPEG2000Lossless])
def test_any_transfer_syntax_of_a_slice(tmp_path: Path, hu: Any, write_enhanced: Write, syntax: pydicom.uid.UID) -> None:
    path = write_enhanced(tmp_path / "P1" / "ct.dcm", hu[ORDER], Z_MM)
    data = pydicom.dcmread(path)
    if syntax is RLELossless:
        data.compress(RLELossless)
    elif syntax is JPEG2000Lossless:
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG2000")
        writer.SetFileName(str(tmp_path / "plane.dcm"))
        frames = []
        for plane in hu[ORDER]:
            writer.Execute(sitk.GetImageFromArray(plane[None]))
            frames.append(next(generate_pixel_data_frame(pydicom.dcmread(tmp_path / "plane.dcm").PixelData, 1)))
        data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate(frames), syntax
        data["PixelData"].VR = "OB"
    else:
        data.PixelData = hu[ORDER].astype(">i2").tobytes()
        data.is_little_endian, data.file_meta.TransferSyntaxUID = False, syntax
    data.save_as(path)
    assert np.array_equal(read_ct(path).array_zyx, hu)
