"""A CT without contrast, or of the arterial phase: no fault of a label, but of what can be seen and planned on it."""

from __future__ import annotations

import numpy as np

from flrplan.anatomy import Structure
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold


def _find(case: QcCase, *, native_hu: float, native_liver_hu: float, arterial_hu: float) -> list[Finding]:
    aorta, hu = case.aorta_hu, case.whole.hu
    if aorta is None or hu is None or native_hu <= aorta <= arterial_hu:
        return []
    liver = float(np.median(hu[case.whole.masks[Structure.LIVER]]))
    if aorta < native_hu and liver > native_liver_hu:
        return []
    what = "to be without contrast" if aorta < native_hu else "to be of the arterial phase"
    message = (
        f"the CT seems {what} (aorta {aorta:.0f} HU, liver {liver:.0f} HU); metastases of colorectal cancer show best in the portal "
        "venous phase"
    )
    return [case.finding(Severity.NOTE, message, None, None, aorta, "HU")]


RULE = Rule(
    "contrast_phase",
    "No contrast, or the arterial phase",
    "CRLM are planned on the portal venous phase (Simpson 2024, Sci Data 11:172)",
    _find,
    needs_image=True,
    thresholds=(
        Threshold("native_hu", 80.0, "HU", "blood without contrast has 30 to 50 HU, in the portal venous phase over 100"),
        Threshold("native_liver_hu", 90.0, "HU", "a brighter liver has contrast, so what was taken for the aorta is none"),
        Threshold("arterial_hu", 250.0, "HU", "above what an aorta has in the portal venous phase; measured in docs/qc.md"),
    ),
)
