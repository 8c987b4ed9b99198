"""Files of one case that lie on different grids."""

from __future__ import annotations

import numpy as np

from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule


def _find(case: QcCase) -> list[Finding]:
    found = []
    for name, grid in case.off_grid.items():
        moved = None
        if grid.size_xyz != case.geometry.size_xyz:
            what = f"{'x'.join(map(str, grid.size_xyz))} voxels for {'x'.join(map(str, case.geometry.size_xyz))}"
        else:
            moved = float(np.linalg.norm(grid.corners_mm() - case.geometry.corners_mm(), axis=1).max())
            what = f"corners up to {moved:.1f} mm away"
        message = f"{name} lies on another grid than the label ({what}) and was not looked at"
        found.append(case.finding(Severity.ERROR, message, None, None, moved, "mm" if moved is not None else ""))
    return found


RULE = Rule(
    "grids",
    "Grids that differ",
    "a SEG stores only its slab, SliceThickness is not the spacing (Simpson 2024, Sci Data 11:172)",
    _find,
    needs=frozenset(),
)
