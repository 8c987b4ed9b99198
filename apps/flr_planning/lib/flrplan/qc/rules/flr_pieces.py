"""A remnant in pieces: what stays after a resection hangs together, but for the two sides of a central one."""

from __future__ import annotations

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold, piece_findings


def _small(case: QcCase, least_ml: float, side_share: float) -> tuple[list[int], list[int]]:
    pieces = case.pieces(Structure.FLR).pieces
    total = sum(p.ml for p in pieces)
    others = [i for i, p in enumerate(pieces) if i and p.ml >= least_ml and not case.at_edge(p)]
    return [i for i in others if pieces[i].ml < side_share * total], [i for i in others if pieces[i].ml >= side_share * total]


def _find(case: QcCase, *, least_ml: float, side_share: float) -> list[Finding]:
    flr = case.pieces(Structure.FLR)
    small, large = _small(case, least_ml, side_share)
    found = piece_findings(case, flr, small, Severity.WARNING, Structure.FLR, "piece of {ml} apart from the remnant")
    return found + piece_findings(
        case, flr, large, Severity.NOTE, Structure.FLR, "the remnant has a second side of {ml}, as after a central resection"
    )


def _drop(case: QcCase, *, least_ml: float, side_share: float) -> dict[Structure, Mask]:
    """Small pieces go to the resection; one at the image's border may hang together beyond it and stays."""
    mask = case.whole.masks[Structure.FLR].copy()
    flr, part = case.pieces(Structure.FLR), mask[case.box]
    total = sum(p.ml for p in flr.pieces)
    for piece in flr.pieces[1:]:
        if piece.ml < side_share * total and not case.at_edge(piece):
            part[piece.box][flr.labels[piece.box] == piece.number] = False
    changed = {Structure.FLR: mask}
    return (
        {**changed, Structure.LRS: case.whole.masks[Structure.LIVER] & ~mask}
        if Structure.LRS in case.masks and Structure.LIVER in case.masks
        else changed
    )


RULE = Rule(
    "flr_pieces",
    "Remnant in pieces",
    "a remnant needs its inflow and outflow, so a piece apart is lost tissue or a slip of the label",
    _find,
    needs=frozenset({Structure.FLR}),
    thresholds=(
        Threshold("least_ml", 0.5, "ml", "a ball of 10 mm"),
        Threshold("side_share", 0.05, "share of the FLR", "a larger piece may be the other side of a central resection"),
    ),
    repair=_drop,
    repaired="small pieces go to the resection",
)
