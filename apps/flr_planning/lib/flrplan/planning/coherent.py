"""A plan that could be an operation: every voxel of the liver is remnant or resected, in few parts with smooth cuts.

A network's FLR is a mask of its own: liver minus FLR is a shell along the capsule and hundreds of crumbs, which nobody resects. Here the
FLR's probability is taken where it can be trusted, in the depth of the liver, and carried on to the capsule: a random walker with priors
(Grady 2005, CVPR, doi 10.1109/CVPR.2005.239) of two labels. Its probability ``s`` minimises, over the liver alone, ::

    sum of w (s - p)^2  +  smoothing_mm^2 |grad s|^2

``p`` is the network's probability, ``w`` a weight that falls to almost 0 at the capsule. Remnant are the voxels with the highest ``s``, as many
as ``s`` expects: its mean over the parenchyma is the remnant's share of it. Parts of either side that only the expectation put there go
to the other. Then each metastasis goes wholly to the side that holds most of it, and parts too small to be one go to the other side.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from flrplan.anatomy import Mask, Structure
from flrplan.errors import GridError
from flrplan.files.checked import Number, checked
from flrplan.image import Canonical, Geometry
from flrplan.method import MASK_FROM, CascadeResult, Probability, Source

logger = logging.getLogger(__name__)

METHOD = 2
"""What makes a plan coherent beside its settings, counted: a calibration of another method's plans is none of these."""
TOUCHING = np.ones((3, 3, 3), np.bool_)
"""Voxels that share a face, an edge or a corner are of one part, as of one lesion."""

Values = NDArray[np.float32]


_Positive = Annotated[Number, Field(ge=0.1, le=100)]


@checked
class CoherentSettings:
    """How a coherent plan is made.

    trusted_depth_mm: from this depth below the capsule on the probability counts in full, above it with the square of the depth. Of
        the demo models, 12 synthetic cases with true masks: the probability of true remnant 20 mm and more from the true cut is on the
        average 0.56 in the outermost 3 mm, 0.76 at 3 to 6 mm, 0.85 at 6 to 9 mm, and no higher below.
    smoothing_mm: what is narrower than about this is no shape of a cut. It is half of the margin of 10 mm that surgeons aim for, so a
        wedge with that margin stays; 3 mm left up to 2 parts too many in these cases, 8 mm lost wedges.
    undecided: where ``s`` lies within this of 0.5 the expected share decides about the side, elsewhere ``s`` itself: no voxel is resected that is
        likelier remnant than 0.7, none stays that is less likely than 0.3. With a cut at 0.5 (``undecided=0``) a lobe about which a network
        is undecided goes to one side as a whole, and FLR% is off by as much.
    smallest_part_ml: smaller parts of either side go to the other. A metastasis of 5 mm with a margin of 5 mm is a ball of 1.8 ml.
    smallest_remnant_ml: so do smaller parts of the remnant that the resection cuts off from the largest: they keep no vessels of their own.
        In 160 synthetic cases the second part of a true remnant measures 7 to 25 ml (5 cases, left over between two cuts) or
        more than 110 ml (12 cases, a central resection).
    grid_mm: the probability is solved on voxels of about this size, half of ``smoothing_mm``, and interpolated.
    unsure_points: a plan whose FLR% differs by more than this from the raw mask's says that it is not sure. Cited thresholds lie
        about 5 points apart (20, 25, 30 %).
    """

    trusted_depth_mm: _Positive = 10.0
    smoothing_mm: _Positive = 5.0
    undecided: Annotated[Number, Field(ge=0, le=0.5)] = 0.2
    smallest_part_ml: Annotated[Number, Field(ge=0, le=1000)] = 2.0
    smallest_remnant_ml: Annotated[Number, Field(ge=0, le=1000)] = 30.0
    grid_mm: _Positive = 2.5
    unsure_points: Annotated[Number, Field(ge=0, le=100)] = 5.0


COHERENT = CoherentSettings()


def coherent_result(
    result: CascadeResult, probability: Probability | None = None, settings: CoherentSettings = COHERENT
) -> CascadeResult:
    """The result with the coherent FLR in place of a PREDICTED one; the same object where there is none, or a person gave it.

    probability: of the FLR as the cascade hands it on, ``(Z, Y, X) uint8``; None: the mask serves.
    """
    if result.sources.get(Structure.FLR) is not Source.PREDICTED or Structure.LIVER not in result.masks:
        return result
    liver, flr = result.masks[Structure.LIVER], result.masks[Structure.FLR]
    crlm = result.masks.get(Structure.CRLM, np.zeros_like(liver))
    coherent = coherent_flr(liver, crlm, flr if probability is None else probability, result.ct.geometry, settings)
    return replace(result, masks={**result.masks, Structure.FLR: coherent})


def coherent_flr(
    liver: Mask, crlm: Mask, flr: Mask | Probability, geometry: Geometry, settings: CoherentSettings = COHERENT
) -> Mask:
    """The FLR ``(Z, Y, X) bool`` of a coherent plan: a part of the liver; liver minus it is the resection.

    Args:
        liver, crlm: ``bool`` on ``geometry``; what of the CRLM lies outside the liver takes no part.
        flr: its probability ``uint8`` (:mod:`flrplan.method.probabilities`), or a mask.

    ==================================  ==========================================
    given                               result
    ==================================  ==========================================
    empty liver                         empty
    no FLR inside the liver             empty: everything is resected
    FLR everywhere in the liver         the liver: nothing is resected
    no metastasis                       the same method, nothing held together
    liver below ``smallest_part_ml``    empty or the liver: one side has no part
    ==================================  ==========================================

    Pieces of the liver mask below ``smallest_part_ml`` are remnant, or resected where all is. Raises: GridError for other shapes.
    """
    if not liver.shape == crlm.shape == flr.shape == geometry.shape_zyx:
        raise GridError(
            f"the masks of a plan lie on one grid: expected {geometry.shape_zyx} (z, y, x), got liver {liver.shape}, crlm "
            f"{crlm.shape}, flr {flr.shape}"
        )
    axes = Canonical.of(geometry)  # so that the plan is the same however the CT is stored
    stored: tuple[NDArray[Any], ...] = (liver, crlm, flr)
    liver, crlm, flr = (np.ascontiguousarray(axes.forward(array)) for array in stored)  # sums hang on the order in memory
    return axes.backward(_coherent_flr(liver, crlm, flr, axes.target, settings))


def _coherent_flr(liver: Mask, crlm: Mask, flr: Mask | Probability, geometry: Geometry, settings: CoherentSettings) -> Mask:
    result = np.zeros(liver.shape, np.bool_)
    if not liver.any():
        return result
    box = _box(liver)
    inside, found = liver[box], flr[box]
    is_flr = found if found.dtype == np.bool_ else found >= MASK_FROM
    if is_flr[inside].all() or not is_flr[inside].any():
        result[box] = inside & is_flr
        return result
    p = found.astype(np.float32) / np.float32(1 if found.dtype == np.bool_ else 255)
    s = _carried_to_capsule(inside, p, geometry.spacing_zyx_mm, settings)
    parenchyma = inside & ~crlm[box]
    remnant = _expected(inside, s, _cut_level(s[parenchyma if parenchyma.any() else inside], settings.undecided))
    remnant = whole_metastases(remnant, crlm[box] & inside)
    result[box] = _without_crumbs(inside, remnant, settings, geometry.voxel_volume_ml)
    return result


def _cut_level(s: Values, undecided: float) -> float:
    """The level above which as large a share of the voxels lies as the mean of ``s`` says; within ``undecided`` of 0.5."""
    return float(np.clip(np.quantile(s, 1 - s.mean()), 0.5 - undecided, 0.5 + undecided))


def _expected(inside: Mask, s: Values, level: float) -> Mask:
    """What lies above the level. A part of either side without a voxel that is likelier there than not goes to the other."""
    remnant = inside & (s > level)
    if level <= 0.5:
        return _with_any(remnant, s > 0.5)
    return inside & ~_with_any(inside & ~remnant, s < 0.5)


def _with_any(side: Mask, likely: Mask) -> Mask:
    """The parts of a side that hold a likely voxel; all of them where none does, for then there is nothing but the expectation."""
    parts, count = ndimage.label(side, TOUCHING)
    kept = np.zeros(count + 1, np.bool_)
    kept[parts[side & likely]] = True
    return np.asarray(kept[parts]) if kept.any() else side


def _box(mask: Mask) -> tuple[slice, ...]:
    """The bounding box and one voxel around it, where the image has one."""
    hits = (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return tuple(slice(max(0, int(hit[0]) - 1), int(hit[-1]) + 2) for hit in hits)


def _carried_to_capsule(
    liver: Mask, p: Values, spacing_zyx_mm: tuple[float, float, float], settings: CoherentSettings
) -> Values:
    """The field ``s`` on the liver's own grid; outside the liver it is that of the nearest block."""
    blocks = tuple(max(1, round(settings.grid_mm / s)) for s in spacing_zyx_mm)
    edge_mm = np.multiply(spacing_zyx_mm, blocks)
    part = block_means(liver, blocks)
    of_block = block_means(np.where(liver, p, np.float32(0)), blocks) / np.maximum(part, np.float32(1e-6))
    s, solved = np.zeros_like(part), part > 0
    s[solved] = random_walker(part, of_block, _weight(part, edge_mm, settings), settings.smoothing_mm / edge_mm)
    nearest = ndimage.distance_transform_edt(~solved, sampling=edge_mm, return_distances=False, return_indices=True)
    fine = ndimage.zoom(s[tuple(nearest)], blocks, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine[tuple(slice(n) for n in liver.shape)])


def block_means(array: NDArray[Any], blocks: tuple[int, ...]) -> Values:
    """Means over blocks of voxels; the last blocks are filled up with the last voxels."""
    filled = np.pad(array, [(0, -n % b) for n, b in zip(array.shape, blocks, strict=True)], mode="edge")
    z, y, x = (n // b for n, b in zip(filled.shape, blocks, strict=True))
    return np.asarray(filled.reshape(z, blocks[0], y, blocks[1], x, blocks[2]).mean((1, 3, 5), dtype=np.float32))


def _weight(part: Values, edge_mm: NDArray[np.floating[Any]], settings: CoherentSettings) -> Values:
    """How far the probability of each block is trusted, above 0..1; a little of it everywhere, for pieces that have no depth."""
    inside = np.pad(part >= 0.5, 1)  # what a network sees ends at the border of the image as well
    depth = ndimage.distance_transform_edt(inside, sampling=edge_mm)[1:-1, 1:-1, 1:-1]
    trusted = np.minimum(depth / settings.trusted_depth_mm, 1.0) ** 2
    return np.asarray((trusted + 1e-3) * part, np.float32)


def random_walker(part: Values, p: Values, weight: Values, reach: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The minimum at the blocks with ``part > 0``, in their order. reach: ``smoothing_mm`` in blocks, per axis.

    Neighbours are tied as far as both lie in the liver, so nothing passes a fissure.
    """
    inside = part > 0
    number = np.cumsum(inside.ravel()).reshape(part.shape) - 1
    count = int(number.ravel()[-1]) + 1
    one, other, tie = [], [], []
    for axis in range(3):
        parts, numbers = np.moveaxis(part, axis, 0), np.moveaxis(number, axis, 0)
        tied = np.minimum(parts[:-1], parts[1:])
        both = tied > 0
        one.append(numbers[:-1][both])
        other.append(numbers[1:][both])
        tie.append(tied[both] * reach[axis] ** 2)
    rows, columns, ties = np.concatenate([*one, *other]), np.concatenate([*other, *one]), np.concatenate([*tie, *tie])
    adjacency = sparse.csr_matrix((ties, (rows, columns)), shape=(count, count))
    own = weight[inside].astype(np.float64)
    diagonal = np.asarray(adjacency.sum(axis=1)).ravel() + own
    found, unsolved = cg(
        sparse.diags(diagonal) - adjacency,
        own * p[inside],
        x0=p[inside],
        rtol=1e-4,
        maxiter=1000,
        M=sparse.diags(1.0 / diagonal),
    )
    if unsolved:
        logger.warning("the random walker of a plan has not converged in %d steps; look at its borders", unsolved)
    return np.asarray(found)


def whole_metastases(remnant: Mask, crlm: Mask) -> Mask:
    """No cut goes through a metastasis: each lies on the side that holds more of it, in the resection where both hold the same."""
    lesions, count = ndimage.label(crlm, TOUCHING)
    sizes = np.bincount(lesions.ravel(), minlength=count + 1)
    left = np.bincount(lesions[remnant], minlength=count + 1)
    return np.where(lesions > 0, (2 * left > sizes)[lesions], remnant)


def _without_crumbs(liver: Mask, remnant: Mask, settings: CoherentSettings, voxel_ml: float) -> Mask:
    """Parts below a size go to the other side: of the resection, of the remnant, and what is then a piece of the liver by itself."""
    for to_remnant in (True, False, True):
        if to_remnant and not remnant.any():
            break
        parts, count = ndimage.label(liver & (remnant != to_remnant), TOUCHING)
        sizes_ml = np.bincount(parts.ravel(), minlength=count + 1) * voxel_ml
        sizes_ml[0] = np.inf
        crumb = sizes_ml < settings.smallest_part_ml
        if not to_remnant:
            crumb |= _cut_off(liver, remnant, parts, sizes_ml < settings.smallest_remnant_ml, int(sizes_ml[1:].argmax()) + 1)
        remnant = np.where(crumb[parts], to_remnant, remnant)
    return remnant


def _cut_off(liver: Mask, remnant: Mask, parts: NDArray[Any], small: Mask, largest: int) -> Mask:
    """Which small parts of the remnant a resection parts from the largest; a piece of the liver that is remnant as a whole is none."""
    small[largest] = False
    if not small.any():
        return small
    pieces, count = ndimage.label(liver, TOUCHING)
    cut = np.bincount(pieces[liver & ~remnant], minlength=count + 1) > 0
    found = np.zeros_like(small)
    found[parts[remnant & cut[pieces]]] = True
    return small & found
