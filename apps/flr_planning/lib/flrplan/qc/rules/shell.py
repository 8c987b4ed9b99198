"""A resection that runs as a thin shell along the capsule, which nobody can cut."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import QcCase, box_of, pieces_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold


def capsule_shell(liver: Mask, flr: Mask, spacing_zyx_mm: tuple[float, float, float], thickness_mm: float) -> Mask:
    """The part of the resection ``(Z, Y, X) bool`` that is a shell: thinner than ``thickness_mm`` between remnant and capsule.

    Voxels of liver - FLR with the remnant on one side and the outside of the liver on the other, together no farther than the
    thickness; without those beside a thick part of the resection, where every cut runs out thinly at the capsule. Empty masks: empty.
    """
    shell, box = np.zeros(liver.shape, bool), box_of(liver)
    if box is None:
        return shell
    inside, remnant = np.pad(liver[box], 1), np.pad(flr[box], 1)
    resection = inside & ~remnant
    if not resection.any() or not remnant.any():
        return shell
    apart = ndimage.distance_transform_edt(inside, sampling=spacing_zyx_mm)
    apart += ndimage.distance_transform_edt(~remnant, sampling=spacing_zyx_mm)
    thin = resection & (apart <= thickness_mm + min(spacing_zyx_mm))
    thick = resection & ~thin
    if thick.any():
        thin &= ndimage.distance_transform_edt(~thick, sampling=spacing_zyx_mm) > 2 * thickness_mm
    shell[box] = thin[1:-1, 1:-1, 1:-1]
    return shell


def _find(case: QcCase, *, thickness_mm: float, least_ml: float) -> list[Finding]:
    grid = case.coarse
    shell = capsule_shell(grid.masks[Structure.LIVER], grid.masks[Structure.FLR], grid.spacing_zyx_mm, thickness_mm)
    pieces = pieces_of(shell, grid.voxel_ml)
    total = sum(p.ml for p in pieces.pieces)
    if total < least_ml:
        return []
    message = f"{total:.0f} ml of the resection are a shell thinner than {thickness_mm:g} mm along the capsule"
    return [case.finding(Severity.ERROR, message, Structure.LRS, pieces.pieces[0].box, total, "ml", case.step)]


RULE = Rule(
    "shell",
    "Resection as a shell along the capsule",
    "no parenchymal transection leaves a shell of millimetres; a usual error of networks",
    _find,
    needs=frozenset({Structure.LIVER, Structure.FLR}),
    thresholds=(
        Threshold("thickness_mm", 4.0, "mm", "our choice: no resection plane runs 4 mm below the capsule"),
        Threshold("least_ml", 5.0, "ml", "frozen on synthetic cases, docs/qc.md"),
    ),
)
