from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Structure, check_planning_map
from flrplan.errors import EmptyLiverError, GridError, ImageError, LabelError
from flrplan.image import CT, Geometry, read_ct, read_label_map, read_mask

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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            [1, 2, 3],
            r"found the values \[0, 1, 2, 3\], which looks like a label map \(of a planning map, .* crlm 3 and 4, flr 1 and 4\)",
        ),
        ([-900, 40, 1200], "which looks like a CT in place of a mask"),
        (range(1, 200), "which looks like an image or a probability map in place of a mask"),
    ],
)
def test_what_stands_in_place_of_a_mask_is_named(ct: CT, write: Write, values: Any, said: str) -> None:
    array = np.zeros(ct.array_zyx.shape, np.int16)
    array.ravel()[: len(values)] = values
    with pytest.raises(LabelError, match=said):
        read_mask(write(array), ct, Structure.LIVER)
    with pytest.raises(LabelError, match=r"with fractions \(a CT\)"):
        read_label_map(write(np.full(ct.array_zyx.shape, -0.5, np.float32)))


def test_what_stands_in_place_of_a_planning_map_is_named() -> None:
    for values, said in (
        ([0, 255], r"a binary mask as pictures hold it \(write 1 for 255\)"),
        ([0, -1000, 70], "a CT in place"),
    ):
        with pytest.raises(LabelError, match=f"which looks like {said}"):
            check_planning_map(np.array(values), "map")


def test_the_segments_of_3d_slicer(ct: CT, tmp_path: Path) -> None:
    """A ``.seg.nrrd`` names its segments in the header; they may have any values, and a liver holds its tumours."""
    array = np.zeros(ct.array_zyx.shape, np.uint8)
    array[2:8, 4:12, 4:12], array[3, 5, 5:9], array[0, 0, 0] = 7, 2, 4
    image = ct.geometry.image(array)
    for number, (name, value) in enumerate((("Liver", 7), ("CRLM", 2), ("spleen", 4))):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
    path = tmp_path / "drawn.seg.nrrd"
    sitk.WriteImage(image, str(path))
    assert np.array_equal(read_mask(path, ct, Structure.LIVER), (array == 7) | (array == 2))
    assert np.array_equal(read_mask(path, ct, Structure.CRLM), array == 2)
    with pytest.raises(LabelError, match="do not hold flr"):
        read_mask(path, ct, Structure.FLR)
    sitk.WriteImage(sitk.Compose(image, image), str(tmp_path / "layers.seg.nrrd"))  # the header is lost
    with pytest.raises(
        LabelError, match=r"layers\.seg\.nrrd: its segments overlap and lie in layers, but its header names none"
    ):
        read_mask(tmp_path / "layers.seg.nrrd", ct, Structure.LIVER)
    image.SetMetaData("Segment1_Name", "Liver")
    sitk.WriteImage(image, str(path))
    with pytest.raises(LabelError, match="are not all called differently"):
        read_mask(path, ct, Structure.LIVER)


def test_a_folder_in_place_of_a_mask(ct: CT, write: Write, write_slice: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    write_slice(folder / "1.dcm", ct.array_zyx[0])
    with pytest.raises(LabelError, match=r"1\.dcm: expected a BINARY DICOM SEG, found a slice of a CT; give the segmentation"):
        read_mask(folder, ct, Structure.LIVER)
    write_slice(folder / "2.dcm", ct.array_zyx[1])
    with pytest.raises(
        ImageError, match=r"exported is a folder, expected the file of a mask or of a DICOM SEG; give one of its 2"
    ):
        read_mask(folder, ct, Structure.LIVER)
    write_slice(tmp_path / "rt.dcm", ct.array_zyx[0], Modality="RTSTRUCT")
    with pytest.raises(LabelError, match="found an RT structure set, which holds contours; convert it"):
        read_mask(tmp_path / "rt.dcm", ct, Structure.LIVER)
