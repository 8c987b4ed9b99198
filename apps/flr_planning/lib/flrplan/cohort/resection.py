"""Which resection lesions call for: a rule on what CT, liver and lesions show, with nothing left to chance.

A network that sees CT, liver and CRLM can therefore learn the remnant. The rule is a caricature of surgical practice, made
for a cohort with known truth; it is no advice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flrplan.cohort.liver import LEFT_SIDE, RIGHT_SIDE, Sector
from flrplan.errors import CohortError

WEDGE_MARGIN_MM = 10.0
"""Every lesion that is taken is taken with this much liver around it, also across the cut of a larger resection."""

WEDGE_MAX_DIAMETER_MM = 30.0
"""Larger lesions are not taken by a wedge."""

WEDGE_MAX_DEPTH_MM = 32.0
"""Lesions whose centre lies deeper below the liver's surface are not taken by a wedge."""

WEDGE_MAX_COUNT = 3
"""At most so many wedges in one operation."""


class ResectionKind(StrEnum):
    """The operations that the rule can choose."""

    WEDGE = "wedge"
    SECTIONECTOMY = "sectionectomy"
    RIGHT = "right hepatectomy"
    LEFT = "left hepatectomy"
    EXTENDED_RIGHT = "extended right hepatectomy"
    RIGHT_AND_WEDGE = "right hepatectomy and wedges"
    LEFT_AND_WEDGE = "left hepatectomy and wedges"
    TWO_STAGE_RIGHT = "first of two stages, right"
    TWO_STAGE_LEFT = "first of two stages, left"


@dataclass(frozen=True)
class LesionSite:
    """What the rule looks at: size, depth of the centre below the liver's surface, and the sectors it lies in
    (those with at least a fifth of its volume).
    """

    diameter_mm: float
    depth_mm: float
    volume_ml: float
    sectors: frozenset[Sector]

    def __post_init__(self) -> None:
        if not self.sectors:
            raise CohortError("a lesion lies in at least one sector of the liver, got none")

    @property
    def wedgeable(self) -> bool:
        """Small and near the surface."""
        return self.diameter_mm <= WEDGE_MAX_DIAMETER_MM and self.depth_mm <= WEDGE_MAX_DEPTH_MM


@dataclass(frozen=True)
class Resection:
    """``sectors`` are removed as a whole, and every lesion with :data:`WEDGE_MARGIN_MM` but for those whose index is in ``left_behind``."""

    kind: ResectionKind
    sectors: frozenset[Sector]
    left_behind: tuple[int, ...] = ()


def choose_resection(lesions: Sequence[LesionSite]) -> Resection:
    """The resection for lesions; the first line that fits.

    1. At most three, all small and near the surface: wedges.
    2. All in one sector: that sector.
    3. All on one side: that side's hepatectomy.
    4. All in the right liver and the left medial sector, on both sides of Cantlie's plane: extended right hepatectomy.
    5. Otherwise bilobar. The side with more tumour goes (the right one on a tie); on the other side lesions are wedged if
       at most three and all small and near the surface; otherwise they stay for a second stage. A lesion that crosses
       Cantlie's plane counts to neither side's tumour, and is taken.

    Raises: CohortError without lesions.
    """
    if not lesions:
        raise CohortError("no lesions, so no resection: a case needs at least one lesion")
    everywhere = frozenset().union(*(lesion.sectors for lesion in lesions))
    if len(lesions) <= WEDGE_MAX_COUNT and all(lesion.wedgeable for lesion in lesions):
        return Resection(ResectionKind.WEDGE, frozenset())
    if len(everywhere) == 1:
        return Resection(ResectionKind.SECTIONECTOMY, everywhere)
    if everywhere <= RIGHT_SIDE:
        return Resection(ResectionKind.RIGHT, RIGHT_SIDE)
    if everywhere <= LEFT_SIDE:
        return Resection(ResectionKind.LEFT, LEFT_SIDE)
    if Sector.LEFT_LATERAL not in everywhere:
        return Resection(ResectionKind.EXTENDED_RIGHT, RIGHT_SIDE | {Sector.LEFT_MEDIAL})
    right_ml = sum(lesion.volume_ml for lesion in lesions if lesion.sectors <= RIGHT_SIDE)
    left_ml = sum(lesion.volume_ml for lesion in lesions if lesion.sectors <= LEFT_SIDE)
    goes_right = right_ml >= left_ml
    side = RIGHT_SIDE if goes_right else LEFT_SIDE
    other = tuple(i for i, lesion in enumerate(lesions) if not lesion.sectors & side)
    if len(other) <= WEDGE_MAX_COUNT and all(lesions[i].wedgeable for i in other):
        kind = ResectionKind.RIGHT_AND_WEDGE if goes_right else ResectionKind.LEFT_AND_WEDGE
        return Resection(kind, side)
    kind = ResectionKind.TWO_STAGE_RIGHT if goes_right else ResectionKind.TWO_STAGE_LEFT
    return Resection(kind, side, other)
