"""The cut: the interface of remnant and resection inside the liver, how far two cuts lie apart, and how near they come to tumours.

Most of an FLR's surface is the liver's own, so its NSD hardly moves with the cut. Here only the interface counts.

The interface of a plan is where voxels of the FLR and of the liver outside the FLR share a face. What lies outside the liver, an
enclosed void in it or the border of the image is neither, so a capsule is never a cut. ``points_zyx`` are the corners of those
faces. Where a mask falls short of the capsule by a little, though, a rind of liver outside the FLR is left, which nobody resects:
two cuts are compared only where they lie deeper than :data:`RIND_MM` (or one voxel, where that is larger) below the capsule. The
same rule holds for both, so a cut that moves by 6 mm across the liver has moved by 6 mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask
from flrplan.metrics.empty import EMPTY_CUTS, Emptiness, Outcome, Undefined
from flrplan.metrics.lesions import components
from flrplan.metrics.nearest import far_distances_mm
from flrplan.metrics.region import Region, Spacing
from flrplan.metrics.surface import Surface, distances_between, neighbourhoods
from flrplan.metrics.surface_elements import area_table_mm2

RIND_MM = 5.0
"""The interface within this depth of the capsule is no part of two cuts that are compared; the tolerance of the liver's NSD."""

CUT_TOLERANCES_MM = (5.0, 10.0)
"""Tolerances of the cut's NSD: that of the liver, and the width of a margin that surgeons aim for."""

_FACES = ((0b01010101, 1), (0b00110011, 2), (0b00001111, 4))
"""The lower voxels of each axis in a neighbourhood, and how many bits above them their neighbours across a face are."""


@dataclass(frozen=True, eq=False)
class Cut:
    """The cut of one plan.

    points_zyx: ``(N, 3) int32``, every corner of the interface, also in the rind; point ``i`` lies before voxel ``i``.
    surface: the elements that are compared with another cut: wholly inside the liver and deeper than the rind.
    Either is empty where the FLR is empty or the whole liver, the second also where the cut lies in the rind alone.
    """

    liver: Region
    flr: Region
    points_zyx: NDArray[np.int32]
    surface: Surface

    @classmethod
    def of_masks(cls, liver_zyx: Mask, flr_zyx: Mask, spacing_zyx_mm: Spacing) -> Cut:
        """The cut of two masks ``(Z, Y, X) bool`` on one grid. Raises GridError where the shapes differ."""
        return cut_of(Region.of(liver_zyx, spacing_zyx_mm), Region.of(flr_zyx, spacing_zyx_mm))

    @property
    def area_mm2(self) -> float:
        """Area of the cut below the rind; 0 for no cut."""
        return self.surface.area_mm2


@lru_cache(maxsize=4)
def cut_of(liver: Region, flr: Region) -> Cut:
    """The cut between an FLR and the rest of a liver. The last few are kept, since a reference meets many predictions.

    FLR outside the liver takes no part. Raises GridError for regions on different grids.
    """
    spacing, start = liver.spacing_zyx_mm, np.array(liver.start_zyx, np.int32)
    inside = neighbourhoods(liver.crop_zyx)
    remnant = neighbourhoods(liver.crop_zyx & flr.on_crop_of(liver))
    resection = inside & ~remnant
    corners = np.flatnonzero((remnant != 0) & (resection != 0))
    one, two, whole = (code.ravel()[corners] for code in (remnant, resection, inside))
    touching = np.zeros(len(corners), np.bool_)
    for lower, bits in _FACES:
        touching |= ((one & lower) << bits & two | one & (two & lower) << bits) != 0
    corners, one, whole = corners[touching], one[touching], whole[touching]
    points = np.stack(np.unravel_index(corners, remnant.shape), axis=1).astype(np.int32) + start
    deep = whole == 255
    if deep.any():
        to_capsule = far_distances_mm(points[deep], capsule_points(liver), spacing, limit_mm=max(RIND_MM, *spacing))
        deep[deep] = np.isinf(to_capsule)
    return Cut(liver, flr, points, Surface(points[deep], area_table_mm2(spacing)[one[deep]], spacing))


@lru_cache(maxsize=4)
def capsule_points(liver: Region) -> NDArray[np.int32]:
    """``(N, 3) int32``: the corners of a liver's outer surface; an enclosed void has none. The image's border closes the liver."""
    outside, _ = ndimage.label(np.pad(~liver.crop_zyx, 1, constant_values=True))
    filled = outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0]
    return Surface.of_crop(filled, liver.start_zyx, liver.spacing_zyx_mm).points_zyx


class Fate(StrEnum):
    """Where a plan leaves a lesion."""

    RESECTED = "resected"
    CUT_THROUGH = "cut through"
    LEFT = "left in the remnant"
    OUTSIDE = "outside liver and FLR"


@dataclass(frozen=True)
class LesionMargin:
    """One lesion of a plan. ``distance_mm``: from its surface to the nearest point of the interface, also in the rind.

    A lesion cut through, and one that touches the cut, has 0. One left in the remnant has no margin (NaN): its distance to the cut
    is no safety. NaN also where the plan has no cut.
    """

    fate: Fate
    distance_mm: float


@lru_cache(maxsize=4)
def lesion_margins(cut: Cut, crlm: Region) -> tuple[LesionMargin, ...]:
    """The fate and margin of each lesion (26-connected component) of a CRLM mask, in raster order; none for an empty mask.

    Resected: voxels in the liver outside the FLR, and none in the FLR. Cut through: voxels on both sides. Left: in the FLR only.
    Raises: GridError for a mask on another grid.
    """
    labels, sizes = components(crlm)
    if not len(sizes):
        return ()
    in_flr = cut.flr.on_crop_of(crlm)
    in_resection = cut.liver.on_crop_of(crlm) & ~in_flr
    remnant, resected = (np.bincount(labels[side], minlength=len(sizes) + 1)[1:] > 0 for side in (in_flr, in_resection))
    nearest = _nearest_mm(labels, crlm, cut.points_zyx, len(sizes))
    margins = []
    for left, taken, distance in zip(remnant.tolist(), resected.tolist(), nearest.tolist(), strict=True):
        if left:
            margins.append(LesionMargin(Fate.CUT_THROUGH, 0.0) if taken else LesionMargin(Fate.LEFT, math.nan))
        else:
            margins.append(LesionMargin(Fate.RESECTED if taken else Fate.OUTSIDE, distance))
    return tuple(margins)


def _nearest_mm(labels: NDArray[np.int32], crlm: Region, targets: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """``(count,)``: from each lesion to the nearest target; NaN without targets."""
    if not len(targets):
        return np.full(count, math.nan)
    points = crlm.surface.points_zyx
    padded, place = np.pad(labels, 1), points - np.array(crlm.start_zyx, np.int32)
    # All lesion voxels around a corner touch each other, so they are of one lesion.
    around = [padded[place[:, 0] + z, place[:, 1] + y, place[:, 2] + x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    nearest = np.full(count + 1, np.inf)
    np.minimum.at(nearest, np.max(around, axis=0), far_distances_mm(points, targets, crlm.spacing_zyx_mm))
    return nearest[1:]


def smallest_margin_mm(margins: Sequence[LesionMargin]) -> float:
    """The smallest distance from a lesion in the resection to the cut, in mm; 0 where one is cut through.

    NaN where no lesion is resected or cut through, and where the plan has no cut.
    """
    taken = [m.distance_mm for m in margins if m.fate in (Fate.RESECTED, Fate.CUT_THROUGH)]
    return min(taken, default=math.nan)


def cut_outcomes(reference: Cut, prediction: Cut, crlm: Region) -> dict[str, Outcome]:
    """Distances of two cuts, the smallest tumour-to-cut distance of both, and the tumour that both leave.

    reference, prediction: cuts on one grid, each in a liver of its own or in the same one. crlm: the reference's tumours, for both.

    cut_mean_mm, cut_hd95_mm: area-weighted mean and 95 % distance (:class:`flrplan.metrics.surface.SurfaceDistances`) of the two cuts below the rind.
    cut_nsd_5mm, cut_nsd_10mm: the part of both cuts within that distance of the other, 0..1.
    tumour_cut_reference_mm, tumour_cut_prediction_mm: the smallest distance of the lesions that the REFERENCE resects or cuts
        through; a lesion of these that the prediction leaves or cuts through has 0, so that leaving a tumour never looks safe.
    tumour_cut_error_mm, tumour_cut_abs_error_mm: prediction minus reference, and its size.
    tumour_in_flr_reference_ml, tumour_in_flr_prediction_ml: tumour inside each FLR; always defined.

    No cut (:data:`flrplan.metrics.empty.EMPTY_CUTS`):

    ============  ===================  ====================  =========
    metric        none in reference    none in prediction    in either
    ============  ===================  ====================  =========
    cut_nsd_*     0                    0                     undefined
    cut_hd95_mm   undefined            undefined             undefined
    cut_mean_mm   undefined            undefined             undefined
    ============  ===================  ====================  =========

    Tumour-to-cut distances: undefined where the reference resects no tumour. An empty FLR resects everything but has no cut, so its
    own distance and both errors are undefined. An FLR that is the whole liver leaves every tumour: 0.
    """
    emptiness = Emptiness.of(len(reference.surface.points_zyx), len(prediction.surface.points_zyx))
    outcomes: dict[str, Outcome]
    if emptiness is not Emptiness.NONE:
        outcomes = {name: row[emptiness] for name, row in EMPTY_CUTS.items()}
    else:
        apart = distances_between(reference.surface, prediction.surface)
        outcomes = {f"cut_nsd_{mm:g}mm": apart.nsd(mm) for mm in CUT_TOLERANCES_MM}
        outcomes |= {"cut_hd95_mm": apart.hd95_mm(), "cut_mean_mm": apart.mean_mm()}
    outcomes |= _tumour_outcomes(lesion_margins(reference, crlm), lesion_margins(prediction, crlm))
    voxel_ml = float(np.prod(crlm.spacing_zyx_mm)) / 1000.0
    for name, cut in (("reference", reference), ("prediction", prediction)):
        outcomes[f"tumour_in_flr_{name}_ml"] = cut.flr.voxels_shared_with(crlm) * voxel_ml
    return outcomes


def _tumour_outcomes(reference: Sequence[LesionMargin], prediction: Sequence[LesionMargin]) -> dict[str, Outcome]:
    names = [f"tumour_cut_{name}_mm" for name in ("reference", "prediction", "error", "abs_error")]
    pairs = [(a, b) for a, b in zip(reference, prediction, strict=True) if a.fate in (Fate.RESECTED, Fate.CUT_THROUGH)]
    if not pairs:
        return dict.fromkeys(names, Undefined.NO_RESECTED_TUMOUR)
    of_reference = smallest_margin_mm([a for a, _ in pairs])
    of_prediction = min(0.0 if b.fate in (Fate.LEFT, Fate.CUT_THROUGH) else b.distance_mm for _, b in pairs)
    error = of_prediction - of_reference
    neither = Undefined.NO_REFERENCE_CUT if math.isnan(of_reference) else Undefined.NO_PREDICTED_CUT
    values = (of_reference, of_prediction, error, abs(error))
    whys = (Undefined.NO_REFERENCE_CUT, Undefined.NO_PREDICTED_CUT, neither, neither)
    return {n: why if math.isnan(v) else v for n, v, why in zip(names, values, whys, strict=True)}
