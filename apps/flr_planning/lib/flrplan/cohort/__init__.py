"""A synthetic cohort of CT-like volumes with known truth: liver, metastases and the remnant that a rule leaves.

Names are imported at first use: whoever asks for the size of a case alone loads neither the renderer nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.cohort.asked_faults import plant_fault
    from flrplan.cohort.case import SyntheticCase, make_case
    from flrplan.cohort.faults import Fault, FaultKind, FaultyLabel, plant_faults
    from flrplan.cohort.organs import Organ, Vessel
    from flrplan.cohort.picture import SheetCase, contact_sheet, sheet_case
    from flrplan.cohort.resection import LesionSite, Resection, ResectionKind, choose_resection
    from flrplan.cohort.settings import COHORT_VERSION, CaseSize, CohortSettings, case_name
    from flrplan.cohort.write import write_cohort

__all__ = [
    "COHORT_VERSION",
    "CaseSize",
    "CohortSettings",
    "Fault",
    "FaultKind",
    "FaultyLabel",
    "LesionSite",
    "Organ",
    "Resection",
    "ResectionKind",
    "SheetCase",
    "SyntheticCase",
    "Vessel",
    "case_name",
    "choose_resection",
    "contact_sheet",
    "make_case",
    "plant_fault",
    "plant_faults",
    "sheet_case",
    "write_cohort",
]

import_at_first_use(
    __name__,
    {
        "flrplan.cohort.asked_faults": ("plant_fault",),
        "flrplan.cohort.case": ("SyntheticCase", "make_case"),
        "flrplan.cohort.faults": ("Fault", "FaultKind", "FaultyLabel", "plant_faults"),
        "flrplan.cohort.organs": ("Organ", "Vessel"),
        "flrplan.cohort.picture": ("SheetCase", "contact_sheet", "sheet_case"),
        "flrplan.cohort.resection": ("LesionSite", "Resection", "ResectionKind", "choose_resection"),
        "flrplan.cohort.settings": ("COHORT_VERSION", "CaseSize", "CohortSettings", "case_name"),
        "flrplan.cohort.write": ("write_cohort",),
    },
)
