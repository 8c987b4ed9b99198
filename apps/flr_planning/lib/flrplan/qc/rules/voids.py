"""Patch-like voids: holes that the liver encloses on all sides and, where there is a CT, bays that look like liver."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import Grid, Pieces, QcCase, pieces_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import MANY, Rule, Threshold, piece_findings

_ALIKE = 2.5
"""Spreads of the liver's HU within which tissue looks like it."""

_SURE_ML = 1.0
_GALLBLADDER_ML = 5.0
"""Without a CT, an enclosed hole of this volume may be the gallbladder."""


def enclosed(mask: Mask) -> Mask:
    """Background voxels ``(Z, Y, X) bool`` that a mask encloses on all sides; what touches the border of the array is not enclosed."""
    labels, count = ndimage.label(~mask)
    outer = np.zeros(count + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            outer[np.take(labels, end, axis)] = True
    outer[0] = True
    return np.asarray(~outer[labels])


def bays(grid: Grid, reach_mm: float) -> Mask:
    """Background ``(Z, Y, X) bool`` that a closing of the liver takes in and whose HU are those of the liver."""
    liver, spacing = grid.masks[Structure.LIVER], grid.spacing_zyx_mm
    look = grid.look
    if look is None or grid.hu is None:
        return np.zeros(liver.shape, bool)
    near = grid.away_mm <= reach_mm
    closed = (
        ndimage.distance_transform_edt(np.pad(near, 1, constant_values=True), sampling=spacing)[1:-1, 1:-1, 1:-1] > reach_mm
    )
    found = closed & ~liver & (np.abs(look.smooth - look.median) <= _ALIKE * look.spread)
    return np.asarray(ndimage.binary_opening(found, ndimage.generate_binary_structure(3, 1)))


def holes_of(case: QcCase, least_ml: float) -> tuple[Pieces, list[int], list[int]]:
    """The enclosed holes, and which of those of at least that volume are on tissue like liver, and on other tissue; all the first without
    a CT. Only the :data:`MANY` largest are looked at, the others count as like liver.
    """
    holes = pieces_of(enclosed(case.crop.masks[Structure.LIVER]), case.crop.voxel_ml)
    chosen = [i for i, p in enumerate(holes.pieces) if p.ml >= least_ml]
    look = case.coarse.look
    if look is None:
        return holes, chosen, []
    here = holes.labels[:, :: case.step, :: case.step]
    hu = {i: look.smooth[here == holes.pieces[i].number] for i in chosen[:MANY]}
    unlike = [i for i, v in hu.items() if v.size and abs(float(np.median(v)) - look.median) > _ALIKE * look.spread]
    return holes, [i for i in chosen if i not in unlike], unlike


def _find(case: QcCase, *, least_ml: float, least_bay_ml: float, reach_mm: float) -> list[Finding]:
    coarse, step = case.coarse, case.step
    holes, alike, unlike = holes_of(case, least_ml)
    if case.ct is None:
        small = [i for i in alike if holes.pieces[i].ml < _GALLBLADDER_ML]
        large = [i for i in alike if i not in small]
        return [
            *piece_findings(case, holes, small, Severity.WARNING, Structure.LIVER, "void of {ml} inside the liver"),
            *piece_findings(
                case,
                holes,
                large,
                Severity.NOTE,
                Structure.LIVER,
                "void of {ml} inside the liver: the gallbladder? No CT to tell",
            ),
        ]
    found = piece_findings(
        case, holes, alike, Severity.WARNING, Structure.LIVER, "void of {ml} inside the liver, on tissue like liver"
    )
    other = "void of {ml} inside the liver, on other tissue: vessel, gallbladder, lesion?"
    found += piece_findings(case, holes, unlike, Severity.NOTE, Structure.LIVER, other)
    open_ones = pieces_of(bays(coarse, reach_mm), coarse.voxel_ml)
    return found + [
        case.finding(
            Severity.WARNING,
            f"bay of {p.ml:.2g} ml in the liver's border, on tissue like liver",
            Structure.LIVER,
            p.box,
            p.ml,
            "ml",
            step,
        )
        for p in open_ones.pieces[:MANY]
        if p.ml >= least_bay_ml
    ]


def _fill(case: QcCase, *, least_ml: float, least_bay_ml: float, reach_mm: float) -> dict[Structure, Mask]:
    """Holes go to the liver and, where the remnant is stated, to the compartment that is nearest. With a CT those on tissue like liver,
    without one those below :data:`_SURE_ML`: a gallbladder or a vessel may be larger.
    """
    pieces, _, unlike = holes_of(case, least_ml)
    filled = [p.number for i, p in enumerate(pieces.pieces) if i not in unlike and (case.ct is not None or p.ml < _SURE_ML)]
    holes = np.isin(pieces.labels, filled)
    liver = case.whole.masks[Structure.LIVER].copy()
    liver[case.box] |= holes
    changed = {Structure.LIVER: liver}
    if Structure.FLR in case.masks and holes.any():
        flr = case.whole.masks[Structure.FLR].copy()
        part, inside = case.crop.masks[Structure.FLR], case.crop.masks[Structure.LIVER]
        nearest = ndimage.distance_transform_edt(
            ~inside, sampling=case.spacing_zyx_mm, return_distances=False, return_indices=True
        )
        flr[case.box] |= holes & part[tuple(nearest)]
        changed[Structure.FLR] = flr
        if Structure.LRS in case.masks:
            changed[Structure.LRS] = liver & ~flr
    return changed


RULE = Rule(
    "voids",
    "Void inside the liver",
    "patch-like artifacts, arXiv:2604.07999, Fig. 2",
    _find,
    thresholds=(
        Threshold("least_ml", 0.05, "ml", "a hole of 5 mm across"),
        Threshold("least_bay_ml", 2.0, "ml", "frozen on synthetic cases, docs/qc.md"),
        Threshold("reach_mm", 8.0, "mm", "half the width of a bay that a closing takes in"),
    ),
    repair=_fill,
    repaired="enclosed holes on tissue like liver (without a CT: below 1 ml) are filled, with the nearest compartment",
)
