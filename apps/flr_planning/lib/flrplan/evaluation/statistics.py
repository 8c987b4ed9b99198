"""The few statistics of the benchmark: means with bootstrap intervals, paired tests with Holm, ties, per-case ranks.

Everything is drawn with :data:`SEED`, so equal inputs give equal outputs. What cannot be computed is None, never an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

SEED = 2604_07999
"""Seed of every draw (the paper's number)."""

RESAMPLES = 2000
"""Bootstrap resamples."""

MIN_CASES = 3
"""Fewer cases than this give no interval, no test and no rank stability: None."""

MIN_PER_GROUP = 2
"""With fewer cases than this in any group (fold), drawing inside the group shows no spread: None."""

MIN_PAIRS_DECIDED = 6
"""With fewer pairs no two-sided Wilcoxon p is below 0.05, and a bootstrap interval is too narrow to call anything a tie."""

EXACT_PAIRS = 25
"""Up to that many differences that are not 0, Wilcoxon's p is exact."""

ALPHA = 0.05
"""Below this, Holm's p is significant."""

Floats = NDArray[np.float64]


class Outcome(StrEnum):
    """What a paired comparison of a with b says of a. Not significant is not equal: that is undecided, unless it is shown a tie."""

    HIGHER = "higher"
    LOWER = "lower"
    TIE = "tie"
    UNDECIDED = "undecided"


def group_means(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """The mean of each group that occurs, by rising group number."""
    return np.array([values[groups == g].mean() for g in np.unique(groups)])


def defined_mean(values: Sequence[float], groups: Sequence[int]) -> float | None:
    """The mean of the group means without NaN; None where nothing is left."""
    array, named = np.asarray(values, float), np.asarray(groups, np.int64)
    defined = ~np.isnan(array)
    return float(group_means(array[defined], named[defined]).mean()) if defined.any() else None


@lru_cache(maxsize=32)
def _draws(sizes: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    """For each group of that many cases ``(RESAMPLES, size)``: which of its cases each resample holds."""
    rng = np.random.default_rng(SEED)
    return tuple(rng.integers(0, size, (RESAMPLES, size)) for size in sizes)


def bootstrap_means(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """``(RESAMPLES,)``: the mean of the group means, cases drawn with replacement inside each group."""
    of_groups = [values[groups == g] for g in np.unique(groups)]
    total = np.zeros(RESAMPLES)
    for own, drawn in zip(of_groups, _draws(tuple(len(own) for own in of_groups)), strict=True):
        total += own[drawn].mean(axis=1)
    return total / len(of_groups)


def can_resample(groups: NDArray[np.int64]) -> bool:
    """Whether there are enough cases, altogether and in each group, for a bootstrap."""
    return len(groups) >= MIN_CASES and int(np.unique(groups, return_counts=True)[1].min()) >= MIN_PER_GROUP


def intervals(values: Floats, groups: NDArray[np.int64], percents: Sequence[float]) -> list[list[float] | None]:
    """Percentile bootstrap intervals of the mean of group means, one a percentage; None where :func:`can_resample` says no."""
    if not can_resample(groups):
        return [None] * len(percents)
    limits = [50 + sign * percent / 2 for percent in percents for sign in (-1, 1)]
    found = np.percentile(bootstrap_means(values, groups), limits).reshape(-1, 2)
    return [[float(low), float(high)] for low, high in found]


def interval(values: Floats, groups: NDArray[np.int64]) -> list[float] | None:
    """The 95 % one of :func:`intervals`."""
    return intervals(values, groups, [95])[0]


def describe(values: Sequence[float], groups: Sequence[int], over_groups: bool) -> dict[str, Any]:
    """Mean, standard deviation and interval of one metric; NaN values are left out and counted.

    ``over_groups`` (folds): mean and std are over the groups' means, which is how the paper's "+-" is read, and
    ``fold_means`` holds them (a group without a value has none). Otherwise (held-out cases) mean and std are over the
    cases. Every std has ddof 0 and is None for a single value; ``std_cases`` is always over the cases.
    ``n``: cases with a value; ``n_undefined``: NaNs; ``folds_undefined``: the groups without a value.
    """
    array = np.asarray(values, float)
    named = np.asarray(groups, np.int64) if over_groups else np.zeros(len(array), np.int64)
    defined = ~np.isnan(array)
    undefined_groups = sorted(set(named.tolist()) - set(named[defined].tolist()))
    array, named = array[defined], named[defined]
    result: dict[str, Any] = {
        "mean": None,
        "std": None,
        "ci95": interval(array, named),
        "n": len(array),
        "n_undefined": int((~defined).sum()),
        "std_cases": float(array.std()) if len(array) > 1 else None,
    }
    if over_groups:
        result["folds_undefined"] = undefined_groups
    if len(array):
        spread = group_means(array, named) if over_groups else array
        result["mean"] = float(spread.mean())
        result["std"] = float(spread.std()) if len(spread) > 1 else None
        if over_groups:
            result["fold_means"] = [float(m) for m in spread]
    return result


def wilcoxon_p(differences: Floats) -> float | None:
    """Two-sided p of the paired Wilcoxon signed-rank test without zeros; 1 where all are 0, None for too few pairs.

    Exact for up to :data:`EXACT_PAIRS`, ties included, by counting the rank sums of all signs; else scipy's, which is asymptotic
    where there are ties (and takes 0.5 s for its own exact one).
    """
    if len(differences) < MIN_CASES:
        return None
    nonzero = differences[differences != 0]
    if len(nonzero) > EXACT_PAIRS:
        return float(wilcoxon(nonzero).pvalue)
    doubled = np.round(2 * rankdata(np.abs(nonzero))).astype(np.int64)  # tied ranks are halves
    counts = np.ones(1)
    for rank in doubled:
        counts = np.convolve(counts, np.bincount([0, rank]))
    smaller = min(doubled[nonzero > 0].sum(), doubled[nonzero < 0].sum())
    return float(min(1.0, 2 * counts[: smaller + 1].sum() / 2 ** len(nonzero)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values in the given order. A None stays None, but counts in the family, so that its size is fixed."""
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, k) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        adjusted[k] = highest
    return adjusted


def compare(a: Floats, b: Floats, groups: NDArray[np.int64]) -> dict[str, Any]:
    """Paired comparison a - b over the cases where both are defined; None where not computable.

    ``difference``: the mean over the groups' means, as the tables' means are; ``ci95``, ``ci90``: its intervals; ``p``:
    Wilcoxon's; ``n``: pairs; ``n_nonzero``: differences that are not 0, the effective n of the test.
    """
    both = ~(np.isnan(a) | np.isnan(b))
    # Rounding keeps differences that are 0 but for the order of a sum from being tested as differences.
    differences, named = np.round((a - b)[both], 12), groups[both]
    ci95, ci90 = intervals(differences, named, [95, 90])
    return {
        "n": len(differences),
        "n_nonzero": int(np.count_nonzero(differences)),
        "difference": float(group_means(differences, named).mean()) if len(differences) else None,
        "ci95": ci95,
        "ci90": ci90,
        "p": wilcoxon_p(differences),
    }


def outcome(comparison: Mapping[str, Any], margin: float) -> Outcome | None:
    """What a comparison says that also holds ``p_holm``; None where it was not computable.

    A tie: the 90 % interval lies within -+ margin (two one-sided tests at 5 %). Higher or lower: no tie, Holm's p is below
    :data:`ALPHA`, and the 95 % interval leaves out 0. Undecided: the rest, and fewer pairs than :data:`MIN_PAIRS_DECIDED`.
    """
    if comparison["ci95"] is None:
        return None
    if comparison["n"] < MIN_PAIRS_DECIDED:
        return Outcome.UNDECIDED
    low, high = comparison["ci90"]
    if -margin <= low and high <= margin:
        return Outcome.TIE
    low, high = comparison["ci95"]
    if low <= 0 <= high or comparison["p_holm"] is None or comparison["p_holm"] >= ALPHA:
        return Outcome.UNDECIDED
    return Outcome.HIGHER if low > 0 else Outcome.LOWER


def case_ranks(values: Floats) -> Floats:
    """``(cases, k)``: the rank of each of ``k`` candidates in each case; 1 is the highest value, equals share their mean rank."""
    return np.asarray(rankdata(-values, axis=1), float) if values.size else np.zeros(values.shape)


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
