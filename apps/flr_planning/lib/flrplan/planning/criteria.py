"""The formulas, thresholds and names of liver volumetry, each with its source and what it is over; they stand nowhere else.

A threshold is of the fraction that it was found for: over the measured liver without tumours, or over a standardised liver volume (sTLV) of
one formula. The list of thresholds and their denominators is Table 1 of :data:`REVIEW`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

REVIEW = "doi 10.1002/jso.25430, Table 1"


class BsaFormula(StrEnum):
    """Body surface area (m2) of height H (cm) and weight W (kg)."""

    MOSTELLER = "Mosteller"
    DUBOIS = "DuBois"

    def m2(self, height_cm: float, weight_kg: float) -> float:
        """Mosteller 1987: sqrt(H W / 3600). DuBois 1916: 0.007184 W^0.425 H^0.725."""
        if self is BsaFormula.MOSTELLER:
            return math.sqrt(height_cm * weight_kg / 3600.0)
        return 0.007184 * float(weight_kg**0.425) * float(height_cm**0.725)


class Denominator(StrEnum):
    """What an FLR% is over."""

    MEASURED = "measured liver without tumours"
    VAUTHEY = "sTLV by Vauthey 2002"
    URATA = "sTLV by Urata 1995"

    def stlv_ml(self, bsa_m2: float) -> float:
        """The standardised liver volume. Vauthey 2002: -794.41 + 1267.28 BSA. Urata 1995: 706.2 BSA + 2.4. Not of ``MEASURED``."""
        if self is Denominator.MEASURED:
            raise ValueError("the measured liver has no formula")
        return -794.41 + 1267.28 * bsa_m2 if self is Denominator.VAUTHEY else 706.2 * bsa_m2 + 2.4


STANDARDISED = (Denominator.VAUTHEY, Denominator.URATA)
"""The first is the one of sFLR, degree of hypertrophy and kinetic growth rate."""


class LiverState(StrEnum):
    """How the liver is, as the user states it: the thresholds follow."""

    NORMAL = "normal"
    CHEMOTHERAPY = "chemotherapy"
    INJURED = "injured"


@dataclass(frozen=True)
class Threshold:
    """The least FLR%, ``percent``, that a source asks for in a state of the liver, and what it is over."""

    liver: LiverState
    percent: float
    over: Denominator
    source: str
    remark: str = ""

    def describe(self) -> str:
        """``30 % over sTLV by Vauthey 2002 (Shindoh 2013; chemotherapy for more than 3 months)``."""
        return f"{self.percent:g} % over {self.over.value} ({self.source}{f'; {self.remark}' if self.remark else ''})"


THRESHOLDS = (
    Threshold(LiverState.NORMAL, 20.0, Denominator.VAUTHEY, "Kishi 2009"),
    Threshold(LiverState.NORMAL, 25.0, Denominator.URATA, "Vauthey 2000, Surgery 127:512"),
    Threshold(LiverState.NORMAL, 25.0, Denominator.MEASURED, "Shoup 2003"),
    Threshold(LiverState.NORMAL, 26.6, Denominator.MEASURED, "Schindl 2005"),
    Threshold(LiverState.CHEMOTHERAPY, 30.0, Denominator.VAUTHEY, "Shindoh 2013", "chemotherapy for more than 3 months"),
    Threshold(LiverState.INJURED, 40.0, Denominator.MEASURED, "Azoulay 2000", "fibrosis or cirrhosis"),
    Threshold(LiverState.INJURED, 40.0, Denominator.MEASURED, "Kubota 1997", "50 % by indocyanine green retention"),
)

LEAST_FLR_TO_WEIGHT_PERCENT = 0.5
FLR_TO_WEIGHT_SOURCE = "Truant 2007, J Am Coll Surg 204:22"
"""Remnant over body weight, 1 ml taken for 1 g: below it, hepatic dysfunction and death were more frequent after extended resections."""

GROWTH_SOURCE = "Shindoh 2013, J Am Coll Surg 216:201"
LEAST_SFLR_PERCENT, LEAST_HYPERTROPHY_POINTS, LEAST_GROWTH_POINTS_PER_WEEK = 29.6, 7.5, 2.0
"""After portal vein embolisation: sFLR, degree of hypertrophy, kinetic growth rate; cut-offs of one cohort."""

SEGMENTS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII")
SEGMENTS_SOURCE = "Couinaud, Le foie, Masson 1957"
RESECTIONS = {
    frozenset({"II", "III"}): "left lateral sectionectomy",
    frozenset({"IV"}): "left medial sectionectomy",
    frozenset({"V", "VIII"}): "right anterior sectionectomy",
    frozenset({"VI", "VII"}): "right posterior sectionectomy",
    frozenset({"II", "III", "IV"}): "left hepatectomy",
    frozenset({"V", "VI", "VII", "VIII"}): "right hepatectomy",
    frozenset({"II", "III", "IV", "V", "VIII"}): "left trisectionectomy",
    frozenset({"IV", "V", "VI", "VII", "VIII"}): "right trisectionectomy",
}
RESECTIONS_SOURCE = "Brisbane 2000, HPB 2:333"
"""By the segments that go; segment I is told apart."""
