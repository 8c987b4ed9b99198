from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.errors import EmptyLiverError, GridError, ImageError, LabelError
from flrplan.geometry import Geometry
from flrplan.io import CT, read_ct, read_label_map, read_mask
from flrplan.labels import Structure

Write = Callable[..., Path]


@pytest.fixture
def ct(hu: Any, geometry: Geometry) -> CT:
    return CT(hu, geometry, "a", "the CT")


@pytest.fixture
def write(tmp_path: Path, geometry: Geometry) -> Write:
    def file(array: Any, grid: Geometry = geometry, name: str = "mask.nii.gz") -> Path:
        sitk.WriteImage(grid.image(array), str(tmp_path / name))
        return tmp_path / name

    return file


@pytest.mark.parametrize("value", [1, 5, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_zero_and_one_other_value_is_binary(ct: CT, write: Write, value: int, dtype: Any) -> None:
    inside = ct.array_zyx > 0
    mask = read_mask(write((inside * value).astype(dtype)), ct, Structure.LIVER)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, inside)


def test_not_binary(ct: CT, write: Write) -> None:
    array = np.zeros(ct.array_zyx.shape, np.uint8)
    array[0, 0, :3] = (1, 2, 5)
    with pytest.raises(
        LabelError, match=r"expected a binary crlm mask .* found the values \[0, 1, 2, 5\]; save the crlm alone"
    ):
        read_mask(write(array), ct, Structure.CRLM)


def test_only_the_liver_must_not_be_empty(ct: CT, write: Write) -> None:
    path = write(np.zeros(ct.array_zyx.shape, np.uint8))
    assert not read_mask(path, ct, Structure.CRLM).any()
    with pytest.raises(EmptyLiverError, match=r"mask.nii.gz: the liver mask has no voxels; draw the liver"):
        read_mask(path, ct, Structure.LIVER)


def test_another_grid(ct: CT, write: Write) -> None:
    grid = Geometry((24, 20, 12), (0.8, 0.9, 2.4), ct.geometry.origin_mm, ct.geometry.direction)
    with pytest.raises(GridError, match=r"mask.nii.gz is not on the grid of the CT"):
        read_mask(write(np.ones(ct.array_zyx.shape, np.uint8), grid), ct, Structure.LIVER)


def test_fractions_and_damage(ct: CT, write: Write, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"expected whole numbers as labels, found values 0\.5 to 0\.5"):
        read_label_map(write(np.full(ct.array_zyx.shape, 0.5, np.float32)))
    path = write(np.ones(ct.array_zyx.shape, np.uint8), name="cut.nii.gz")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ImageError, match=r"cut.nii.gz: the file is cut off"):
        read_mask(path, ct, Structure.LIVER)
    with pytest.raises(ImageError, match="no such file"):
        read_mask(tmp_path / "no.nii", ct, Structure.LIVER)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_are_no_label(ct: CT, write: Write, suffix: str, value: float, dtype: Any) -> None:
    """ITK alone reads them as 0 from NIfTI: an empty or torn mask."""
    array = np.zeros(ct.array_zyx.shape, dtype)
    array[-1, -1, -2:] = value
    path = write(array, name=f"mask{suffix}")
    for read in (read_label_map, lambda p: read_mask(p, ct, Structure.CRLM)):
        with pytest.raises(ImageError, match=rf"mask{suffix}: 2 of {array.size} voxels are NaN or infinite; export"):
            read(path)


def test_a_label_map_is_read_as_it_is(write: Write, geometry: Geometry) -> None:
    array = np.random.default_rng(1).integers(0, 5, geometry.shape_zyx).astype(np.uint8)
    found, grid = read_label_map(write(array))
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)
    assert grid.is_same_grid(geometry)


def test_a_dicom_seg_with_a_known_answer(public_data: Path) -> None:
    ct = read_ct(public_data / "dcmqi" / "ct-3slice")
    mask = read_mask(public_data / "dcmqi" / "liver.dcm", ct, Structure.LIVER)
    assert np.count_nonzero(mask) == 107_098
    assert np.array_equal(mask, read_mask(public_data / "dcmqi" / "liver_seg.nrrd", ct, Structure.LIVER))
    with pytest.raises(LabelError, match="do not hold crlm"):
        read_mask(public_data / "dcmqi" / "liver.dcm", ct, Structure.CRLM)


def test_a_dicom_ct_slice_is_no_mask(ct: CT, write_slice: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="expected a BINARY DICOM SEG"):
        read_mask(write_slice(tmp_path / "1.dcm", ct.array_zyx[0]), ct, Structure.LIVER)
