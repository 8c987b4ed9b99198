"""The conformal predictive distribution: its points by hand, its coverage on drawn cases, narrower where features tell."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flrplan.planning.conformal import PredictiveDistribution, predictive_distribution

Drawn = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def test_where_features_say_nothing_the_points_are_the_errors_of_the_past() -> None:
    """Location and scale cancel: 0.5 + (true - predicted), whatever part a case is in."""
    rng = np.random.default_rng(0)
    predicted, error = rng.uniform(0.2, 0.8, 23), rng.normal(0.02, 0.1, 23)
    found = predictive_distribution(np.zeros((23, 2)), predicted, predicted + error, np.zeros(2), 0.5)
    assert found.points == pytest.approx(np.sort(0.5 + error))


def test_bounds_are_points_and_infinite_where_there_are_too_few() -> None:
    points = np.arange(1, 40) / 40  # 39: 2 of the 40 gaps below, 2 above
    assert PredictiveDistribution(points).bounds(0.9) == (2 / 40, 38 / 40)
    assert PredictiveDistribution(points[:19]).bounds(0.9) == (points[0], points[18])
    assert PredictiveDistribution(points[:18]).bounds(0.9) == (-np.inf, np.inf)
    assert PredictiveDistribution(points[:18]).bounds(0.8) == (points[0], points[17])


def test_the_probability_below_counts_points_and_is_never_certain() -> None:
    found = PredictiveDistribution(np.array([0.2, 0.3, 0.4]))
    assert [found.below(t) for t in (0.1, 0.3, 0.35, 0.9)] == [0.125, 0.375, 0.625, 0.875]  # (0, 1, 2, 3 points + 1/2) / 4


def drawn(rng: np.random.Generator, n: int) -> Drawn:
    """Cases whose errors are of a skewed kind, four times as large at one end of the first feature, and lean with the second."""
    features = rng.uniform(0, 1, (n, 2))
    error = 0.02 * 4 ** features[:, 0] * (rng.exponential(1, n) - 0.5) + 0.3 * (features[:, 1] - 0.5)
    predicted = rng.uniform(0.3, 0.7, n)
    return features, predicted, predicted + error


def test_nine_of_ten_new_cases_lie_inside_and_what_features_tell_makes_it_narrower() -> None:
    rng = np.random.default_rng(1)
    hits, widths = [], {True: [0.0], False: [0.0]}
    for _ in range(12):
        features, predicted, true = drawn(rng, 80)
        new_features, new_predicted, new_true = drawn(rng, 40)
        for with_features in (True, False):
            for x, p, y in zip(new_features, new_predicted, new_true, strict=True):
                own = (features, x) if with_features else (np.zeros_like(features), np.zeros(2))
                low, high = predictive_distribution(own[0], predicted, true, own[1], p).bounds(0.9)
                widths[with_features].append(high - low)
                if with_features:
                    hits.append(low <= y <= high)
    assert 0.86 <= np.mean(hits) <= 0.94
    assert np.mean(widths[True]) < 0.8 * np.mean(widths[False])
