"""Calibration, Dice by threshold and FROC of bytes round(255 p), by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flrplan.metrics import Region, Undefined
from flrplan.metrics.calibration import (
    SWEEP_THRESHOLDS,
    Reliability,
    VoxelCounts,
    above,
    calibration_outcomes,
    dice_sweep,
    first_above,
)
from flrplan.metrics.froc import Candidates, froc_candidates, froc_curve, sensitivity_at
from flrplan.metrics.lesions import lesions_of
from flrplan.metrics.overlap import dice

SPACING = (2.5, 0.7, 0.9)
SHAPE = (6, 10, 12)


def region(mask: np.ndarray) -> Region:
    return Region.of(mask, SPACING)


def some(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes, truth and an inner region, at random."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(SHAPE, bool)
    inside[1:5, 2:9, 3:11] = True
    return rng.integers(0, 256, SHAPE).astype(np.uint8) * inside, rng.random(SHAPE) > 0.6, inside


def test_thresholds_on_bytes():
    assert [first_above(t) for t in (0.5, 0.1, 0.2, 0.6)] == [128, 26, 52, 154]  # 0.2 and 0.6 are bytes 51 and 153: not above
    assert above(np.array([127, 128], np.uint8), 0.5).tolist() == [False, True]


def test_counts_are_those_of_plain_masks_with_and_without_a_region():
    values, truth, inside = some()
    for where, given in ((np.ones(SHAPE, bool), None), (inside, region(inside))):
        counts = VoxelCounts.of(values, region(truth), given)
        assert np.array_equal(counts.all, np.bincount(values[where], minlength=256))
        assert np.array_equal(counts.true, np.bincount(values[where & truth], minlength=256))
    assert VoxelCounts.of(values, region(truth & False), region(inside)).true.sum() == 0


def test_dice_at_each_threshold_is_that_of_the_mask():
    values, truth, _ = some(1)
    sweep = dice_sweep(VoxelCounts.of(values, region(truth)))
    for threshold, value in zip(SWEEP_THRESHOLDS, sweep, strict=True):
        assert value == pytest.approx(dice(truth, values / 255 > threshold + 1e-9))


@pytest.mark.parametrize(("truth", "byte", "expected"), [(True, 0, 0.0), (False, 255, 0.0), (False, 0, math.nan)])
def test_dice_of_empty_masks(truth: bool, byte: int, expected: float):
    values = np.full(SHAPE, byte, np.uint8)
    counts = VoxelCounts.of(values, region(np.full(SHAPE, truth)))
    assert dice_sweep(counts) == pytest.approx([expected] * len(SWEEP_THRESHOLDS), nan_ok=True)


def test_brier_and_ece_by_hand():
    # Ten voxels: 4 of p = 0.2 (one true), 6 of p = 0.8 (three true).
    values = np.array([51] * 4 + [204] * 6, np.uint8).reshape(1, 1, 10)
    truth = np.array([1, 0, 0, 0, 1, 1, 1, 0, 0, 0], bool).reshape(1, 1, 10)
    counts = VoxelCounts.of(values, region(truth), region(np.ones((1, 1, 10), bool)))
    found = calibration_outcomes(counts)
    assert found["brier"] == pytest.approx((0.8**2 + 3 * 0.2**2 + 3 * 0.2**2 + 3 * 0.8**2) / 10)
    assert found["ece"] == pytest.approx((abs(0.8 - 1) + abs(4.8 - 3)) / 10)  # sums of p against numbers of true voxels, by bin
    bins = Reliability.of(counts)
    assert bins.voxels.tolist() == [0, 0, 4, 0, 0, 0, 0, 0, 6, 0]
    assert bins.true.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 3, 0]
    assert (bins + bins).voxels.sum() == 20


def test_calibration_without_a_region_is_undefined():
    values, truth, _ = some()
    counts = VoxelCounts.of(values, region(truth), region(np.zeros(SHAPE, bool)))
    assert calibration_outcomes(counts) == {"brier": Undefined.NO_REGION, "ece": Undefined.NO_REGION}


def test_candidates_their_scores_and_what_they_find():
    truth, values = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.uint8)
    truth[1, 1, 0:5] = truth[1, 1, 5:9] = True  # touching lesions of 5 and 4 voxels
    truth[4, 8, 8:11] = True
    first, second = truth & False, truth & False
    first[1, 1, 0:5], second[1, 1, 5:9] = True, True
    third = truth & ~first & ~second
    values[1, 1, 0:9], values[1, 1, 2] = 60, 200  # over both: IoU 5/9 and 4/9, score 200
    values[4, 8, 8:11] = 90  # the third, below 0.5
    values[4, 2, 2] = 255  # false
    values[5, 5, 5] = 25  # below 0.1: no candidate
    found = froc_candidates(values, region(truth), [region(m) for m in (first, second, third)])
    assert found.lesions == 3
    assert sorted(found.scored) == [(90 / 255, True), (200 / 255, True), (1.0, False)]


def test_nothing_to_find_and_nothing_found():
    empty, values = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.uint8)
    assert froc_candidates(values, region(empty), []) == Candidates(0, ())
    values[1, 1, 1] = 100
    assert froc_candidates(values, region(empty), []) == Candidates(0, ((100 / 255, False),))
    truth = empty.copy()
    truth[3, 3, 3] = True
    assert froc_candidates(values & 0, region(truth), lesions_of(region(truth))) == Candidates(1, ())


def test_the_curve_by_hand():
    cases = [
        Candidates(3, ((1.0, True), (0.9, False), (0.6, True))),
        Candidates(0, ((0.9, False),)),  # without a lesion it still counts as a case
        Candidates(1, ((0.3, False),)),
    ]
    curve = froc_curve(cases)
    assert [(p.threshold, p.false_positives_per_case, p.sensitivity) for p in curve] == [
        (1.0, 0.0, 0.25),
        (0.9, pytest.approx(2 / 3), 0.25),  # equal scores come in together
        (0.6, pytest.approx(2 / 3), 0.5),
        (0.3, 1.0, 0.5),
    ]
    assert [sensitivity_at(curve, fp) for fp in (0.5, 2 / 3, 1.0, 8.0)] == [0.25, 0.5, 0.5, 0.5]
    assert sensitivity_at(froc_curve([Candidates(1, ((0.9, False), (0.8, True)))]), 0.5) == 0.0
    assert froc_curve([Candidates(0, ((0.9, False),))]) == ()
    assert froc_curve([Candidates(2, ())]) == ()
