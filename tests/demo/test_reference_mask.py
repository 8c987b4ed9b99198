"""The reference liver of a real CT: brought onto its grid, judging only what it covers."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.demo.reference_mask import read_reference
from flrplan.errors import EmptyLiverError, GridError, LabelError
from flrplan.image import CT, Geometry, read_ct, read_label_map

C, S = np.cos(0.2), np.sin(0.2)
CT_GRID = Geometry((8, 8, 6), (2.0, 2.0, 3.0), (-31.0, 12.0, 700.0), (C, -S, 0, S, C, 0, 0, 0, 1))
THE_CT = CT(np.zeros((6, 8, 8), np.int16), CT_GRID, "a", "the CT")

Write = Callable[..., Path]


def grid_at(first_xyz: tuple[float, float, float], size: tuple[int, int, int], spacing: tuple[float, float, float]) -> Geometry:
    """A grid along the CT's axes whose first voxel has its centre at this index of the CT."""
    (origin,) = CT_GRID.world_mm(np.array([first_xyz])).tolist()
    return Geometry(size, spacing, tuple(origin), CT_GRID.direction)


HALF = grid_at((0.5, 0.5, 0), (4, 4, 3), (4.0, 4.0, 3.0))
"""Half the resolution in plane, the lower three of six slices: voxel i holds the CT's 2i and 2i + 1."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(array: np.ndarray, grid: Geometry = HALF) -> Path:
        sitk.WriteImage(grid.image(array), str(tmp_path / "liver.nii.gz"))
        return tmp_path / "liver.nii.gz"

    return file


def half_label(value: int = 1) -> np.ndarray:
    label = np.zeros((3, 4, 4), np.uint8)
    label[1, 1:3, 1:3] = value
    label[1, 1, 3] = value  # at the edge of the label's grid
    return label


@pytest.mark.parametrize("mirrored", [False, True])
def test_another_grid_is_brought_onto_the_ct(write: Write, mirrored: bool) -> None:
    label, grid = half_label(), HALF
    if mirrored:  # the same voxels in the patient, stored from the other end
        matrix = HALF.direction_matrix * [-1, 1, 1]
        (origin,) = HALF.world_mm(np.array([[3.0, 0, 0]])).tolist()
        label, grid = label[:, :, ::-1], Geometry(HALF.size_xyz, HALF.spacing_mm, tuple(origin), tuple(matrix.ravel().tolist()))
    reference = read_reference(write(label, grid), THE_CT)
    expected = np.zeros((6, 8, 8), bool)
    expected[1, 2:6, 2:6] = True
    expected[1, 2:4, 6:8] = True
    assert np.array_equal(reference.liver, expected)
    assert reference.covered[:3].all()
    assert not reference.covered[3:].any()
    assert "4x4x3 of 4 x 4 x 3 mm, and was brought onto the CT's by nearest neighbour" in reference.notes[0]
    assert "covers 3 of the CT's 6 slices" in reference.notes[0]
    assert "reaches the edge of its own grid" in reference.notes[1]


def test_a_part_in_plane_is_said(write: Write) -> None:
    label = np.zeros((3, 4, 4), np.uint8)
    label[1, 1, 1] = 1
    reference = read_reference(write(label, grid_at((4, 0, 0), (4, 4, 3), (2.0, 2.0, 3.0))), THE_CT)
    assert np.argwhere(reference.liver).tolist() == [[1, 1, 5]]
    assert reference.notes == (reference.notes[0],)
    assert reference.notes[0].endswith("3 of the CT's 6 slices and 25% of their voxels")


def test_one_value_of_many(write: Write) -> None:
    label = half_label(5)
    label[0, 0, 0] = 2
    reference = read_reference(write(label), THE_CT, 5)
    assert np.count_nonzero(reference.liver) == 20
    with pytest.raises(LabelError, match=r"expected a binary liver, found 2 values, \[2, 5\]; say which, liver.nii.gz:VALUE"):
        read_reference(write(label), THE_CT)
    with pytest.raises(LabelError, match=r"expected the value 3 for the liver, found \[2, 5\]"):
        read_reference(write(label), THE_CT, 3)


def test_the_same_grid_judges_everything(write: Write) -> None:
    label = np.zeros((6, 8, 8), np.uint8)
    label[2, 3, 4] = 255
    reference = read_reference(write(label, CT_GRID), THE_CT)
    assert np.argwhere(reference.liver).tolist() == [[2, 3, 4]]
    assert reference.covered.all()
    assert reference.notes == ()


def test_a_label_of_another_scan_is_refused(write: Write) -> None:
    beside = grid_at((50.0, 0, 0), (4, 4, 3), (4.0, 4.0, 3.0))
    with pytest.raises(GridError, match=r"100% of its liver lies outside the CT; expected a label of the same scan"):
        read_reference(write(half_label(), beside), THE_CT)
    partly = grid_at((3.5, 0.5, 0), (4, 4, 3), (4.0, 4.0, 3.0))  # its third column is the CT's 7 and 8, the last lies outside
    with pytest.raises(GridError, match=r"20% of its liver lies outside"):
        read_reference(write(half_label(), partly), THE_CT)
    with pytest.raises(EmptyLiverError, match="the liver has no voxels"):
        read_reference(write(np.zeros((3, 4, 4), np.uint8)), THE_CT)


def test_the_public_references(real_data: Path, tmp_path: Path) -> None:
    ct = read_ct(real_data / "totalseg" / "example_ct.nii.gz")
    reference = read_reference(real_data / "totalseg" / "example_seg_fast_force_split.nii.gz", ct, 5)
    assert np.count_nonzero(reference.liver) == 41_692
    assert reference.covered.all()
    with tarfile.open(real_data / "lidc0001" / "LIDC-IDRI-0001_dicom133.tar.xz") as archive:
        archive.extractall(tmp_path)
    ct, path = read_ct(tmp_path), real_data / "lidc0001" / "abdomen_1p4x1p4x2p5_liver.nii.gz"
    reference = read_reference(path, ct)
    label, grid = read_label_map(path)
    ml = np.count_nonzero(reference.liver) * ct.geometry.voxel_volume_ml
    assert ml == pytest.approx(np.count_nonzero(label) * grid.voxel_volume_ml, rel=0.001)
    assert reference.covered.any(axis=(1, 2)).tolist() == [True] * 75 + [False] * 58
    assert len(reference.notes) == 1  # the whole liver is inside
