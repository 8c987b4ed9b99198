"""A conformal predictive distribution: from the errors of past cases to where the truth of a new one lies. Knows nothing of livers.

Cross-conformal (Vovk 2015, Ann Math Artif Intell 74:9, doi 10.1007/s10472-013-9368-4) for predictive distributions (Vovk 2019, Mach Learn
108:445, doi 10.1007/s10994-018-5755-8): each tenth of the past cases is set against a location and a scale learned from the other nine
tenths, so no case is measured by what was learned from itself. Its normalised error, put at the place and on the scale of the new
case, is one point of the distribution. Were past and new cases drawn alike, an interval of two such points covers the truth as
often as it says, up to what little the tenths differ in: over all cases, not for each kind of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

PARTS = 10
"""The past cases are cut into so many parts, by their order."""
_LOCATION_PENALTY, _SCALE_PENALTY = 10.0, 50.0
"""Strength of the penalty on the coefficients of standardised features, in cases: with few past cases a feature changes little."""
_LEAST_ERROR = 0.02
"""Errors below two points are taken for two points where the scale is learned: an error that is small by luck says nothing."""


@dataclass(frozen=True, eq=False)
class PredictiveDistribution:
    """Where the truth of one case lies: ``points`` ascending, one of each past case."""

    points: Values

    def bounds(self, coverage: float) -> tuple[float, float]:
        """The interval that leaves ``(1 - coverage) / 2`` out on either side; infinite where there are too few points for that."""
        n, tail = len(self.points), (1 - coverage) / 2
        low, high = math.floor((n + 1) * tail + 1e-9), math.ceil((n + 1) * (1 - tail) - 1e-9)
        return (
            float(self.points[low - 1]) if low >= 1 else -math.inf,
            float(self.points[high - 1]) if high <= n else math.inf,
        )

    def below(self, threshold: float) -> float:
        """The probability that the truth lies below a threshold; never 0 or 1, since there are only so many points."""
        return (float(np.searchsorted(self.points, threshold)) + 0.5) / (len(self.points) + 1)


def predictive_distribution(
    features: Values, predicted: Values, true: Values, new_features: Values, new_predicted: float
) -> PredictiveDistribution:
    """The distribution of the truth of a new case.

    Args:
        features: ``(cases, features)`` of the past cases, on whatever scale; ``predicted``, ``true``: ``(cases,)``.
        new_features: ``(features,)`` of the new case, and what was predicted for it.
    """
    points = np.empty(len(true))
    numbers = np.arange(len(true)) % PARTS
    for part in range(PARTS):
        own = numbers == part
        if own.any():
            line = _Line.learned(features[~own], (true - predicted)[~own])
            error = (true - predicted)[own]
            shift, scale = line.of(features[own])
            new_shift, new_scale = line.of(new_features[None])
            points[own] = new_predicted + new_shift + new_scale * (error - shift) / scale
    return PredictiveDistribution(np.sort(points))


@dataclass(frozen=True, eq=False)
class _Line:
    """Error and its size as linear functions of features, by ridge regression: of the signed error, and of the logarithm of the rest."""

    mean: Values
    spread: Values
    shift: Values
    scale: Values

    @classmethod
    def learned(cls, features: Values, error: Values) -> _Line:
        mean, spread = features.mean(axis=0), features.std(axis=0)
        spread[spread < 1e-9] = 1.0
        z = (features - mean) / spread
        shift = _ridge(z, error, _LOCATION_PENALTY)
        rest = np.abs(error - _at(z, shift))
        return cls(mean, spread, shift, _ridge(z, np.log(np.maximum(rest, _LEAST_ERROR)), _SCALE_PENALTY))

    def of(self, features: Values) -> tuple[Values, Values]:
        """Signed error and scale that are expected; features are taken no farther than three standard deviations out."""
        z = np.clip((features - self.mean) / self.spread, -3, 3)
        return _at(z, self.shift), np.exp(_at(z, self.scale))


def _ridge(z: Values, y: Values, strength: float) -> Values:
    """Intercept, which is not penalised, and coefficients."""
    own = np.column_stack([np.ones(len(z)), z])
    penalty = strength * np.eye(own.shape[1])
    penalty[0, 0] = 0.0
    return np.asarray(np.linalg.solve(own.T @ own + penalty, own.T @ y))


def _at(z: Values, coefficients: Values) -> Values:
    return np.asarray(coefficients[0] + z @ coefficients[1:])
