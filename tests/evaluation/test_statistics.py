from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon

from flrplan.evaluation.statistics import (
    Outcome,
    case_ranks,
    compare,
    describe,
    holm,
    interval,
    outcome,
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
    for cases in (20, 40):
        differences = np.random.default_rng(0).normal(0.1, 1.0, cases)
        assert wilcoxon_p(differences) == pytest.approx(wilcoxon(differences).pvalue, rel=1e-12)


def test_wilcoxon_with_ties_and_zeros_is_exact():
    # Ranks 2, 2, 2, 4 of 0.1, 0.1, -0.1, 0.2 (zeros are left out): the negative sum is 2. Of 16 signs, 1 + 3 have a sum of at most 2.
    assert wilcoxon_p(np.array([0.1, 0.1, -0.1, 0.2, 0.0, 0.0])) == pytest.approx(2 * 4 / 16)
    assert wilcoxon_p(np.full(12, 0.1)) == pytest.approx(2 / 2**12)


def test_wilcoxon_of_equal_values_is_certain_of_nothing():
    assert wilcoxon_p(np.zeros(4)) == 1.0


@pytest.mark.parametrize("differences", [[], [0.1, 0.2], [0.0, 0.0]])
def test_wilcoxon_that_cannot_be_computed_is_null(differences):
    assert wilcoxon_p(np.array(differences)) is None


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04 of a family of four, times 4, 3, 2 = 0.04, 0.09, 0.08 -> 0.09 by monotony.
    first, nothing, second, third = holm([0.04, None, 0.01, 0.03])
    assert nothing is None
    assert [first, second, third] == pytest.approx([0.09, 0.04, 0.09])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([None, None]) == [None, None]


def test_holms_family_does_not_shrink_where_values_are_equal():
    # Without the equal pair (p = 1) the smallest p would be doubled, not tripled.
    assert holm([0.01, 1.0, 0.02]) == pytest.approx([0.03, 1.0, 0.04])


@pytest.mark.parametrize(
    ("ci90", "ci95", "p", "n", "said"),
    [
        ([0.02, 0.06], [0.01, 0.07], 0.01, 40, Outcome.HIGHER),
        ([-0.06, -0.02], [-0.07, -0.01], 0.01, 40, Outcome.LOWER),
        ([0.02, 0.06], [0.01, 0.07], 0.06, 40, Outcome.UNDECIDED),
        ([0.02, 0.06], [-0.01, 0.07], 0.01, 40, Outcome.UNDECIDED),
        ([-0.01, 0.01], [-0.02, 0.02], 0.9, 40, Outcome.TIE),
        ([0.002, 0.004], [0.001, 0.005], 0.001, 40, Outcome.TIE),
        ([-0.011, 0.0], [-0.02, 0.01], 0.9, 40, Outcome.UNDECIDED),
        ([0.0, 0.0], [0.0, 0.0], 1.0, 5, Outcome.UNDECIDED),
        (None, None, None, 2, None),
    ],
)
def test_what_a_comparison_says(ci90, ci95, p, n, said):
    assert outcome({"ci90": ci90, "ci95": ci95, "p_holm": p, "n": n}, 0.01) is said


def test_compare_counts_the_differences_that_are_not_zero():
    b = np.random.default_rng(0).random(40)
    result = compare(b + np.where(np.arange(40) < 9, 0.1, 0.0), b, ONE)
    assert (result["n"], result["n_nonzero"]) == (40, 9)
    (low, high), (lower, higher) = result["ci90"], result["ci95"]
    assert lower <= low < result["difference"] < high <= higher


def test_ranks_of_each_case_share_where_values_are_equal():
    assert case_ranks(np.array([[0.5, 0.9, 0.5], [-np.inf, 0.0, -np.inf]])).tolist() == [[2.5, 1, 2.5], [2.5, 1, 2.5]]
    assert case_ranks(np.zeros((0, 2))).shape == (0, 2)


def test_a_group_without_a_value_is_named():
    described = describe([0.5, 0.6, np.nan], [0, 0, 3], over_groups=True)
    assert (described["folds_undefined"], described["fold_means"]) == ([3], [pytest.approx(0.55)])


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
