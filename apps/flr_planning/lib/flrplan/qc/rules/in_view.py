"""A liver that the field of view cuts, or that lies in padding; and thick slices: then no volume can be trusted."""

from __future__ import annotations

import numpy as np

from flrplan.anatomy import Structure
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold

PADDING_HU = -1025.0
"""Below this is padding outside the scanner's field of view, not air."""
_SIDES = (("inferior", "superior"), ("anterior", "posterior"), ("right", "left"))


def _find(case: QcCase, *, least_cut_mm2: float, least_padding_ml: float) -> list[Finding]:
    return [*_cut(case, least_cut_mm2), *_padding(case, least_padding_ml)]


def _cut(case: QcCase, least_mm2: float) -> list[Finding]:
    liver, spacing = case.main_liver, case.spacing_zyx_mm
    cut: list[tuple[str, float, int, int]] = []
    for axis, sides in enumerate(_SIDES):
        pixel_mm2 = float(np.prod([s for a, s in enumerate(spacing) if a != axis]))
        at_border = (case.box[axis].start == 0, case.box[axis].stop == case.canonical.target.shape_zyx[axis])
        for side, end, here in zip(sides, (0, -1), at_border, strict=True):
            area = float(np.count_nonzero(np.take(liver, end, axis))) * pixel_mm2
            if here and area >= least_mm2:
                cut.append((side, area, axis, end))
    if not cut:
        return []
    _, area, axis, end = max(cut, key=lambda c: c[1])
    n = case.crop.masks[Structure.LIVER].shape[axis]
    box = [slice(0, m) for m in case.crop.masks[Structure.LIVER].shape]
    box[axis] = slice(0, 1) if end == 0 else slice(n - 1, n)
    message = f"the liver is cut by the field of view ({', '.join(c[0] for c in cut)}): all volumes are too small"
    return [case.finding(Severity.ERROR, message, Structure.LIVER, (box[0], box[1], box[2]), area / 100.0, "cm2")]


def _padding(case: QcCase, least_ml: float) -> list[Finding]:
    hu = case.crop.hu
    if hu is None:
        return []
    padded = float(np.count_nonzero(case.crop.masks[Structure.LIVER] & (hu < PADDING_HU))) * case.crop.voxel_ml
    if padded < least_ml:
        return []
    message = f"{padded:.0f} ml of the liver mask lie in padding outside the scanner's field of view"
    return [case.finding(Severity.ERROR, message, Structure.LIVER, None, padded, "ml")]


def _thick(case: QcCase, *, thick_mm: float) -> list[Finding]:
    thickest = max(case.spacing_zyx_mm)
    if thickest <= thick_mm:
        return []
    message = f"slices of {thickest:.1f} mm (over {thick_mm:.0f} mm): volumes and small tumours are uncertain"
    return [case.finding(Severity.NOTE, message, None, None, thickest, "mm")]


RULE = Rule(
    "in_view",
    "Liver cut by the field of view",
    "a volume needs the whole organ",
    _find,
    thresholds=(
        Threshold("least_cut_mm2", 100.0, "mm2", "1 cm2 of liver on the outermost slice"),
        Threshold("least_padding_ml", 1.0, "ml", "more than a rim of voxels"),
    ),
)
THICK_RULE = Rule(
    "thick_slices",
    "Thick slices",
    "partial volumes: TCIA's slices are 0.8 to 7.5 mm apart (Simpson 2024, Sci Data 11:172)",
    _thick,
    needs=frozenset(),
    thresholds=(Threshold("thick_mm", 5.0, "mm", "thicker ones blur lesions of 10 mm"),),
)
