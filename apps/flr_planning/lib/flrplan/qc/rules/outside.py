"""CRLM and FLR outside the liver, of which both are parts."""

from __future__ import annotations

from functools import partial

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import QcCase, pieces_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold, piece_findings


def _find(structure: Structure, said: str, case: QcCase, *, least_ml: float) -> list[Finding]:
    beyond = pieces_of(case.crop.masks[structure] & ~case.crop.masks[Structure.LIVER], case.crop.voxel_ml)
    chosen = [i for i, p in enumerate(beyond.pieces) if p.ml >= least_ml]
    return piece_findings(case, beyond, chosen, Severity.ERROR, structure, said)


def _drop_crlm(case: QcCase, *, least_ml: float) -> dict[Structure, Mask]:
    """Metastases that touch no liver go; those that reach beyond it stay, since the liver may be wrong."""
    crlm = case.whole.masks[Structure.CRLM].copy()
    own = case.pieces(Structure.CRLM)
    part = crlm[case.box]
    liver = case.crop.masks[Structure.LIVER]
    for piece in own.pieces:
        inside = own.labels[piece.box] == piece.number
        if not (inside & liver[piece.box]).any():
            part[piece.box][inside] = False
    return {Structure.CRLM: crlm}


def _clip_flr(case: QcCase, *, least_ml: float) -> dict[Structure, Mask]:
    return {Structure.FLR: case.whole.masks[Structure.FLR] & case.whole.masks[Structure.LIVER]}


CRLM_RULE = Rule(
    "crlm_outside",
    "CRLM outside the liver",
    "an erroneous CRLM label in the lung, arXiv:2604.07999, Fig. 1",
    partial(_find, Structure.CRLM, "{ml} of CRLM lie outside the liver"),
    needs=frozenset({Structure.LIVER, Structure.CRLM}),
    thresholds=(Threshold("least_ml", 0.1, "ml", "a ball of 6 mm; less is a matter of borders"),),
    repair=_drop_crlm,
    repaired="metastases that touch no liver are removed",
)
FLR_RULE = Rule(
    "flr_outside",
    "FLR outside the liver",
    "the FLR is a part of the liver, arXiv:2604.07999, section 3.1",
    partial(_find, Structure.FLR, "{ml} of the FLR lie outside the liver"),
    needs=frozenset({Structure.LIVER, Structure.FLR}),
    thresholds=(Threshold("least_ml", 0.5, "ml", "a ball of 10 mm; less is a matter of borders"),),
    repair=_clip_flr,
    repaired="the FLR ends at the liver's border",
)
