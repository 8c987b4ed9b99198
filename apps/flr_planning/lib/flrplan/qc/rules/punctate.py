"""Punctate foci: metastases too small to be told from a partial volume."""

from __future__ import annotations

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold, piece_findings


def _find(case: QcCase, *, largest_ml: float) -> list[Finding]:
    crlm = case.pieces(Structure.CRLM)
    chosen = [i for i, p in enumerate(crlm.pieces) if p.ml < largest_ml]
    return piece_findings(case, crlm, chosen, Severity.WARNING, Structure.CRLM, "punctate focus of {ml}")


def _remove(case: QcCase, *, largest_ml: float) -> dict[Structure, Mask]:
    mask = case.whole.masks[Structure.CRLM].copy()
    crlm, part = case.pieces(Structure.CRLM), mask[case.box]
    for piece in crlm.pieces:
        if piece.ml < largest_ml:
            part[piece.box][crlm.labels[piece.box] == piece.number] = False
    return {Structure.CRLM: mask}


RULE = Rule(
    "punctate",
    "Punctate focus",
    "very small punctate foci were excluded, arXiv:2604.07999, section 3.1 and Fig. 3",
    _find,
    needs=frozenset({Structure.CRLM}),
    thresholds=(Threshold("largest_ml", 0.065, "ml", "a ball of 5 mm; the paper states no size"),),
    repair=_remove,
    repaired="foci below that volume are removed",
)
