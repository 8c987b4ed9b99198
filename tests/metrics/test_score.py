"""Hand-computed metrics of small masks, and the declared results on empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.metrics import EMPTY_MASKS, Emptiness, Region, Undefined, score_mask
from flrplan.metrics.catalogue import METRICS, metrics_of
from flrplan.metrics.lesions import IOU_THRESHOLDS, SizeClass, iou_key, match_lesions
from flrplan.metrics.surface import surface_outcomes

SPACING = (2.5, 0.7, 0.9)


MIDDLE = slice(2, 12)


def block(z: slice, y: slice = MIDDLE, x: slice = MIDDLE) -> np.ndarray:
    mask = np.zeros((16, 16, 16), bool)
    mask[z, y, x] = True
    return mask


def scores(structure: Structure, reference: np.ndarray, prediction: np.ndarray, spacing=SPACING):
    return score_mask(structure, {structure: Region.of(reference, spacing)}, Region.of(prediction, spacing))


def test_shift_by_one_slice():
    values = scores(Structure.LIVER, block(slice(2, 12)), block(slice(3, 13))).values
    assert values["dice"] == values["precision"] == values["recall"] == pytest.approx(0.9)
    assert values["volume_error_ml"] == 0.0
    # 2.5 mm is inside the liver's 5 mm and nothing moved further: the caps moved by 2.5 mm.
    assert values["nsd"] == 1.0
    assert values["hd95_mm"] == pytest.approx(2.5)


def test_shift_beyond_the_tolerance_of_tumours():
    values = scores(Structure.CRLM, block(slice(2, 12)), block(slice(3, 13))).values
    assert values["nsd"] < 1.0  # 2.5 mm is outside the tumour's 2 mm


def test_parallel_plates_have_known_distances():
    # Two plates of one voxel, 4 slices apart: every point of one is 10 or 12.5 mm from the nearer face of the other.
    one, two = (Region.of(block(slice(k, k + 1), slice(0, 16), slice(0, 16)), SPACING) for k in (2, 7))
    outcomes = surface_outcomes(one.surface, two.surface, 10.0)
    assert outcomes["hd95_mm"] == pytest.approx(12.5)
    # Both faces of a plate have the same area: half of it at 10 mm (within, inclusive), half at 12.5 mm.
    assert outcomes["nsd"] == pytest.approx(0.5)
    assert outcomes["assd_mm"] == pytest.approx(11.25)


def test_volume_error_is_signed():
    values = scores(Structure.LIVER, block(slice(2, 12)), block(slice(2, 4))).values
    assert values["volume_error_ml"] == pytest.approx(-8 * 100 * 2.5 * 0.7 * 0.9 / 1000)
    assert values["volume_abs_error_ml"] == -values["volume_error_ml"]


def test_flr_percent_leaves_tumour_out_above_and_below():
    liver, flr, predicted = block(slice(0, 10)), block(slice(0, 4)), block(slice(0, 2))
    crlm = block(slice(3, 5))  # one slice in the remnant, one outside
    references = {s: Region.of(m, SPACING) for s, m in ((Structure.LIVER, liver), (Structure.CRLM, crlm), (Structure.FLR, flr))}
    values = score_mask(Structure.FLR, references, Region.of(predicted, SPACING)).values
    assert values["flr_percent_reference"] == pytest.approx(100 * 3 / 8)
    assert values["flr_percent_prediction"] == pytest.approx(100 * 2 / 8)
    assert values["flr_percent_error"] == pytest.approx(-12.5)
    assert (values["crossing_20"], values["crossing_30"], values["crossing_40"]) == (0.0, 1.0, 0.0)


def test_flr_percent_of_the_true_liver_and_of_its_own_stand_beside_each_other():
    references = {
        s: Region.of(m, SPACING)
        for s, m in (
            (Structure.LIVER, block(slice(0, 10))),
            (Structure.CRLM, np.zeros((16,) * 3, bool)),
            (Structure.FLR, block(slice(0, 4))),
        )
    }
    # Its own liver has 9 slices, one of them called tumour, which is in the remnant: 3 of 8, against 4 of 10.
    own = {Structure.LIVER: Region.of(block(slice(0, 9)), SPACING), Structure.CRLM: Region.of(block(slice(2, 3)), SPACING)}
    values = score_mask(Structure.FLR, references, references[Structure.FLR], own).values
    assert (values["flr_percent_reference"], values["flr_percent_prediction"], values["flr_percent_error"]) == (40.0, 40.0, 0.0)
    assert values["flr_percent_own_prediction"] == pytest.approx(37.5)
    assert values["flr_percent_own_error"] == pytest.approx(-2.5)
    assert values["flr_percent_own_abs_error"] == pytest.approx(2.5)
    assert [values[f"crossing_{t}"] for t in (20, 30, 40)] == [0.0, 0.0, 0.0]
    assert [values[f"crossing_own_{t}"] for t in (20, 30, 40)] == [0.0, 0.0, 1.0]


def test_exactly_at_the_threshold_is_not_below():
    references = {
        s: Region.of(m, SPACING)
        for s, m in (
            (Structure.LIVER, block(slice(0, 10))),
            (Structure.CRLM, np.zeros((16,) * 3, bool)),
            (Structure.FLR, block(slice(0, 4))),
        )
    }
    more = score_mask(Structure.FLR, references, Region.of(block(slice(0, 5)), SPACING)).values
    less = score_mask(Structure.FLR, references, Region.of(block(slice(0, 3)), SPACING)).values
    assert (more["crossing_40"], less["crossing_40"]) == (0.0, 1.0)


def test_no_liver_to_divide_by():
    empty, some = np.zeros((16,) * 3, bool), block(slice(0, 4))
    references = {
        Structure.LIVER: Region.of(block(slice(0, 8)), SPACING),
        Structure.CRLM: Region.of(empty, SPACING),
        Structure.FLR: Region.of(some, SPACING),
    }
    own = dict.fromkeys((Structure.LIVER, Structure.CRLM), Region.of(empty, SPACING))
    result = score_mask(Structure.FLR, references, Region.of(some, SPACING), own)
    assert result.values["flr_percent_reference"] == result.values["flr_percent_prediction"] == 50.0
    assert result.reasons["flr_percent_own_prediction"] is Undefined.NO_PREDICTED_LIVER
    assert result.reasons["crossing_own_30"] is Undefined.NO_PREDICTED_LIVER
    assert math.isnan(result.values["flr_percent_own_error"])


@pytest.mark.parametrize("emptiness", [Emptiness.REFERENCE, Emptiness.PREDICTION, Emptiness.BOTH])
@pytest.mark.parametrize("metric", list(EMPTY_MASKS))
def test_empty_masks_give_what_is_declared(metric, emptiness):
    some, empty = block(slice(2, 5)), np.zeros((16,) * 3, bool)
    reference = some if emptiness is Emptiness.PREDICTION else empty
    prediction = some if emptiness is Emptiness.REFERENCE else empty
    result = scores(Structure.CRLM, reference, prediction)
    names = [f"{metric}_{iou_key(t)}" for t in IOU_THRESHOLDS] if metric.startswith("lesion") else [metric]
    expected = EMPTY_MASKS[metric][emptiness]
    for name in names:
        if isinstance(expected, Undefined):
            assert math.isnan(result.values[name])
            assert result.reasons[name] is expected
        else:
            assert result.values[name] == expected
            assert name not in result.reasons


def test_volumes_are_defined_on_empty_masks():
    some, empty = block(slice(2, 5)), np.zeros((16,) * 3, bool)
    assert scores(Structure.LIVER, empty, empty).values["volume_error_ml"] == 0.0
    assert scores(Structure.LIVER, some, empty).values["volume_error_ml"] < 0.0


@pytest.mark.parametrize("structure", [Structure.LIVER, Structure.CRLM, Structure.FLR])
def test_scores_hold_exactly_the_metrics_of_the_catalogue(structure):
    references = {s: Region.of(block(slice(2, 5)), SPACING) for s in Structure}
    result = score_mask(structure, references, Region.of(block(slice(2, 6)), SPACING), references)
    assert list(result.values) == [m.name for m in metrics_of(structure)]
    without = score_mask(structure, references, Region.of(block(slice(2, 6)), SPACING))
    assert list(without.values) == [name for name in result.values if "own_" not in name], "they do not apply"
    assert set(result.values) <= set(METRICS)


def test_lesions_are_matched_one_to_one_best_first():
    reference, prediction = np.zeros((16,) * 3, bool), np.zeros((16,) * 3, bool)
    reference[1:5, 1, 1:9] = True  # 32 voxels
    reference[10, 10, 10] = True  # missed
    prediction[1:3, 1, 1:9] = True  # 16 voxels, all inside: IoU 16 / 32
    prediction[4, 1, 1:9] = True  # 8 voxels, all inside: IoU 8 / 32
    prediction[14, 14, 14] = True  # false alarm
    matching = match_lesions(Region.of(reference, SPACING), Region.of(prediction, SPACING))
    assert [(round(iou, 6), r, p) for iou, r, p in matching.pairs] == [(0.5, 0, 0), (0.25, 0, 1)]
    assert matching.matched(0.1) == [(0.5, 0, 0)]
    assert matching.matched(0.5) == []  # exactly the threshold is not above it
    values = scores(Structure.CRLM, reference, prediction).values
    assert values["lesion_recall_iou10"] == 0.5
    assert values["lesion_precision_iou10"] == pytest.approx(1 / 3)
    assert values["lesion_f1_iou10"] == pytest.approx(0.4)
    assert values["lesion_recall_iou50"] == values["lesion_f1_iou50"] == 0.0


def test_corner_neighbours_are_one_lesion():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    region = Region.of(mask, SPACING)
    assert len(match_lesions(region, region).reference_diameters_mm) == 1


def test_diameter_is_that_of_the_sphere_of_equal_volume():
    mask = np.zeros((4, 4, 4), bool)
    mask[1:3, 1:3, 1:3] = True
    region = Region.of(mask, SPACING)
    volume_mm3 = 8 * 2.5 * 0.7 * 0.9
    assert match_lesions(region, region).reference_diameters_mm[0] == pytest.approx(
        2 * (3 * volume_mm3 / (4 * math.pi)) ** (1 / 3)
    )


@pytest.mark.parametrize(
    ("diameter_mm", "expected"),
    [(9.99, SizeClass.SMALL), (10.0, SizeClass.MEDIUM), (20.0, SizeClass.MEDIUM), (20.01, SizeClass.LARGE)],
)
def test_size_classes(diameter_mm, expected):
    assert SizeClass.of(diameter_mm) is expected
