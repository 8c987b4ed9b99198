from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from flrplan.metrics import nearest
from flrplan.metrics.nearest import nearest_distances_mm

SPACING = (2.5, 0.7, 0.9)


@pytest.mark.parametrize("near_steps", [1, 30, 600])
def test_near_and_far_points_agree_with_a_distance_transform(monkeypatch, near_steps):
    # Few near steps send most points to the k-d tree, many send none there.
    monkeypatch.setattr(nearest, "NEAR_STEPS", near_steps)
    nearest._near_steps.cache_clear()
    rng = np.random.default_rng(near_steps)
    targets = rng.random((24, 30, 28)) < 0.002
    points = rng.random(targets.shape) < 0.05
    transform = ndimage.distance_transform_edt(~targets, sampling=SPACING)
    found = nearest_distances_mm(np.argwhere(points).astype(np.int32), np.argwhere(targets).astype(np.int32), SPACING)
    np.testing.assert_array_equal(found, transform[points])
    nearest._near_steps.cache_clear()


def test_points_far_apart_and_shared():
    points = np.array([[0, 0, 0], [5, 5, 5]], np.int32)
    targets = np.array([[5, 5, 5], [100, 200, 300]], np.int32)
    by_hand = np.sqrt((5 * 2.5) ** 2 + (5 * 0.7) ** 2 + (5 * 0.9) ** 2)
    assert nearest_distances_mm(points, targets, SPACING).tolist() == [pytest.approx(by_hand), 0.0]


def test_exactly_at_a_tolerance_stays_at_it():
    # 10 - 7 steps of 0.7 mm are 3 * 0.7, wherever on the grid they lie.
    for start in range(50):
        points, targets = np.array([[0, start, 0]], np.int32), np.array([[0, start + 3, 0]], np.int32)
        assert nearest_distances_mm(points, targets, SPACING)[0] == np.sqrt((3 * 0.7) ** 2)
