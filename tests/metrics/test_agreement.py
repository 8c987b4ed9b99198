"""1,000 random anisotropic masks: NSD, HD95 and ASSD as surface-distance, Dice and lesion matching as panoptica, to 1e-6.

Of 60 more the lesions of the truth are told apart at random (touching, not overlapping: panoptica's maps hold one number a voxel).
"""

from __future__ import annotations

import logging

import numpy as np
import pytest

from flrplan.metrics import Region
from flrplan.metrics.lesions import components, iou_key, lesion_outcomes, match_lesions
from flrplan.metrics.overlap import overlap_outcomes
from flrplan.metrics.region import regions_of
from flrplan.metrics.surface import surface_outcomes

COUNT = 1000


def test_surface_metrics_agree_with_surface_distance(random_pairs, surface_distance):
    for reference, prediction, spacing in random_pairs(COUNT):
        tolerance = float(spacing[0])  # a tolerance that distances meet exactly
        ours = surface_outcomes(Region.of(reference, spacing).surface, Region.of(prediction, spacing).surface, tolerance)
        theirs = surface_distance.compute_surface_distances(reference, prediction, spacing)
        areas = theirs["surfel_areas_gt"], theirs["surfel_areas_pred"]
        summed = (theirs["distances_gt_to_pred"] * areas[0]).sum() + (theirs["distances_pred_to_gt"] * areas[1]).sum()
        nsd = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert ours["nsd"] == pytest.approx(nsd, abs=1e-6)
        assert ours["hd95_mm"] == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95), abs=1e-6)
        assert ours["assd_mm"] == pytest.approx(summed / (areas[0].sum() + areas[1].sum()), abs=1e-6)


def test_dice_and_lesion_matching_agree_with_panoptica(random_pairs):
    panoptica = pytest.importorskip("panoptica", reason="needs the dev dependency panoptica")
    logging.getLogger("panoptica").setLevel(logging.ERROR)
    evaluators = {
        threshold: panoptica.Panoptica_Evaluator(
            expected_input=panoptica.InputType.SEMANTIC,
            instance_approximator=panoptica.ConnectedComponentsInstanceApproximator(),
            instance_matcher=panoptica.NaiveThresholdMatching(matching_threshold=threshold, strict_threshold=True),
            instance_metrics=[panoptica.Metric.IOU],
            global_metrics=[panoptica.Metric.DSC],
        )
        for threshold in (0.1, 0.5)
    }
    several = 0
    for reference, prediction, spacing in random_pairs(COUNT, seed=1):
        one, two = Region.of(reference, spacing), Region.of(prediction, spacing)
        matching = match_lesions(one, two)
        several += len(matching.reference_diameters_mm) > 1
        for threshold, evaluator in evaluators.items():
            theirs = evaluator.evaluate(prediction.astype(np.uint8), reference.astype(np.uint8), verbose=False)["ungrouped"]
            matched = matching.matched(threshold)
            assert overlap_outcomes(one, two)["dice"] == pytest.approx(theirs.global_bin_dsc, abs=1e-6)
            assert len(matched) == theirs.tp
            assert len(matching.reference_diameters_mm) - len(matched) == theirs.fn
            assert len(matching.prediction_diameters_mm) - len(matched) == theirs.fp
            if matched:
                assert np.mean([iou for iou, _, _ in matched]) == pytest.approx(theirs.sq, abs=1e-6)
    assert several > COUNT / 4, "the random masks should often hold several lesions"


def test_panoptic_quality_of_instances_agrees_with_panoptica(random_pairs):
    panoptica = pytest.importorskip("panoptica", reason="needs the dev dependency panoptica")
    logging.getLogger("panoptica").setLevel(logging.ERROR)
    evaluators = {
        threshold: panoptica.Panoptica_Evaluator(
            expected_input=panoptica.InputType.UNMATCHED_INSTANCE,
            instance_matcher=panoptica.NaiveThresholdMatching(matching_threshold=threshold, strict_threshold=True),
            instance_metrics=[panoptica.Metric.IOU],
        )
        for threshold in (0.1, 0.5)
    }
    matched = 0
    for reference, prediction, spacing in random_pairs(60, seed=2):
        # Cut the truth by planes: neighbours that touch are different lesions.
        z, y, x = np.indices(reference.shape)
        labels = (reference * (1 + z // 3 + 5 * (y // 4) + 20 * (x // 4))).astype(np.uint8)
        one, two = Region.of(reference, spacing), Region.of(prediction, spacing)
        outcomes = lesion_outcomes(match_lesions(one, two, list(regions_of(labels, spacing).values())))
        found = np.zeros(reference.shape, np.uint16)
        found[two.box] = components(two)[0]
        for threshold, evaluator in evaluators.items():
            theirs = evaluator.evaluate(found, labels.astype(np.uint16), verbose=False)["ungrouped"]
            key = iou_key(threshold)
            assert outcomes["lesions_reference"] == theirs.tp + theirs.fn
            assert outcomes[f"lesion_f1_{key}"] == pytest.approx(theirs.rq, abs=1e-6)
            if theirs.tp:  # without a pair panoptica's SQ and PQ are 0 or nan, ours undefined and 0
                matched += 1
                assert outcomes[f"lesion_sq_{key}"] == pytest.approx(theirs.sq, abs=1e-6)
                assert outcomes[f"lesion_pq_{key}"] == pytest.approx(theirs.pq, abs=1e-6)
    assert matched > 30, "the random lesions should often be found"
