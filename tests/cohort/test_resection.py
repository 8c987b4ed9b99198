"""The rule: one line of hand-made lesions per operation."""

from __future__ import annotations

import pytest

from flrplan.cohort.liver import LEFT_SIDE, RIGHT_SIDE, Sector
from flrplan.cohort.resection import LesionSite, Resection, ResectionKind, choose_resection
from flrplan.errors import CohortError

RP, RA, LM, LL = Sector.RIGHT_POSTERIOR, Sector.RIGHT_ANTERIOR, Sector.LEFT_MEDIAL, Sector.LEFT_LATERAL


def site(diameter: float, depth: float, *sectors: Sector) -> LesionSite:
    return LesionSite(diameter, depth, 0.00052 * diameter**3, frozenset(sectors))


SMALL_RP, SMALL_RA, SMALL_LM, SMALL_LL = (site(15, 12, s) for s in (RP, RA, LM, LL))
BIG_RP, BIG_RA, BIG_LM, BIG_LL = (site(50, 40, s) for s in (RP, RA, LM, LL))


@pytest.mark.parametrize(
    ("lesions", "expected"),
    [
        ([SMALL_RP], Resection(ResectionKind.WEDGE, frozenset())),
        ([SMALL_RP, SMALL_LM, SMALL_LL], Resection(ResectionKind.WEDGE, frozenset())),
        ([site(15, 40, RP)], Resection(ResectionKind.SECTIONECTOMY, frozenset({RP}))),
        ([site(31, 12, LL)], Resection(ResectionKind.SECTIONECTOMY, frozenset({LL}))),
        ([SMALL_LM] * 4, Resection(ResectionKind.SECTIONECTOMY, frozenset({LM}))),
        ([BIG_RA, SMALL_RP], Resection(ResectionKind.RIGHT, RIGHT_SIDE)),
        ([site(50, 40, RA, RP)], Resection(ResectionKind.RIGHT, RIGHT_SIDE)),
        ([BIG_LM, SMALL_LL], Resection(ResectionKind.LEFT, LEFT_SIDE)),
        ([BIG_RA, SMALL_LM], Resection(ResectionKind.EXTENDED_RIGHT, RIGHT_SIDE | {LM})),
        ([site(60, 40, RA, LM)], Resection(ResectionKind.EXTENDED_RIGHT, RIGHT_SIDE | {LM})),
        ([BIG_RA, SMALL_LL], Resection(ResectionKind.RIGHT_AND_WEDGE, RIGHT_SIDE)),
        ([BIG_LL, SMALL_RP], Resection(ResectionKind.LEFT_AND_WEDGE, LEFT_SIDE)),
        ([site(60, 40, RA), BIG_LL], Resection(ResectionKind.TWO_STAGE_RIGHT, RIGHT_SIDE, (1,))),
        ([BIG_RA, *[SMALL_LL] * 4], Resection(ResectionKind.TWO_STAGE_RIGHT, RIGHT_SIDE, (1, 2, 3, 4))),
        ([site(60, 40, LL), BIG_RA], Resection(ResectionKind.TWO_STAGE_LEFT, LEFT_SIDE, (1,))),
        # A tie of both sides goes to the right liver.
        ([BIG_LL, BIG_RA], Resection(ResectionKind.TWO_STAGE_RIGHT, RIGHT_SIDE, (0,))),
    ],
)
def test_rule(lesions: list[LesionSite], expected: Resection) -> None:
    assert choose_resection(lesions) == expected


def test_rule_does_not_depend_on_the_order_of_lesions() -> None:
    lesions = [BIG_RA, SMALL_LL, SMALL_RP]
    forward, backward = choose_resection(lesions), choose_resection(lesions[::-1])
    assert (forward.kind, forward.sectors) == (backward.kind, backward.sectors)


def test_no_lesions_is_an_error() -> None:
    with pytest.raises(CohortError, match="needs at least one lesion"):
        choose_resection([])


def test_a_lesion_outside_every_sector_is_an_error() -> None:
    with pytest.raises(CohortError, match="at least one sector"):
        site(10, 5)
