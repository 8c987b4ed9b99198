"""Liver unlike FLR + LRS: the paper's structures divide the liver."""

from __future__ import annotations

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import QcCase, pieces_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold

_NEEDS = frozenset({Structure.LIVER, Structure.FLR, Structure.LRS})


def _find(case: QcCase, *, least_ml: float) -> list[Finding]:
    liver, flr, lrs = (case.crop.masks[s] for s in (Structure.LIVER, Structure.FLR, Structure.LRS))
    wrong = (
        (liver & ~(flr | lrs), "of the liver are neither FLR nor LRS"),
        (flr & lrs, "are both FLR and LRS"),
        (lrs & ~liver, "of the LRS lie outside the liver"),
    )
    found = []
    for mask, said in wrong:
        pieces = pieces_of(mask, case.crop.voxel_ml).pieces
        total = sum(p.ml for p in pieces)
        if total >= least_ml:
            found.append(case.finding(Severity.ERROR, f"{total:.2g} ml {said}", Structure.LRS, pieces[0].box, total, "ml"))
    return found


def _complement(case: QcCase, *, least_ml: float) -> dict[Structure, Mask]:
    return {Structure.LRS: case.whole.masks[Structure.LIVER] & ~case.whole.masks[Structure.FLR]}


RULE = Rule(
    "partition",
    "Liver unlike FLR + LRS",
    "LRS = liver - FLR, arXiv:2604.07999, section 3.1",
    _find,
    needs=_NEEDS,
    thresholds=(Threshold("least_ml", 0.5, "ml", "a ball of 10 mm; less is a matter of borders"),),
    repair=_complement,
    repaired="LRS = liver - FLR",
)
