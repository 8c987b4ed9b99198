"""Over-segmented lesions: what is drawn as their margin looks like the liver around it.

Metastases often wash out towards their margin, so it speaks in notes, and of those alone that stand out clearly. A margin brighter than the
liver is a rim.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import Box, Grid, QcCase, pieces_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.image import LiverLook
from flrplan.qc.rule import MANY, Rule, Threshold

_AROUND_MM = 12.0
_RING_MM = 2.0
_BIN_MM = 1.0
_LEAST_RING, _LEAST_BIN = 30, 5
"""Voxels, fewer of which say nothing."""
_LEAST_VOXELS = 0.75
"""So many voxels in plane blur the margin of a lesion that is drawn well."""
_INSIDE = 0.9
"""A lesion with less of it inside the liver is another rule's."""
_CORE = 0.75
"""The core is deeper than this share of the greatest depth."""
_BEGINS = 0.2
"""Contrast begins where a fifth of the core's is reached, and at least one spread of the liver."""


def _find(case: QcCase, *, excess_mm: float, least_contrast: float, least_ml: float) -> list[Finding]:
    grid = case.coarse
    look = grid.look
    if look is None:
        return []
    least_mm = max(excess_mm, _LEAST_VOXELS * max(grid.spacing_zyx_mm[1:]))
    findings = []
    lesions = pieces_of(grid.masks[Structure.CRLM], grid.voxel_ml)
    for piece in lesions.pieces:
        if piece.ml < least_ml:
            break
        box = _wide(piece.box, grid)
        lesion = lesions.labels[box] == piece.number
        if np.count_nonzero(lesion & grid.masks[Structure.LIVER][box]) < _INSIDE * piece.voxels:
            continue
        excess = excess_of(grid, look, box, lesion, least_contrast)
        if excess >= least_mm:
            message = f"the outermost {excess:.0f} mm of a metastasis of {piece.ml:.2g} ml look like the liver around it"
            findings.append(case.finding(Severity.NOTE, message, Structure.CRLM, piece.box, excess, "mm", case.step))
    return sorted(findings, key=lambda f: -(f.size or 0.0))[:MANY]


def _wide(box: Box, grid: Grid) -> Box:
    z, y, x = (
        slice(max(cut.start - round(_AROUND_MM / mm), 0), min(cut.stop + round(_AROUND_MM / mm), n))
        for cut, mm, n in zip(box, grid.spacing_zyx_mm, grid.masks[Structure.CRLM].shape, strict=True)
    )
    return z, y, x


def excess_of(grid: Grid, look: LiverLook, box: Box, lesion: Mask, least_contrast: float) -> float:
    """How many mm of a lesion's margin, from the liver inwards, look like the liver around it, neither darker nor brighter; 0 where its core is not darker than that by
    ``least_contrast`` spreads, or too little liver is around it.

    lesion: ``(Z, Y, X) bool`` in ``box``, which is wider than the lesion. Depth counts from the liver alone, not from the capsule.
    """
    if grid.hu is None:
        return 0.0
    hu, liver = grid.hu[box], grid.masks[Structure.LIVER][box]
    away = ndimage.distance_transform_edt(~lesion, sampling=grid.spacing_zyx_mm)
    ring = (away > _RING_MM) & (away < _AROUND_MM) & liver & ~grid.masks[Structure.CRLM][box]
    if np.count_nonzero(ring) < _LEAST_RING:
        return 0.0
    depth = ndimage.distance_transform_edt(~(liver & ~lesion), sampling=grid.spacing_zyx_mm)
    around, deepest = float(np.median(hu[ring])), float(depth[lesion].max())
    contrast = (around - float(np.median(hu[lesion & (depth >= _CORE * deepest)]))) / look.spread
    if contrast < least_contrast:
        return 0.0
    for edge in np.arange(0.0, deepest, _BIN_MM):
        at = lesion & (depth > edge) & (depth <= edge + max(_BIN_MM, min(grid.spacing_zyx_mm)))
        if np.count_nonzero(at) >= _LEAST_BIN and abs(around - float(np.mean(hu[at]))) / look.spread >= max(
            _BEGINS * contrast, 1.0
        ):
            return float(edge)
    return deepest


_FROZEN = "frozen on synthetic cases, docs/qc.md"
RULE = Rule(
    "oversegmented",
    "Over-segmented lesion",
    "the original segmentation coarsely over-segments L2, arXiv:2604.07999, Fig. 3",
    _find,
    needs=frozenset({Structure.LIVER, Structure.CRLM}),
    needs_image=True,
    thresholds=(
        Threshold("excess_mm", 3.0, "mm", _FROZEN),
        Threshold("least_contrast", 5.0, "spreads of the liver's HU", _FROZEN),
        Threshold("least_ml", 0.5, "ml", "a ball of 10 mm"),
    ),
)
