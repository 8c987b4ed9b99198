"""The patient's height and weight, and an earlier volumetry of the same patient: what volumes are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError
from flrplan.files import read_json, readable
from flrplan.files.checked import require_number
from flrplan.planning.record import require_form

HEIGHT_CM = (100.0, 250.0)
WEIGHT_KG = (25.0, 350.0)
"""Adults; beyond them a unit was mistaken more likely than the patient is rare, and no formula was fitted there."""


@dataclass(frozen=True)
class Patient:
    """Height and weight where they are known, and which patient and day the CT is of.

    source: where height and weight come from, in words. patient_id, scan_date: of the DICOM header; None where there is none.
    Raises: SettingsError for a height or weight that no adult has, with the likely unit.
    """

    height_cm: float | None = None
    weight_kg: float | None = None
    source: str = "given"
    patient_id: str | None = None
    scan_date: date | None = None

    def __post_init__(self) -> None:
        for name, value in (("height_cm", self.height_cm), ("weight_kg", self.weight_kg)):
            if value is not None:  # numpy's own numbers are none of JSON's
                object.__setattr__(self, name, require_number(name, value))
        in_metres = self.height_cm is not None and 1.0 <= self.height_cm <= 2.5
        hint = f", which looks like metres: {100 * (self.height_cm or 0):.0f} cm?" if in_metres else ""
        for name, value, (low, high), unit, said in (
            ("height_cm", self.height_cm, HEIGHT_CM, "cm", hint),
            ("weight_kg", self.weight_kg, WEIGHT_KG, "kg", ""),
        ):
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise SettingsError(
                    f"{name} ({self.source}): expected {low:g} to {high:g} {unit}, got {value:g}{said}; leave it out if it is unknown"
                )

    def to_json(self) -> dict[str, Any]:
        """Plain values, unknown ones None."""
        return {
            "id": self.patient_id,
            "scan_date": None if self.scan_date is None else self.scan_date.isoformat(),
            "height_cm": self.height_cm,
            "weight_kg": self.weight_kg,
            "height_and_weight": self.source if self.height_cm or self.weight_kg else None,
        }


@dataclass(frozen=True)
class Prior:
    """An earlier volumetry of the same patient: its remnant parenchyma (compartment 1), and when it was scanned, where that is known."""

    flr_functional_ml: float
    scan_date: date | None
    patient_id: str | None
    source: str


def read_prior(path: Path) -> Prior:
    """The volumetry of an earlier ``plan.json``. Raises: SettingsError for another file, naming it."""
    if path.suffix.lower() != ".json":
        raise SettingsError(f"{path}: expected the plan.json of an earlier plan; give that file of its folder")
    content = read_json(path, "the plan.json of an earlier plan")
    require_form(content, str(path))
    try:
        volume, patient = content["volumes"]["flr_functional_ml"], content.get("patient") or {}
        day = patient.get("scan_date")
        if not 0 < float(volume) < math.inf:
            raise ValueError(f"flr_functional_ml {volume}")
        return Prior(float(volume), None if day is None else date.fromisoformat(day), patient.get("id"), readable(path))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SettingsError(
            f"{path}: expected the plan.json of an earlier plan, with volumes and flr_functional_ml in it ({error!r}); give that file"
        ) from error


def check_prior(prior: Prior, patient: Patient) -> list[str]:
    """What of a prior could not be checked, in sentences.

    Raises: SettingsError for one of another patient, or of a later day than this CT.
    """
    if None not in (prior.patient_id, patient.patient_id) and prior.patient_id != patient.patient_id:
        raise SettingsError(
            f"{prior.source} is of patient {prior.patient_id}, this CT of {patient.patient_id}; give a prior of the same"
        )
    latest = patient.scan_date or date.today()  # a day as scanners write it, that of no time zone
    if prior.scan_date is not None and prior.scan_date > latest:
        this = f"this CT ({latest})" if patient.scan_date else f"today ({latest})"
        raise SettingsError(
            f"{prior.source} was scanned on {prior.scan_date}, after {this}; a prior is the earlier one: exchange them"
        )
    unknown = []
    if prior.patient_id is None or patient.patient_id is None:
        unknown.append("of the same patient")
    if prior.scan_date is None or patient.scan_date is None:
        unknown.append("earlier than this CT")
    return [f"the files do not say that the prior volumetry is {' and '.join(unknown)}; check it"] if unknown else []


def days_since(prior: Prior, patient: Patient) -> float:
    """Days from a prior to this CT; infinite where either day is not known."""
    if prior.scan_date is None or patient.scan_date is None:
        return math.inf
    return (patient.scan_date - prior.scan_date).days


def patient_of_header(header: Mapping[str, Any]) -> tuple[Patient, list[str]]:
    """The patient of DICOM attributes by keyword (PatientSize in m, PatientWeight in kg, PatientID, StudyDate), and what was not usable.

    Blank and zero values are unknown.
    """
    notes = []

    def number(keyword: str, factor: float, low_high: tuple[float, float]) -> float | None:
        try:
            value = float(header.get(keyword) or 0) * factor
        except (TypeError, ValueError):
            value = math.nan
        if value == 0:
            return None
        if not low_high[0] <= value <= low_high[1]:
            notes.append(f"{keyword} of the DICOM header ({header.get(keyword)}) is implausible and was not used")
            return None
        return round(value, 1)

    height, weight = number("PatientSize", 100.0, HEIGHT_CM), number("PatientWeight", 1.0, WEIGHT_KG)
    text = str(header.get("StudyDate") or "")
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:8])) if text else None
    except ValueError:
        day = None
    return Patient(height, weight, "DICOM header", str(header.get("PatientID") or "").strip() or None, day), notes
