"""A synthetic cohort of CT-like volumes with known truth: liver, metastases and the remnant that a rule leaves."""

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
    "plant_faults",
    "sheet_case",
    "write_cohort",
]
