"""Missed lesions: parts of the liver as dark as a metastasis, and as thick, that are labelled as none."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from flrplan.anatomy import Structure
from flrplan.qc.case import QcCase, pieces_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import MANY, Rule, Threshold

_CLEAR_MM = 4.0
"""Closer to a labelled lesion, what is dark is its margin."""
_CAPSULE_MM = 3.0
_SEED = 0.8
"""A part begins where a voxel is this share of the wanted deviation darker."""
_VESSEL_MM, _BALLS = 15.0, 4.0
"""Thinner, and more than so many times the ball that fits into it, is a vessel. Frozen on synthetic cases, docs/qc.md."""


def _find(case: QcCase, *, least_ml: float, darker: float, thick_mm: float) -> list[Finding]:
    grid = case.coarse
    look = grid.look
    if look is None:
        return []
    spacing, crlm, step = grid.spacing_zyx_mm, grid.masks[Structure.CRLM], case.step
    whole = case.pieces(Structure.LIVER)
    dark = (whole.labels == whole.pieces[0].number)[:, ::step, ::step] & (grid.depth_mm > _CAPSULE_MM)
    dark &= look.smooth < look.median - _SEED * darker * look.spread
    if crlm.any():
        dark &= ndimage.distance_transform_edt(~crlm, sampling=spacing) > _CLEAR_MM
    dark = ndimage.binary_opening(dark, ndimage.generate_binary_structure(3, 1))
    depth = ndimage.distance_transform_edt(dark, sampling=spacing)
    pieces = pieces_of(dark, grid.voxel_ml)
    findings = []
    for piece in pieces.pieces:
        if piece.ml < least_ml:
            break
        own = pieces.labels[piece.box] == piece.number
        hu = float(np.median(look.smooth[piece.box][own]))
        thick = 2 * float(depth[piece.box][own].max())
        if thick < thick_mm or look.median - hu < darker * look.spread or _is_vessel(thick, piece.ml):
            continue
        message = (
            f"{piece.ml:.2g} ml of the liver have {hu:.0f} HU, the liver {look.median:.0f}, and are labelled as no metastasis: a missed "
            "one, a cyst, or no liver"
        )
        findings.append(case.finding(Severity.WARNING, message, Structure.CRLM, piece.box, piece.ml, "ml", step))
    return findings[:MANY]


def _is_vessel(thick_mm: float, ml: float) -> bool:
    """A part as thin as a vessel and many times the ball that fits into it: without contrast, veins are darker than the liver."""
    return thick_mm < _VESSEL_MM and ml > _BALLS * np.pi / 6 * thick_mm**3 / 1000.0


_FROZEN = "frozen on synthetic cases, docs/qc.md"
RULE = Rule(
    "missed",
    "Missed lesion",
    "the original segmentation fails to capture lesion L1, arXiv:2604.07999, Fig. 3",
    _find,
    needs=frozenset({Structure.LIVER, Structure.CRLM}),
    needs_image=True,
    thresholds=(
        Threshold("least_ml", 0.5, "ml", "a ball of 10 mm"),
        Threshold("darker", 3.3, "spreads of the liver's HU", _FROZEN),
        Threshold("thick_mm", 10.0, "mm", "thinner is a vessel or a fissure"),
    ),
)
