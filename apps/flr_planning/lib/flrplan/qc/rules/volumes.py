"""Volumes outside the human range, and structures without a voxel that cannot be empty."""

from __future__ import annotations

import numpy as np

from flrplan.anatomy import Structure
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold


def _find(case: QcCase, *, low_ml: float, high_ml: float, low_share: float) -> list[Finding]:
    ml = {s: float(np.count_nonzero(m)) * case.geometry.voxel_volume_ml for s, m in case.masks.items()}
    liver_ml = ml[Structure.LIVER]
    if not liver_ml:
        return [case.finding(Severity.ERROR, "the liver has no voxels", Structure.LIVER, None, 0.0, "ml")]
    found = []
    if not low_ml <= liver_ml <= high_ml:
        message = f"a liver of {liver_ml:.0f} ml is outside {low_ml:.0f} to {high_ml:.0f} ml; check the mask"
        found.append(case.finding(Severity.ERROR, message, Structure.LIVER, None, liver_ml, "ml"))
    flr_ml = ml.get(Structure.FLR)
    if flr_ml == 0:
        found.append(
            case.finding(Severity.ERROR, "the FLR has no voxels: nothing would remain", Structure.FLR, None, 0.0, "ml")
        )
    elif flr_ml is not None and flr_ml < low_share * liver_ml:
        message = f"an FLR of {flr_ml:.0f} ml is {flr_ml / liver_ml:.0%} of the liver; nobody resects so much"
        found.append(case.finding(Severity.WARNING, message, Structure.FLR, None, flr_ml, "ml"))
    return found


RULE = Rule(
    "volumes",
    "Volume outside the human range",
    "adult livers, diseased ones included; outside, the mask or the spacing is more likely wrong than the patient rare",
    _find,
    thresholds=(
        Threshold("low_ml", 500.0, "ml", "smaller adult livers are not seen but after a resection"),
        Threshold("high_ml", 5000.0, "ml", "more only in polycystic livers"),
        Threshold("low_share", 0.1, "share of the liver", "half of the least remnant that is planned, 20 % (Kishi 2009)"),
    ),
)
