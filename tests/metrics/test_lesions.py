"""Lesions told apart: they touch and overlap, a prediction is made of components; panoptic quality by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.errors import GridError
from flrplan.metrics import Region, Undefined, score_mask
from flrplan.metrics.lesions import lesion_outcomes, lesions_of, match_lesions
from flrplan.metrics.region import regions_of

SPACING = (2.5, 0.7, 0.9)


def region(*boxes: tuple[slice, slice, slice]) -> Region:
    mask = np.zeros((16,) * 3, bool)
    for box in boxes:
        mask[box] = True
    return Region.of(mask, SPACING)


def row(first: int, end: int, y: int = 2) -> tuple[slice, slice, slice]:
    """Voxels first..end in x of one line: ``end - first`` of them."""
    return slice(4, 5), slice(y, y + 1), slice(first, end)


def test_components_as_regions_lie_where_the_mask_has_them():
    found = lesions_of(region(row(3, 7), row(9, 11, y=8)))
    assert [(lesion.voxels, lesion.start_zyx, lesion.crop_zyx.shape) for lesion in found] == [
        (4, (4, 2, 3), (1, 1, 4)),
        (2, (4, 8, 9), (1, 1, 2)),
    ]
    assert lesions_of(region()) == ()


def test_regions_of_labels_skip_numbers_without_a_voxel():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1:3, 1], labels[3, 3, 3] = 2, 5
    found = regions_of(labels, SPACING)
    assert {n: (r.voxels, r.start_zyx) for n, r in found.items()} == {2: (2, (1, 1, 1)), 5: (1, (3, 3, 3))}


def test_one_component_over_two_touching_lesions_finds_the_one_it_overlaps_best():
    left, right = region(row(0, 6)), region(row(6, 10))  # 6 and 4 voxels, one component of 10
    both = region(row(0, 10))
    as_component = match_lesions(both, both)
    assert as_component.pairs == ((1.0, 0, 0),)
    matching = match_lesions(both, both, [left, right])
    assert matching.pairs == ((0.6, 0, 0), (0.4, 1, 0))
    assert matching.matched(0.1) == [(0.6, 0, 0)]
    assert matching.covered == (True, True)  # the second is missed, but lies wholly in a predicted lesion
    values = lesion_outcomes(matching)
    assert (values["lesion_recall_iou50"], values["lesion_precision_iou50"]) == (0.5, 1.0)
    # one pair of IoU 0.6, one lesion missed, no false one: RQ = 1 / 1.5, SQ = 0.6, PQ = 0.4
    assert values["lesion_f1_iou50"] == pytest.approx(2 / 3)
    assert values["lesion_sq_iou50"] == pytest.approx(0.6)
    assert values["lesion_pq_iou50"] == pytest.approx(0.4)


def test_a_voxel_of_two_overlapping_lesions_counts_for_both():
    one, two = region(row(0, 6)), region(row(4, 10))  # 6 each, 2 shared, together 10
    matching = match_lesions(region(row(0, 10)), region(row(0, 6)), [one, two])
    assert matching.pairs == ((1.0, 0, 0), (pytest.approx(2 / 10), 1, 0))  # 2 shared of 6 + 6 - 2
    assert matching.covered == (True, False)
    assert matching.matched(0.1) == [(1.0, 0, 0)]


def test_candidates_of_higher_score_choose_first():
    lesion = region(row(0, 8))
    halves = region(row(0, 5), row(6, 8))  # IoU 5/8 and 2/8
    matching = match_lesions(lesion, halves, [lesion])
    assert matching.matched(0.1) == [(0.625, 0, 0)]
    assert matching.matched(0.1, scores=[0.6, 0.9]) == [(0.25, 0, 1)]
    assert matching.matched(0.1, scores=[0.9, 0.9]) == [(0.625, 0, 0)]  # equal scores: the better overlap


def test_segmentation_quality_without_a_match_is_undefined_and_panoptic_quality_0():
    apart = score_mask(Structure.CRLM, {Structure.CRLM: region(row(0, 3))}, region(row(8, 12)))
    assert math.isnan(apart.values["lesion_sq_iou50"])
    assert apart.reasons["lesion_sq_iou50"] is Undefined.NO_LESION_MATCHED
    assert apart.values["lesion_pq_iou50"] == apart.values["lesion_f1_iou50"] == 0.0


def test_instances_on_another_grid_are_refused():
    other = Region.of(np.ones((4, 4, 4), bool), SPACING)
    with pytest.raises(GridError, match="one grid"):
        match_lesions(region(row(0, 3)), region(row(0, 3)), [other])
    with pytest.raises(GridError, match="one grid"):
        match_lesions(region(), other)


def test_instances_reach_the_score():
    both = region(row(0, 10))
    result = score_mask(Structure.CRLM, {Structure.CRLM: both}, both, instances=[region(row(0, 6)), region(row(6, 10))])
    assert (result.values["lesions_reference"], result.values["lesions_predicted"]) == (2.0, 1.0)
