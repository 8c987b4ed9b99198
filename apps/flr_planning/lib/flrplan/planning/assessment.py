"""Is the remnant large enough: its volume against the patient's size, the thresholds of the literature, and an earlier volumetry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from flrplan.errors import SettingsError
from flrplan.files.checked import require_number
from flrplan.planning.criteria import (
    FLR_TO_WEIGHT_SOURCE,
    GROWTH_SOURCE,
    LEAST_FLR_TO_WEIGHT_PERCENT,
    LEAST_GROWTH_POINTS_PER_WEEK,
    LEAST_HYPERTROPHY_POINTS,
    LEAST_SFLR_PERCENT,
    REVIEW,
    STANDARDISED,
    THRESHOLDS,
    BsaFormula,
    Denominator,
    LiverState,
    Threshold,
)
from flrplan.planning.patient import Patient, Prior, check_prior, days_since
from flrplan.planning.volumetry import Volumes

NOT_COMPUTABLE = "not computable"
DAY_WEEKS = 1 / 7
MET, NOT_MET, NOT_APPLICABLE, NOT_JUDGED = "met", "not met", "not applicable", "not judged"


@dataclass(frozen=True)
class Clinical:
    """What a user knows of the patient; nothing of it is guessed.

    liver_state: which thresholds are judged; None: none, all are listed. weeks: from the embolisation of the portal vein to this CT.
    Raises: SettingsError for weeks below a day or above ten years, and as :func:`flrplan.planning.patient.check_prior`.
    """

    patient: Patient = field(default_factory=Patient)
    liver_state: LiverState | None = None
    prior: Prior | None = None
    weeks: float | None = None

    def __post_init__(self) -> None:
        if self.weeks is not None:
            object.__setattr__(self, "weeks", require_number("weeks", self.weeks))
        if self.weeks is not None and not DAY_WEEKS <= self.weeks <= 520:
            raise SettingsError(f"weeks since the embolisation: expected a day ({DAY_WEEKS:.2f}) to 520, got {self.weeks:g}")
        if self.weeks is not None and self.prior is None:
            raise SettingsError(
                "weeks since the embolisation say nothing without the volumetry before it; give the prior as well"
            )
        if self.prior is not None:
            check_prior(self.prior, self.patient)


@dataclass(frozen=True)
class Assessment:
    """The remnant parenchyma (compartment 1) of a plan, set against what is known of the patient. What cannot be computed is NaN."""

    volumes: Volumes
    clinical: Clinical

    def bsa_m2(self, formula: BsaFormula = BsaFormula.MOSTELLER) -> float:
        """Body surface area; NaN without height and weight."""
        height, weight = self.clinical.patient.height_cm, self.clinical.patient.weight_kg
        return math.nan if height is None or weight is None else formula.m2(height, weight)

    def flr_percent(self, over: Denominator, bsa: BsaFormula = BsaFormula.MOSTELLER) -> float:
        """FLR% over one denominator: measured, or sFLR over a standardised liver volume."""
        if over is Denominator.MEASURED:
            return 100 * self.volumes.flr_fraction
        return 100 * self.volumes.flr_functional_ml / over.stlv_ml(self.bsa_m2(bsa))

    @property
    def sflr_percent(self) -> float:
        """SFLR by Vauthey 2002 with the body surface area by Mosteller."""
        return self.flr_percent(STANDARDISED[0])

    @property
    def flr_to_weight_percent(self) -> float:
        """Remnant over body weight, 1 ml taken for 1 g."""
        weight = self.clinical.patient.weight_kg
        return math.nan if weight is None else 100 * self.volumes.flr_functional_ml / (1000 * weight)

    @property
    def hypertrophy_points(self) -> float:
        """Degree of hypertrophy: sFLR now minus before, both over this CT's sTLV, so that a change of weight is no growth."""
        prior = self.clinical.prior
        if prior is None:
            return math.nan
        return self.sflr_percent - 100 * prior.flr_functional_ml / STANDARDISED[0].stlv_ml(self.bsa_m2())

    @property
    def growth_points_per_week(self) -> float:
        """Kinetic growth rate: degree of hypertrophy over the weeks since embolisation."""
        weeks = self.clinical.weeks
        return math.nan if weeks is None else self.hypertrophy_points / weeks

    def judged(self) -> list[tuple[Threshold, float, str]]:
        """The thresholds of the stated liver (all, where none is stated), the FLR% over their own denominator, and the verdict.

        One whose denominator is not known is ``not applicable``; none is judged where no state of the liver is stated.
        """
        out = []
        for threshold in THRESHOLDS:
            if self.clinical.liver_state not in (None, threshold.liver):
                continue
            percent = self.flr_percent(threshold.over)
            if math.isnan(percent):
                verdict = NOT_APPLICABLE
            elif self.clinical.liver_state is None:
                verdict = NOT_JUDGED
            else:
                verdict = MET if percent >= threshold.percent else NOT_MET
            out.append((threshold, percent, verdict))
        return out

    def findings(self) -> list[str]:
        """What a person should look at, one sentence each."""
        prior, weeks = self.clinical.prior, self.clinical.weeks
        findings = [] if prior is None else check_prior(prior, self.clinical.patient)
        days = math.inf if prior is None else days_since(prior, self.clinical.patient)
        if weeks is not None and 7 * weeks > days + 7:  # weeks are often said rounded
            findings.append(
                f"the embolisation, {weeks:g} weeks before this CT, would lie before the prior volumetry, which was scanned {days:.0f} days before "
                "it; check the weeks and the prior"
            )
        elif days == 0:
            findings.append(
                "the prior volumetry is of the same day as this CT; check that it is the one before the embolisation"
            )
        findings += [
            f"the remnant is below {threshold.describe()}: {percent:.1f} %"
            for threshold, percent, verdict in self.judged()
            if verdict == NOT_MET
        ]
        if self.flr_to_weight_percent < LEAST_FLR_TO_WEIGHT_PERCENT:
            findings.append(
                f"the remnant is {self.flr_to_weight_percent:.2f} % of the body weight, below {LEAST_FLR_TO_WEIGHT_PERCENT:g} % "
                f"({FLR_TO_WEIGHT_SOURCE})"
            )
        return findings

    def describe(self) -> list[str]:
        """Lines for a reader: the standardised remnant, then every threshold with its denominator, source and verdict."""
        lines = []
        if math.isnan(self.sflr_percent):
            lines.append(f"sFLR {NOT_COMPUTABLE}: height and weight are not known")
        else:
            stlv, bsa = STANDARDISED[0].stlv_ml(self.bsa_m2()), self.bsa_m2()
            by = f"{STANDARDISED[0].value.removeprefix('sTLV ')}, BSA {bsa:.2f} m2 by {BsaFormula.MOSTELLER.value}"
            lines.append(f"sFLR {self.sflr_percent:.1f} % (sTLV {stlv:.0f} ml {by})")
        if not math.isnan(self.flr_to_weight_percent):
            lines.append(f"FLR {self.flr_to_weight_percent:.2f} % of the body weight")
        if self.clinical.prior is not None:
            lines.append(
                f"degree of hypertrophy {_number(self.hypertrophy_points, ' points')}, kinetic growth rate "
                f"{_number(self.growth_points_per_week, ' points a week')}"
            )
        state = self.clinical.liver_state
        lines.append(
            "liver not stated, no threshold is judged:" if state is None else f"thresholds for a liver stated as {state.value}:"
        )
        lines += [
            f"  {verdict}: {threshold.describe()}, here {_number(percent, ' %')}"
            for threshold, percent, verdict in self.judged()
        ]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values, undefined ones None; each with the names of its formulas and sources."""
        standardised = [
            {
                "formula": over.value,
                "bsa_formula": bsa.value,
                "bsa_m2": round(self.bsa_m2(bsa), 4),
                "stlv_ml": round(over.stlv_ml(self.bsa_m2(bsa)), 1),
                "sflr_percent": round(self.flr_percent(over, bsa), 2),
            }
            for over in STANDARDISED
            for bsa in BsaFormula
            if not math.isnan(self.bsa_m2(bsa))
        ]
        state, prior = self.clinical.liver_state, self.clinical.prior
        return {
            "patient": self.clinical.patient.to_json(),
            "sflr_percent": _rounded(self.sflr_percent),
            "standardised": standardised or NOT_COMPUTABLE,
            "flr_to_weight": {
                "percent": _rounded(self.flr_to_weight_percent),
                "least_percent": LEAST_FLR_TO_WEIGHT_PERCENT,
                "source": FLR_TO_WEIGHT_SOURCE,
            },
            "liver_state": None if state is None else state.value,
            "thresholds": [
                {
                    "liver": threshold.liver.value,
                    "percent": threshold.percent,
                    "over": threshold.over.value,
                    "source": threshold.source,
                    "remark": threshold.remark,
                    "flr_percent": _rounded(percent),
                    "verdict": verdict,
                }
                for threshold, percent, verdict in self.judged()
            ],
            "thresholds_after": REVIEW,
            "growth": None
            if prior is None
            else {
                "prior": prior.source,
                "prior_flr_functional_ml": prior.flr_functional_ml,
                "weeks": self.clinical.weeks,
                "hypertrophy_points": _rounded(self.hypertrophy_points),
                "growth_points_per_week": _rounded(self.growth_points_per_week),
                "cut_offs": {
                    "sflr_percent": LEAST_SFLR_PERCENT,
                    "hypertrophy_points": LEAST_HYPERTROPHY_POINTS,
                    "growth_points_per_week": LEAST_GROWTH_POINTS_PER_WEEK,
                    "source": GROWTH_SOURCE,
                },
            },
        }


def _number(value: float, unit: str) -> str:
    return NOT_COMPUTABLE if math.isnan(value) else f"{value:.1f}{unit}"


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
