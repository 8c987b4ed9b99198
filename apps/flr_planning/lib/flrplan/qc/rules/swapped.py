"""Left and right, or up and down, swapped: by the CT under the mask and under its mirror image, else by the liver's own shape."""

from __future__ import annotations

import numpy as np

from flrplan.anatomy import Structure
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.place import right_of_midline_mm, spread_hu
from flrplan.qc.rule import Rule, Threshold

_STEP = 2
_TAIL = 10.0
"""Percent left out at either end: upside down, a liver near the middle of the image still lies on itself by more than its quartiles."""
_TISSUE_HU = -200.0
"""Air is even too."""
_AXES = ((2, "left and right"), (0, "up and down"), (1, "front and back"))


def _find(case: QcCase, *, better: float, left_mm: float, low_middle: float) -> list[Finding]:
    liver = case.whole.masks[Structure.LIVER][:, ::_STEP, ::_STEP]
    if not liver.any():
        return []
    found = []
    if case.whole.hu is not None:
        hu = case.whole.hu[:, ::_STEP, ::_STEP]
        own = spread_hu(hu, liver, _TAIL)[1]
        mirrored = [(*spread_hu(hu, np.flip(liver, axis), _TAIL), said) for axis, said in _AXES]
        best, said = min(((spread, said) for median, spread, said in mirrored if median > _TISSUE_HU), default=(own, ""))
        if best < better * own:
            message = f"{said} of the label are swapped: mirrored, it lies on tissue of {best:.0f} HU between the tenths, as it is {own:.0f} HU"
            return [case.finding(Severity.ERROR, message, Structure.LIVER, None, best / own, "ratio")]
    right = right_of_midline_mm(case)
    if right is not None and right < -left_mm:
        message = f"the liver lies {-right:.0f} mm to the left of the midline: left and right swapped, or situs inversus"
        found.append(case.finding(Severity.ERROR, message, Structure.LIVER, None, -right, "mm"))
    if liver[0].any() or liver[-1].any():  # cut by the view, its shape says nothing
        return found
    area = np.count_nonzero(case.main_liver, axis=(1, 2)).astype(float)
    slices = np.flatnonzero(area)
    height = float(slices[-1] - slices[0])
    middle = (float((area * np.arange(area.size)).sum() / area.sum()) - slices[0]) / height if height else 0.5
    if middle < low_middle:
        message = f"the liver's middle lies at {middle:.0%} of its height, its broad end below: up and down swapped?"
        found.append(case.finding(Severity.WARNING, message, Structure.LIVER, None, middle, "share"))
    return found


RULE = Rule(
    "swapped",
    "Left and right, or up and down, swapped",
    "headers lost between NIfTI, NRRD and DICOM; the liver lies on the right, its dome above",
    _find,
    thresholds=(
        Threshold("better", 0.6, "ratio", "frozen on synthetic cases, docs/qc.md"),
        Threshold("left_mm", 17.0, "mm", "frozen on synthetic cases, docs/qc.md"),
        Threshold("low_middle", 0.42, "share of the height", "frozen on synthetic cases, docs/qc.md"),
    ),
)
