"""A synthetic cohort of CT-like volumes with known truth: liver, metastases and the remnant that a rule leaves."""

from flrplan.cohort.case import SyntheticCase, make_case
from flrplan.cohort.organs import Organ, Vessel
from flrplan.cohort.picture import contact_sheet
from flrplan.cohort.resection import LesionSite, Resection, ResectionKind, choose_resection
from flrplan.cohort.settings import COHORT_VERSION, CaseSize, CohortSettings, case_name
from flrplan.cohort.write import write_cohort

__all__ = [
    "COHORT_VERSION",
    "CaseSize",
    "CohortSettings",
    "LesionSite",
    "Organ",
    "Resection",
    "ResectionKind",
    "SyntheticCase",
    "Vessel",
    "case_name",
    "choose_resection",
    "contact_sheet",
    "make_case",
    "write_cohort",
]
