"""Is the whole liver in the picture, thin enough sliced and of a plausible size? Otherwise no volume can be trusted."""

from __future__ import annotations

import numpy as np

from flrplan.anatomy import Mask
from flrplan.image import CT, Canonical

MIN_CUT_AREA_MM2 = 100.0
"""Liver on the outermost slice of the image counts as cut from this area on (1 cm2)."""
PADDING_HU = -1025.0
"""Below this is padding outside the scanner's field of view, not air."""
THICK_SLICE_MM = 5.0
PLAUSIBLE_LIVER_ML = (500.0, 5000.0)
"""Adult livers, diseased ones included, lie within; outside, the mask is more likely wrong than the patient rare."""

_SIDES = (("inferior", "superior"), ("anterior", "posterior"), ("right", "left"))


def liver_in_view_findings(ct: CT, liver_zyx: Mask) -> list[str]:
    """Sentences about a liver cut by the field of view, thick slices and an implausible volume; empty if all is well.

    An empty liver gives only what can be said of the CT.
    """
    canonical = Canonical.of(ct.geometry)
    spacing = canonical.target.spacing_zyx_mm
    liver = canonical.forward(liver_zyx)
    findings = []
    cut_sides = []
    for axis, sides in enumerate(_SIDES):
        pixel_mm2 = float(np.prod([s for a, s in enumerate(spacing) if a != axis]))
        for side, index in zip(sides, (0, -1), strict=True):
            if np.count_nonzero(np.take(liver, index, axis)) * pixel_mm2 >= MIN_CUT_AREA_MM2:
                cut_sides.append(side)
    if cut_sides:
        findings.append(f"the liver is cut by the field of view ({', '.join(cut_sides)}): all volumes are too small")
    padded_ml = float(np.count_nonzero(liver_zyx & (ct.array_zyx < PADDING_HU))) * ct.geometry.voxel_volume_ml
    if padded_ml >= 1.0:
        findings.append(f"{padded_ml:.0f} ml of the liver mask lie in padding outside the scanner's field of view")
    thickest = max(spacing)
    if thickest > THICK_SLICE_MM:
        findings.append(f"slices of {thickest:.1f} mm (over {THICK_SLICE_MM:.0f} mm): volumes and small tumours are uncertain")
    volume_ml = float(np.count_nonzero(liver_zyx)) * ct.geometry.voxel_volume_ml
    low, high = PLAUSIBLE_LIVER_ML
    if volume_ml and not low <= volume_ml <= high:
        findings.append(f"a liver of {volume_ml:.0f} ml is outside {low:.0f} to {high:.0f} ml; check the mask")
    return findings
