"""Layers of lesions on disk: overlaps, what a file may hold, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.errors import GridError, LabelError
from flrplan.image import Geometry
from flrplan.metrics.region import Region
from flrplan.workfolder import layer_paths, read_instances, union_of, write_instances
from flrplan.workfolder.instances import layers_of

GRID = Geometry((9, 8, 6), (0.8, 0.9, 2.5), (-3.0, 4.0, 5.0))


def lesion(z: slice, y: slice, x: slice) -> Region:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[z, y, x] = True
    return Region.of(mask, GRID.spacing_zyx_mm)


A = lesion(slice(1, 4), slice(1, 4), slice(1, 5))
TOUCHES_A = lesion(slice(1, 4), slice(1, 4), slice(5, 7))
OVERLAPS_BOTH = lesion(slice(3, 5), slice(3, 6), slice(4, 6))


def test_lesions_that_touch_share_a_layer_and_those_that_overlap_do_not() -> None:
    assert [np.unique(layer).tolist() for layer in layers_of({1: A, 2: TOUCHES_A}, GRID)] == [[0, 1, 2]]
    layers = layers_of({7: TOUCHES_A, 3: OVERLAPS_BOTH, 1: A}, GRID)  # by number: 1, then 3 in a layer of its own, 7 beside 1
    assert [np.unique(layer).tolist() for layer in layers] == [[0, 1, 7], [0, 3]]
    assert len(layers_of({}, GRID)) == 1  # no lesion is an answer, and has a file


def test_what_was_written_is_read_back_with_its_numbers(tmp_path: Path) -> None:
    given = {1: A, 3: OVERLAPS_BOTH, 7: TOUCHES_A}
    paths = write_instances(tmp_path / "c", given, GRID)
    assert tuple(paths) == layer_paths(tmp_path / "c")
    assert [p.name for p in paths] == ["layer1.nii.gz", "layer2.nii.gz"]
    found = read_instances(paths, GRID, "ct")
    assert list(found) == [1, 3, 7]
    for number, region in given.items():
        assert (found[number].start_zyx, found[number].voxels) == (region.start_zyx, region.voxels)
        assert np.array_equal(found[number].crop_zyx, region.crop_zyx)
    assert union_of(found, GRID).sum() == A.voxels + TOUCHES_A.voxels + OVERLAPS_BOTH.voxels - 1 - 1  # shares a voxel with each


def test_layers_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    assert layer_paths(tmp_path / "none") == ()
    paths = write_instances(tmp_path / "c", {1: A, 2: OVERLAPS_BOTH}, GRID)
    other = Geometry((9, 8, 6), (0.8, 0.9, 5.0), (-3.0, 4.0, 5.0))
    with pytest.raises(GridError, match=r"layer1\.nii\.gz is not on the grid of ct"):
        read_instances(paths, other, "ct")
    with pytest.raises(LabelError, match="lesion 1 is in another layer, too"):
        read_instances([paths[0], paths[0]], GRID, "ct")
    sitk.WriteImage(GRID.image(np.full(GRID.shape_zyx, 300, np.int16)), str(paths[1]))
    with pytest.raises(LabelError, match=r"layer2\.nii\.gz: expected lesions numbered 1 to 255, found 300"):
        read_instances(paths, GRID, "ct")
    paths[0].unlink()
    with pytest.raises(LabelError, match=r"expected layer1\.nii\.gz, found layer2\.nii\.gz"):
        layer_paths(tmp_path / "c")
    with pytest.raises(LabelError, match="numbered 1 to 255, found 256"):
        write_instances(tmp_path / "d", {256: A}, GRID)
