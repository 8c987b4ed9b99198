"""A mask that is no liver: vessels, another organ, the heart, by shape, place and surroundings."""

from __future__ import annotations

from flrplan.anatomy import Structure
from flrplan.qc.case import QcCase, box_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.place import right_of_midline_mm, spread_hu
from flrplan.qc.rule import Rule, Threshold

_LUNG_HU = -500.0
_RING_MM = (3.0, 12.0)


def _find(
    case: QcCase,
    *,
    least_depth_mm: float,
    most_lung: float,
    least_right_mm: float,
    low_hu: float,
    high_hu: float,
    most_spread_hu: float,
) -> list[Finding]:
    grid = case.coarse
    liver = grid.masks[Structure.LIVER]
    if not liver.any():
        return []
    said = []
    depth = float(grid.depth_mm.max())
    if depth < least_depth_mm:
        said.append(
            (Severity.ERROR, f"it is nowhere thicker than {2 * depth:.0f} mm, like vessels or a small organ", depth, "mm")
        )
    right = right_of_midline_mm(case)
    # Without a CT the midline is that of the view, and what lies far on the left is a liver that was mirrored.
    if right is not None and right < least_right_mm and (grid.hu is not None or right > -least_right_mm):
        side = "right" if right >= 0 else "left"
        text = f"its middle lies {abs(right):.0f} mm to the {side} of the midline, like that of the heart, the stomach or the spleen"
        said.append((Severity.ERROR, text, right, "mm"))
    if grid.hu is not None:
        ring = grid.hu[(grid.away_mm > _RING_MM[0]) & (grid.away_mm < _RING_MM[1])]
        lung = float((ring < _LUNG_HU).mean()) if ring.size else 0.0
        if lung > most_lung:
            said.append((Severity.ERROR, f"{lung:.0%} of what surrounds it is lung, as of the heart", lung, "share"))
        median, spread = spread_hu(grid.hu, liver)
        if not low_hu <= median <= high_hu or spread > most_spread_hu:
            said.append(
                (
                    Severity.ERROR,
                    f"inside are {median:.0f} HU with quartiles {spread:.0f} HU apart, unlike any liver",
                    spread,
                    "HU",
                )
            )
    return [
        case.finding(
            severity,
            f"the liver mask does not look like a liver: {text}",
            Structure.LIVER,
            box_of(liver),
            size,
            unit,
            case.step,
        )
        for severity, text, size, unit in said
    ]


RULE = Rule(
    "not_liver",
    "Mask that is not a liver",
    "wrong segments in downloads: portal vein, heart, spleen (Simpson 2024, Sci Data 11:172, stores vessels beside the liver)",
    _find,
    thresholds=(
        Threshold("least_depth_mm", 22.0, "mm", "frozen on synthetic cases, docs/qc.md"),
        Threshold("most_lung", 0.28, "share", "frozen on synthetic cases, docs/qc.md"),
        Threshold("least_right_mm", 17.0, "mm", "frozen on synthetic cases, docs/qc.md"),
        Threshold("low_hu", -20.0, "HU", "severe steatosis without contrast"),
        Threshold("high_hu", 220.0, "HU", "above any phase; iron and amiodarone reach some 100 HU without contrast"),
        Threshold("most_spread_hu", 80.0, "HU", "frozen on synthetic cases, docs/qc.md"),
    ),
)
