"""Stray islands: pieces of liver apart from the largest one. A large piece at the border of the image is part of a liver that is cut."""

from __future__ import annotations

import numpy as np

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import STRAY_SHARE, QcCase
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold, piece_findings


def _find(case: QcCase, *, least_ml: float, large_share: float) -> list[Finding]:
    liver = case.pieces(Structure.LIVER)
    if len(liver.pieces) < 2:
        return []
    large_ml = large_share * sum(p.ml for p in liver.pieces)
    chosen = [i for i, p in enumerate(liver.pieces) if i and p.ml >= least_ml and not (case.at_edge(p) and p.ml >= large_ml)]
    large = bool(chosen) and liver.pieces[chosen[0]].ml >= large_ml
    severity = Severity.ERROR if large else Severity.WARNING
    return piece_findings(case, liver, chosen, severity, Structure.LIVER, "island of {ml} apart from the liver")


def _largest(case: QcCase, *, least_ml: float, large_share: float) -> dict[Structure, Mask]:
    """The largest piece stays, unless the next one is large too, and those at the image's border, beyond which they may hang together.

    FLR and LRS end where the liver does; the CRLM stays.
    """
    liver = case.pieces(Structure.LIVER)
    if len(liver.pieces) < 2 or liver.pieces[1].ml >= large_share * sum(p.ml for p in liver.pieces):
        return {}
    kept = np.zeros(case.whole.masks[Structure.LIVER].shape, bool)
    kept[case.box] = np.isin(liver.labels, [p.number for i, p in enumerate(liver.pieces) if not i or case.at_edge(p)])
    parts = [s for s in (Structure.FLR, Structure.LRS) if s in case.masks]
    gone = case.whole.masks[Structure.LIVER] & ~kept
    return {Structure.LIVER: kept, **{s: case.whole.masks[s] & ~gone for s in parts}}


RULE = Rule(
    "islands",
    "Stray island of liver",
    "stray islands in the data, Simpson 2024, Sci Data 11:172; the liver is one organ",
    _find,
    thresholds=(
        Threshold("least_ml", 0.1, "ml", "a ball of 6 mm; less is a matter of sampling thin edges"),
        Threshold("large_share", STRAY_SHARE, "share of the liver", "such a piece may be the liver itself"),
    ),
    repair=_largest,
    repaired="the largest piece stays, unless another one is large, too",
)
