"""Is the whole liver in the picture, thin enough sliced and of a plausible size? Otherwise no volume can be trusted."""

from __future__ import annotations

from flrplan.anatomy import Mask, Structure
from flrplan.image import CT
from flrplan.qc.case import QcCase
from flrplan.qc.registry import check_case

_RULES = ("in_view", "thick_slices", "volumes")


def liver_in_view_findings(ct: CT, liver_zyx: Mask) -> list[str]:
    """Sentences about a liver cut by the field of view, thick slices and an implausible volume; empty if all is well.

    An empty liver gives only what can be said of the CT.
    """
    case = QcCase(ct.name, ct.geometry, {Structure.LIVER: liver_zyx}, ct)
    return [f.message for f in check_case(case, rules=_RULES if liver_zyx.any() else ("thick_slices",)).findings]
