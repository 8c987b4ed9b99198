"""Free-response ROC of lesions: sensitivity against false positives per case, over thresholds on saved probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from flrplan.metrics.calibration import LEVELS, Bytes, above
from flrplan.metrics.lesions import components, match_lesions
from flrplan.metrics.region import Region

CANDIDATE_THRESHOLD = 0.1
"""Candidates are the components of p > 0.1, made ONCE: a threshold of the curve keeps or drops whole candidates by their score and
changes no outline. Low, so that the curve goes on beyond what p > 0.5 shows; not lower, as neighbours would grow together."""

HIT_IOU = 0.1
"""A candidate finds a lesion that it overlaps by more than this, as in ``lesion_recall_iou10``."""

FALSE_POSITIVES_PER_CASE: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Where the sensitivity is read off."""


@dataclass(frozen=True)
class Candidates:
    """One case: its number of lesions, and each candidate's score 0..1 with whether it found a lesion."""

    lesions: int
    scored: tuple[tuple[float, bool], ...]


def froc_candidates(values_zyx: Bytes, truth: Region, instances: Sequence[Region]) -> Candidates:
    """The candidates of one case, from bytes ``(Z, Y, X)`` of ``round(255 p)``.

    The score of a candidate is its maximum probability. Candidates choose by falling score, each the lesion left that it overlaps
    best ("greedy by score", Maier-Hein 2024, doi 10.1038/s41592-023-02151-z): each finds at most one lesion, each lesion is found
    once, and a choice does not depend on candidates of lower score. One that finds none is a false positive.
    No candidate, no lesion: empty, which is fine.
    """
    mask = Region.of(above(values_zyx, CANDIDATE_THRESHOLD), truth.spacing_zyx_mm)
    labels, sizes = components(mask)
    numbers = np.arange(1, len(sizes) + 1)
    scores = ndimage.maximum(values_zyx[mask.box], labels, numbers) if len(sizes) else []
    scores = [float(s) / (LEVELS - 1) for s in scores]
    hits = {j for _, _, j in match_lesions(truth, mask, instances).matched(HIT_IOU, scores)}
    return Candidates(len(instances), tuple((score, j in hits) for j, score in enumerate(scores)))


@dataclass(frozen=True)
class FrocPoint:
    """What a threshold gives: candidates whose score is at least that count."""

    threshold: float
    false_positives_per_case: float
    sensitivity: float


def froc_curve(cases: Sequence[Candidates]) -> tuple[FrocPoint, ...]:
    """The curve over all cases together, by falling threshold; cases without lesions bring false positives only.

    Empty where there is no lesion at all (the sensitivity is undefined) or no candidate.
    """
    lesions = sum(case.lesions for case in cases)
    scored = sorted((candidate for case in cases for candidate in case.scored), reverse=True)
    if not lesions:
        return ()
    points, found = [], 0
    for k, (score, hit) in enumerate(scored, 1):
        found += hit
        if k == len(scored) or scored[k][0] < score:
            points.append(FrocPoint(score, (k - found) / len(cases), found / lesions))
    return tuple(points)


def sensitivity_at(curve: Sequence[FrocPoint], false_positives_per_case: float) -> float:
    """The highest sensitivity with at most so many false positives per case; 0 where the first point has more already."""
    allowed = [p.sensitivity for p in curve if p.false_positives_per_case <= false_positives_per_case]
    return max(allowed, default=0.0)
