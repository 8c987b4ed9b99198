"""How many metastases a case has, how large, where and of which look: what a case is planted for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from flrplan.cohort.liver import Sector

MAX_LESIONS = 35
"""As in TCIA Colorectal-Liver-Metastases (Simpson 2024, Sci Data 11:172): 1 to 35, 58 % of the patients with more than one."""

MIN_LARGEST_MM = 12.0
"""The largest lesion of a case is at least this large, so that no grid misses it."""

DIAMETER_MM = (3.0, 100.0)
"""Smallest and largest lesion."""

WIDE_MAX_LESIONS, WIDE_MAX_MM = 60, 140.0
"""The same of a wide case: beyond those who are operated on, since a plan starts with every liver that is sent."""

_STREWN_SHARE, _HUGE_SHARE = 0.4, 0.2

VANISHING_MAX_MM = 25.0
"""Only smaller lesions vanish: those that chemotherapy has shrunk."""

_CONFLUENT_SHARE, _CROWD_SHARE, _VANISHING_SHARE, _SINGLE_SHARE = 0.16, 0.10, 0.16, 0.58


class LesionKind(StrEnum):
    """The look of a lesion. Calcified ones may have a rim too; vanishing ones have neither. Only wide cases have brighter ones."""

    HYPODENSE = "hypodense"
    RIM = "rim"
    CALCIFIED = "calcified"
    VANISHING = "vanishing"
    HYPERDENSE = "hyperdense"


class Place(StrEnum):
    """Where a lesion is wished for."""

    DEEP = "deep"
    NEAR_SURFACE = "near the surface"
    CAPSULE = "at the capsule"
    """The centre so close to the surface that the lesion is cut by it."""
    STRADDLING = "across a border"
    """On the border of all the allowed sectors."""
    CONFLUENT = "confluent"
    """Overlapping the lesion before."""


class Plan(StrEnum):
    """What a case is planted for; what is done about it is the rule's affair alone."""

    WEDGE = "wedge"
    SECTION = "section"
    RIGHT = "right"
    LEFT = "left"
    EXTENDED = "extended"
    RIGHT_AND_LEFT = "right and left"
    LEFT_AND_RIGHT = "left and right"
    TWO_STAGE = "two stage"


PLAN_WEIGHTS = (0.22, 0.15, 0.16, 0.11, 0.12, 0.10, 0.08, 0.06)

_RP, _RA, _LM, _LL = Sector.RIGHT_POSTERIOR, Sector.RIGHT_ANTERIOR, Sector.LEFT_MEDIAL, Sector.LEFT_LATERAL
_EVERYWHERE = (_RP, _RA, _LM, _LL)


@dataclass(frozen=True)
class Wish:
    """One lesion that is wished for: in one of these sectors, of this diameter, at such a place."""

    sectors: tuple[Sector, ...]
    diameter_mm: float
    place: Place = Place.DEEP


def _clipped(rng: np.random.Generator, median_mm: float, spread: float, low: float, high: float) -> float:
    return float(np.clip(rng.lognormal(np.log(median_mm), spread), low, high))


def draw_wishes(rng: np.random.Generator, wide: bool = False) -> list[Wish]:
    """The lesions of one case, at most :data:`MAX_LESIONS`; the first is the one that the plan is about.

    Wide: to these come, in some cases, one larger than 7 cm, and dozens strewn over all of the liver.
    """
    plan = list(Plan)[int(rng.choice(len(Plan), p=PLAN_WEIGHTS))]
    wishes = _of_plan(rng, plan)
    if rng.random() < _CONFLUENT_SHARE and not (plan is Plan.WEDGE and len(wishes) > 1):
        first = wishes[0]
        count = 1 if plan is Plan.WEDGE else int(rng.integers(1, 5))
        partners = [
            Wish(first.sectors, max(first.diameter_mm * rng.uniform(0.4, 0.8), 6.0), Place.CONFLUENT) for _ in range(count)
        ]
        wishes = [first, *partners, *wishes[1:]]
    wishes = wishes[:MAX_LESIONS]
    return [*_huge(rng), *wishes, *_strewn(rng)][:WIDE_MAX_LESIONS] if wide else wishes


def _huge(rng: np.random.Generator) -> list[Wish]:
    if rng.random() >= _HUGE_SHARE:
        return []
    side = ((_RA, _RP), (_RA, _LM), (_LM, _LL))[int(rng.choice(3, p=[0.6, 0.25, 0.15]))]
    return [Wish(side, float(rng.uniform(70, WIDE_MAX_MM)), Place.STRADDLING)]


def _strewn(rng: np.random.Generator) -> list[Wish]:
    if rng.random() >= _STREWN_SHARE:
        return []
    count, median_mm = np.exp(rng.uniform(np.log((6, 7)), np.log((WIDE_MAX_LESIONS, 24))))
    places = (Place.DEEP, Place.NEAR_SURFACE, Place.CAPSULE)
    return [
        Wish(_EVERYWHERE, _clipped(rng, median_mm, 0.45, DIAMETER_MM[0], 60), places[int(rng.choice(3, p=[0.6, 0.25, 0.15]))])
        for _ in range(int(count))
    ]


def _of_plan(rng: np.random.Generator, plan: Plan) -> list[Wish]:
    def big(high: float = DIAMETER_MM[1]) -> float:
        return _clipped(rng, 38, 0.42, 31, high)

    def mid() -> float:
        return _clipped(rng, 16, 0.5, 5, 50)

    def tiny() -> float:
        return _clipped(rng, 16, 0.4, MIN_LARGEST_MM, 29)

    def shallow() -> Place:
        return Place.CAPSULE if rng.random() < 0.3 else Place.NEAR_SURFACE

    single = rng.random() < _SINGLE_SHARE
    crowd = int(rng.choice([0, 1, 2, 3, 4, 6], p=[0.1, 0.35, 0.25, 0.15, 0.1, 0.05]))
    if rng.random() < _CROWD_SHARE:
        crowd = int(rng.integers(7, MAX_LESIONS))

    def scatter(*sectors: Sector) -> list[Wish]:
        if crowd > 6:
            return [Wish(sectors, _clipped(rng, 8, 0.45, DIAMETER_MM[0], 22)) for _ in range(crowd)]
        return [Wish(sectors, mid(), shallow() if rng.random() < 0.3 else Place.DEEP) for _ in range(crowd)]

    if plan is Plan.WEDGE:
        return [Wish(_EVERYWHERE, tiny(), shallow()) for _ in range(1 if single else int(rng.integers(2, 4)))]
    if plan is Plan.SECTION:
        one = _EVERYWHERE[int(rng.integers(4))]
        return [Wish((one,), big(48.0)), *([] if single else [Wish((one,), tiny()) for _ in range(min(crowd, 3))])]
    if plan is Plan.RIGHT:
        if single:
            return [Wish((_RA, _RP), big(), Place.STRADDLING)]
        return [Wish((_RA,), big()), Wish((_RP,), mid()), *scatter(_RA, _RP)]
    if plan is Plan.LEFT:
        if single:
            return [Wish((_LM, _LL), big(70.0), Place.STRADDLING)]
        return [Wish((_LM,), big(60.0)), Wish((_LL,), mid()), *scatter(_LM, _LL)]
    if plan is Plan.EXTENDED:
        if single:
            return [Wish((_RA, _LM), big(), Place.STRADDLING)]
        return [Wish((_RA,), big()), Wish((_LM,), mid() + 6), *scatter(_RA, _RP, _LM)]
    if plan is Plan.RIGHT_AND_LEFT:
        left = [Wish((_LL,), tiny(), shallow()), *(Wish((_LL, _LM), tiny(), shallow()) for _ in range(int(rng.integers(0, 3))))]
        return [Wish((_RA, _RP), big()), *scatter(_RA, _RP), *left]
    if plan is Plan.LEFT_AND_RIGHT:
        right = [Wish((_RA, _RP), tiny(), shallow()) for _ in range(int(rng.integers(1, 4)))]
        return [Wish((_LL,), big(55.0)), Wish((_LM,), mid()), *right]
    deep = [Wish((_LL, _LM), mid()) for _ in range(int(rng.integers(1, 5)))]
    second = Wish((_LL,), float(rng.uniform(31, 36)))
    return [Wish((_RA, _RP), min(big() + 12, DIAMETER_MM[1])), second, *deep, *scatter(_RA, _RP)]


def draw_kinds(rng: np.random.Generator, diameters_mm: list[float]) -> list[LesionKind]:
    """The look of each lesion of one case: lesions of one patient resemble each other."""
    vanishing = rng.random() < _VANISHING_SHARE
    usual = list(LesionKind)[int(rng.choice(3, p=[0.6, 0.28, 0.12]))]
    kinds = []
    for diameter in diameters_mm:
        kind = usual if rng.random() < 0.7 else LesionKind.HYPODENSE
        if vanishing and diameter < VANISHING_MAX_MM and rng.random() < 0.6:
            kind = LesionKind.VANISHING
        elif kind is LesionKind.RIM and diameter < 8:
            kind = LesionKind.HYPODENSE
        kinds.append(kind)
    return kinds
