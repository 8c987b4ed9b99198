"""Which case next: the table of strategies. A new one is a function here (or in a file of its own) and a row of :data:`STRATEGIES`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECISIONS_PERCENT = (20.0, 30.0, 40.0)
"""FLR% at which what is done with a patient changes: a normal liver, one after chemotherapy, an injured one (:mod:`flrplan.planning.criteria`)."""


class Part(StrEnum):
    """What is measured of a case, each with a key of its own in the cache (:mod:`flrplan.active_learning.cache`)."""

    IMAGE = "image"
    LABEL = "label"
    MODELS = "models"


@dataclass(frozen=True)
class Known:
    """What is known of a case: each :class:`Part` as :mod:`flrplan.active_learning.measure` gives it; empty where it is not known."""

    image: Mapping[str, Any] = field(default_factory=dict)
    label: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)


Cases = Mapping[str, Known]
Score = Callable[[Cases, Cases], dict[str, float]]
"""From the cases to choose from, and those that are labelled or in somebody's hands, to the score of each that has one; the highest is next."""


@dataclass(frozen=True)
class CaseStrategy:
    """One row. description: one line for the clients. needs: what is measured for it; None: nothing, it orders by itself."""

    name: str
    description: str
    score: Score
    needs: Part | None = None


@dataclass(frozen=True)
class Choice:
    """The case that is next, with its score; scored of the candidates have one. case and score are None where none has."""

    case: str | None
    score: float | None
    scored: int


def choose(strategy: CaseStrategy, candidates: Cases, taken: Cases) -> Choice:
    """The candidate with the highest score, the first by name of several. taken: cases that are labelled, or in somebody's hands."""
    scores = strategy.score(candidates, taken)
    if not scores:
        return Choice(None, None, 0)
    best = min(scores, key=lambda case: (-scores[case], case))
    return Choice(best, scores[best], len(scores))


def _each(score: Callable[[Known], float | None]) -> Score:
    """A score of each case by itself."""

    def of_all(candidates: Cases, taken: Cases) -> dict[str, float]:
        found = {case: score(known) for case, known in candidates.items()}
        return {case: value for case, value in found.items() if value is not None}

    return of_all


def _first(candidates: Cases, taken: Cases) -> dict[str, float]:
    return dict.fromkeys(candidates, 0.0)


def _random(candidates: Cases, taken: Cases) -> dict[str, float]:
    return {case: random.random() for case in candidates}


def _label_faults(known: Known) -> float | None:
    value = known.label.get("qc")
    return None if value is None else float(value)


def _disagreement(known: Known) -> float | None:
    values: Sequence[float] = list((known.models.get("disagreement") or {}).values())
    return float(np.mean(values)) if values else None


def _decision(known: Known) -> float | None:
    """1 + the spread (0..1) where a threshold lies within it, the wider the sooner; else less than 1, the less the farther from the nearest."""
    fractions: Sequence[float] = known.models.get("flr_fractions") or ()
    if len(fractions) < 2:
        return None
    low, high = 100 * min(fractions), 100 * max(fractions)
    if any(low < t <= high for t in DECISIONS_PERCENT):  # some say below, some do not
        return 1 + (high - low) / 100
    return 1 - min(max(low - t, t - high) for t in DECISIONS_PERCENT) / 100


def _diverse(candidates: Cases, taken: Cases) -> dict[str, float]:
    """Greedy k-center (Sener and Savarese 2018, arXiv:1708.00489): the distance to the nearest case that is taken; with none, minus that to the middle.

    Each measured number counts in standard deviations over all cases; a distance is over the numbers that both cases have.
    """
    known = {**taken, **candidates}
    features = {case: {**k.image, **k.models.get("prediction", {})} for case, k in known.items() if k.image}
    names = sorted({name for of_case in features.values() for name in of_case})
    table = {case: np.array([of_case.get(n, np.nan) for n in names], float) for case, of_case in features.items()}
    if not table:
        return {}
    rows = np.stack(list(table.values()))
    centre, spread = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
    spread[~(spread > 0)] = np.inf  # the same in all cases: no distance
    others = [table[case] for case in taken if case in table]
    sign = 1.0 if others else -1.0
    return {c: sign * min(_distance(table[c], other, spread) for other in others or [centre]) for c in candidates if c in table}


def _distance(a: NDArray[np.float64], b: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.sqrt(np.mean(((a[both] - b[both]) / spread[both]) ** 2))) if both.any() else 0.0


STRATEGIES: Mapping[str, CaseStrategy] = {
    s.name: s
    for s in (
        CaseStrategy("random", "any case, drawn by lot", _random),
        CaseStrategy("first", "the first case by name", _first),
        CaseStrategy(
            "label_faults", "the worst original label first, by the rules of label QC", _each(_label_faults), Part.LABEL
        ),
        CaseStrategy(
            "disagreement",
            "where the models disagree most about liver, metastases and remnant",
            _each(_disagreement),
            Part.MODELS,
        ),
        CaseStrategy(
            "decision", "where the models do not agree whether FLR % is below 20, 30 or 40", _each(_decision), Part.MODELS
        ),
        CaseStrategy(
            "diverse",
            "the case least like those that are labelled, by volumes, HU and how it was scanned",
            _diverse,
            Part.IMAGE,
        ),
    )
}
"""By name, in the order in which clients list them; MONAI Label takes ``random`` where none is named."""
