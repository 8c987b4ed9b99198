from __future__ import annotations

import numpy as np
import pytest

from flrplan.errors import GridError
from flrplan.metrics import Region

SPACING = (2.5, 0.7, 0.9)


def test_crop_is_the_bounding_box():
    mask = np.zeros((6, 7, 8), bool)
    mask[2:4, 3, 5:8] = True
    region = Region.of(mask, SPACING)
    assert region.start_zyx == (2, 3, 5)
    assert region.crop_zyx.shape == (2, 1, 3)
    assert region.voxels == 6
    assert region.volume_ml == pytest.approx(6 * 2.5 * 0.7 * 0.9 / 1000)


def test_empty_mask():
    region = Region.of(np.zeros((6, 7, 8), bool), SPACING)
    assert region.is_empty
    assert region.volume_ml == 0.0
    assert region.surface.area_mm2 == 0.0


def test_shared_voxels_of_boxes_apart_touching_and_overlapping():
    def box(z: slice) -> Region:
        mask = np.zeros((9, 4, 4), bool)
        mask[z] = True
        return Region.of(mask, SPACING)

    assert box(slice(0, 2)).voxels_shared_with(box(slice(5, 9))) == 0
    assert box(slice(0, 2)).voxels_shared_with(box(slice(2, 9))) == 0
    assert box(slice(0, 5)).voxels_shared_with(box(slice(4, 9))) == 16


def test_other_grid_is_refused():
    with pytest.raises(GridError, match="one grid"):
        Region.of(np.ones((2, 3, 4), bool), SPACING).voxels_shared_with(Region.of(np.ones((2, 3, 5), bool), SPACING))
    with pytest.raises(GridError, match="spacings"):
        Region.of(np.ones((2, 3, 4), bool), SPACING).voxels_shared_with(Region.of(np.ones((2, 3, 4), bool), (1.0, 1.0, 1.0)))


def test_crop_does_not_hold_the_whole_volume():
    mask = np.zeros((50, 50, 50), bool)
    mask[1, 1, 1] = True
    assert Region.of(mask, SPACING).crop_zyx.base is None
