"""The few statistics of the benchmark: means with bootstrap intervals, paired tests with Holm, stability of ranks.

Everything is drawn with :data:`SEED`, so equal inputs give equal outputs. What cannot be computed is None, never an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

SEED = 2604_07999
"""Seed of every draw (the paper's number)."""

RESAMPLES = 2000
"""Bootstrap resamples."""

MIN_CASES = 3
"""Fewer cases than this give no interval, no test and no rank stability: None."""

MIN_PER_GROUP = 2
"""With fewer cases than this in any group (fold), drawing inside the group shows no spread: None."""

Floats = NDArray[np.float64]


def group_means(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """The mean of each group that occurs, by rising group number."""
    return np.array([values[groups == g].mean() for g in np.unique(groups)])


def bootstrap_means(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """``(RESAMPLES,)``: the mean of the group means, cases drawn with replacement inside each group."""
    rng = np.random.default_rng(SEED)
    total = np.zeros(RESAMPLES)
    names = np.unique(groups)
    for g in names:
        own = values[groups == g]
        total += own[rng.integers(0, len(own), (RESAMPLES, len(own)))].mean(axis=1)
    return total / len(names)


def can_resample(groups: NDArray[np.int64]) -> bool:
    """Whether there are enough cases, altogether and in each group, for a bootstrap."""
    return len(groups) >= MIN_CASES and int(np.unique(groups, return_counts=True)[1].min()) >= MIN_PER_GROUP


def interval(values: Floats, groups: NDArray[np.int64]) -> list[float] | None:
    """Percentile bootstrap interval (95 %) of the mean of group means; None where :func:`can_resample` says no."""
    if not can_resample(groups):
        return None
    low, high = np.percentile(bootstrap_means(values, groups), [2.5, 97.5])
    return [float(low), float(high)]


def describe(values: Sequence[float], groups: Sequence[int], over_groups: bool) -> dict[str, Any]:
    """Mean, standard deviation and interval of one metric; NaN values are left out and counted.

    ``over_groups`` (folds): mean and std are over the groups' means, which is how the paper's "+-" is read, and
    ``fold_means`` holds them (a group without a value has none). Otherwise (held-out cases) mean and std are over the
    cases. Every std has ddof 0 and is None for a single value; ``std_cases`` is always over the cases.
    ``n``: cases with a value; ``n_undefined``: NaNs.
    """
    array = np.asarray(values, float)
    named = np.asarray(groups, np.int64) if over_groups else np.zeros(len(array), np.int64)
    defined = ~np.isnan(array)
    array, named = array[defined], named[defined]
    result: dict[str, Any] = {
        "mean": None,
        "std": None,
        "ci95": interval(array, named),
        "n": len(array),
        "n_undefined": int((~defined).sum()),
        "std_cases": float(array.std()) if len(array) > 1 else None,
    }
    if len(array):
        spread = group_means(array, named) if over_groups else array
        result["mean"] = float(spread.mean())
        result["std"] = float(spread.std()) if len(spread) > 1 else None
        if over_groups:
            result["fold_means"] = [float(m) for m in spread]
    return result


def wilcoxon_p(differences: Floats) -> float | None:
    """Two-sided p of the paired Wilcoxon signed-rank test; None for too few pairs, or where all differences are 0."""
    if len(differences) < MIN_CASES or not np.any(differences):
        return None
    return float(wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values in the given order; a None stays None and does not count in the family."""
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, k) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[k] = highest
    return adjusted


def compare(a: Floats, b: Floats, groups: NDArray[np.int64]) -> dict[str, Any]:
    """Paired comparison a - b over cases where both are defined: difference, its interval, p; None where not computable.

    The difference is the mean over the groups' means, as the tables' means are.
    """
    both = ~(np.isnan(a) | np.isnan(b))
    differences, named = (a - b)[both], groups[both]
    return {
        "n": len(differences),
        "difference": float(group_means(differences, named).mean()) if len(differences) else None,
        "ci95": interval(differences, named),
        "p": wilcoxon_p(differences),
    }


def rank_stability(values: Floats, groups: NDArray[np.int64]) -> dict[str, Any] | None:
    """How often each of ``k`` candidates takes each rank when the cases are drawn again.

    Args: values ``(cases, k)``, higher is better, no NaN. Equal means share the better rank.
    Returns: ``ranks`` (of the means, 1 is best) and ``probability`` ``(k, k)``, row = candidate, column = rank - 1; None
        for fewer than two candidates, or where :func:`can_resample` says no.
    """
    if values.shape[1] < 2 or not can_resample(groups):
        return None
    # The seed is the same for every candidate, so each resample holds the same cases for all of them.
    drawn = np.stack([bootstrap_means(column, groups) for column in values.T], axis=1)
    means = np.array([group_means(column, groups).mean() for column in values.T])
    k = values.shape[1]
    ranks = _ranks(drawn)
    probability = np.stack([(ranks == rank + 1).mean(axis=0) for rank in range(k)], axis=1)
    return {"ranks": _ranks(means[None])[0].tolist(), "probability": probability.tolist()}


def _ranks(means: Floats) -> NDArray[np.int64]:
    """``(draws, k)``: 1 + the number of candidates that are strictly better."""
    # Rounding keeps two candidates with the same values equal, in whatever order their sums were formed.
    rounded = np.round(means, 12)
    return np.asarray((rounded[:, None, :] > rounded[:, :, None]).sum(axis=2) + 1, np.int64)
