from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from flrplan.evaluation.statistics import (
    compare,
    describe,
    holm,
    interval,
    rank_stability,
    wilcoxon_p,
)

ONE = np.zeros(40, np.int64)


def test_interval_of_a_normal_sample_is_near_the_textbook_one():
    values = np.random.default_rng(3).normal(0.7, 0.1, 40)
    low, high = interval(values, ONE)
    half = 1.96 * values.std() / np.sqrt(40)
    assert low == pytest.approx(values.mean() - half, abs=0.006)
    assert high == pytest.approx(values.mean() + half, abs=0.006)


def test_interval_is_seeded():
    values = np.random.default_rng(3).random(40)
    assert interval(values, ONE) == interval(values.copy(), ONE)


def test_cases_are_drawn_inside_their_fold():
    # Constant folds: nothing varies inside them, so the mean of the fold means is certain.
    assert interval(np.array([0.0, 0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 0, 1, 1])) == [0.5, 0.5]


def test_fold_of_one_case_has_no_spread_to_draw_from():
    assert interval(np.array([0.0, 0.1, 0.2, 1.0]), np.array([0, 0, 0, 1])) is None


def test_interval_over_cases_ignores_the_folds():
    values, folds = [0.1, 0.2, 0.3, 0.9], [0, 0, 0, 1]
    described = describe(values, folds, over_groups=False)
    low, high = described["ci95"]
    assert described["mean"] == pytest.approx(0.375)
    assert low < 0.375 < high


@pytest.mark.parametrize("values", [[], [0.5], [0.5, 0.6]])
def test_too_few_values_give_null(values):
    described = describe(values, [0] * len(values), over_groups=False)
    assert described["ci95"] is None
    assert described["n"] == len(values)
    assert (described["std"] is None) == (len(values) < 2)
    assert (described["mean"] is None) == (not values)


def test_nan_is_left_out_and_counted():
    described = describe([0.5, np.nan, 0.7], [0, 0, 1], over_groups=True)
    assert described["mean"] == pytest.approx(0.6)
    assert (described["n"], described["n_undefined"]) == (2, 1)
    assert describe([np.nan] * 3, [0] * 3, over_groups=False)["mean"] is None


def test_one_fold_has_no_spread_over_folds():
    described = describe([0.5, 0.7], [0, 0], over_groups=True)
    assert described["std"] is None
    assert described["std_cases"] == pytest.approx(0.1)


def test_wilcoxon_is_scipys():
    differences = np.random.default_rng(0).normal(0.1, 1.0, 20)
    assert wilcoxon_p(differences) == wilcoxon(differences).pvalue


@pytest.mark.parametrize("differences", [[], [0.1, 0.2], [0.0, 0.0, 0.0, 0.0]])
def test_wilcoxon_that_cannot_be_computed_is_null(differences):
    assert wilcoxon_p(np.array(differences)) is None


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1 = 0.03, 0.06, 0.04 -> 0.06 by monotony.
    first, nothing, second, third = holm([0.04, None, 0.01, 0.03])
    assert nothing is None
    assert [first, second, third] == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([None, None]) == [None, None]


def test_compare_is_paired_and_drops_undefined_pairs():
    a, b = np.array([0.9, 0.8, np.nan, 0.7]), np.array([0.8, 0.7, 0.1, np.nan])
    result = compare(a, b, np.zeros(4, np.int64))
    assert result["difference"] == pytest.approx(0.1)
    assert result["n"] == 2
    assert result["ci95"] is None
    assert result["p"] is None


def test_difference_that_is_the_same_in_every_case_is_certain():
    b = np.random.default_rng(0).random(40)
    low, high = compare(b + 0.1, b, ONE)["ci95"]
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)


def test_rank_stability_of_a_clear_winner_and_a_tie():
    rng = np.random.default_rng(0)
    middle = rng.random(40)
    values = np.stack([middle, middle + 1.0, middle], axis=1)
    result = rank_stability(values, ONE)
    assert result["ranks"] == [2, 1, 2]
    assert np.array(result["probability"]).tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


def test_rank_stability_of_noise_is_undecided():
    values = np.random.default_rng(0).random((40, 2))
    probability = np.array(rank_stability(values, ONE)["probability"])
    assert (probability > 0.02).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)


@pytest.mark.parametrize("shape", [(2, 3), (40, 1), (0, 2)])
def test_rank_stability_that_cannot_be_computed_is_null(shape):
    assert rank_stability(np.zeros(shape), np.zeros(shape[0], np.int64)) is None
