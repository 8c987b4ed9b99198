"""Errors of predicted masks against the truth, measured as :class:`MaskErrors` counts them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.input_masks.mask_errors import DEFAULT_ERRORS, LesionErrors, LiverErrors, MaskErrors
from flrplan.metrics.lesions import SizeClass, match_lesions
from flrplan.metrics.region import Region, Spacing
from flrplan.workfolder import Case

logger = logging.getLogger(__name__)

FAR_MM = 10.0
"""A difference that reaches further than this from the other mask is a missing or an added part, not a shifted surface."""


@dataclass(frozen=True)
class LiverPair:
    """What one predicted liver did: mean and standard deviation of the surface's displacement (mm), far parts as shares."""

    shift_mm: float
    local_std_mm: float
    missing: float
    added: float


def compare_livers(truth: Mask, prediction: Mask, spacing_zyx_mm: Spacing) -> LiverPair | None:
    """One pair ``(Z, Y, X) bool``; None where either is empty: that is no shape to learn from."""
    if not truth.any() or not prediction.any():
        return None
    box = _shared_box(truth | prediction)
    truth, prediction = truth[box], prediction[box]
    depth = signed_depth_mm(truth, spacing_zyx_mm)
    own = -depth[_inner_boundary(truth)]
    # The truth's own outermost voxels lie half a voxel inside it: what is measured on them is the grid, not an error.
    outwards = -depth[_inner_boundary(prediction)]
    near = outwards[np.abs(outwards) <= FAR_MM]
    shift, spread = (float(near.mean() - own.mean()), float(near.var() - own.var())) if near.size else (0.0, 0.0)
    volume = int(np.count_nonzero(truth))
    missing = _far_part(truth & ~prediction, prediction, spacing_zyx_mm) / volume
    added = _far_part(prediction & ~truth, truth, spacing_zyx_mm) / volume
    return LiverPair(shift, float(np.sqrt(max(spread, 0.0))), missing, added)


def signed_depth_mm(mask: Mask, spacing_zyx_mm: Spacing) -> NDArray[np.float32]:
    """Distance (mm) of each voxel's centre to the surface, which runs between voxels; positive inside.

    A mask that fills its box has no surface in it: infinity.
    """
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    depth = np.zeros(mask.shape, np.float32)
    for side, sign in ((mask, 1), (~mask, -1)):
        distance, nearest = ndimage.distance_transform_edt(side, sampling=spacing_zyx_mm, return_indices=True)
        squares = np.zeros(mask.shape, np.float32)  # of the half voxel between centre and face, along the way to the other side
        for axis, (n, spacing) in enumerate(zip(mask.shape, spacing_zyx_mm, strict=True)):
            steps = nearest[axis] - np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)])
            squares += np.square(steps * np.float32(spacing**2))
        half = np.sqrt(squares) / np.maximum(2 * distance, 1e-6)
        depth[side] = sign * (distance - half)[side]
    return depth


def _inner_boundary(mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=1))


def _far_part(difference: Mask, other: Mask, spacing_zyx_mm: Spacing) -> int:
    """Voxels of a difference that are further than :data:`FAR_MM` from the other mask, and the rest of the part around them."""
    core = difference & (ndimage.distance_transform_edt(~other, sampling=spacing_zyx_mm) > FAR_MM)
    if not core.any():
        return 0
    around = ndimage.distance_transform_edt(~core, sampling=spacing_zyx_mm) <= FAR_MM
    return int(np.count_nonzero(difference & around))


def _shared_box(mask: Mask) -> tuple[slice, ...]:
    hits = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(max(0, int(h[0]) - 1), int(h[-1]) + 2) for h in hits)


@dataclass(frozen=True)
class LesionPair:
    """What one CRLM prediction did: (diameter mm, found) of true lesions, radius differences (mm), diameters of invented ones."""

    lesions: tuple[tuple[float, bool], ...]
    shifts_mm: tuple[float, ...]
    invented_mm: tuple[float, ...]


def compare_lesions(truth: Mask, prediction: Mask, spacing_zyx_mm: Spacing) -> LesionPair:
    """One pair ``(Z, Y, X) bool``; either may be empty."""
    matching = match_lesions(Region.of(truth, spacing_zyx_mm), Region.of(prediction, spacing_zyx_mm))
    true, predicted = matching.reference_diameters_mm, matching.prediction_diameters_mm
    touched = {i for _, i, _ in matching.pairs}
    touching = {j for _, _, j in matching.pairs}
    shifts = tuple((predicted[j] - true[i]) / 2 for _, i, j in matching.matched(0.0))
    lesions = tuple((diameter, i in touched) for i, diameter in enumerate(true))
    return LesionPair(lesions, shifts, tuple(d for j, d in enumerate(predicted) if j not in touching))


def summarise(livers: Sequence[LiverPair], lesions: Sequence[LesionPair]) -> MaskErrors:
    """The errors over all pairs; what nothing was seen of (no large lesion, say) keeps its default."""
    return MaskErrors(_liver_errors(livers), _lesion_errors(lesions), max(len(livers), len(lesions)))


def _liver_errors(pairs: Sequence[LiverPair]) -> LiverErrors:
    default = DEFAULT_ERRORS.liver
    if not pairs:
        return default
    shifts = np.array([p.shift_mm for p in pairs])
    missing, added = ([share for p in pairs if (share := getattr(p, name)) > 0] for name in ("missing", "added"))
    return LiverErrors(
        float(shifts.mean()),
        float(shifts.std()),
        float(np.mean([p.local_std_mm for p in pairs])),
        len(missing) / len(pairs),
        float(np.mean(missing)) if missing else default.missing_fraction,
        len(added) / len(pairs),
        float(np.mean(added)) if added else default.added_fraction,
    )


def _lesion_errors(pairs: Sequence[LesionPair]) -> LesionErrors:
    default = DEFAULT_ERRORS.lesions
    if not pairs:
        return default
    missed = dict(default.missed)
    for size in SizeClass:
        found = [hit for p in pairs for diameter, hit in p.lesions if SizeClass.of(diameter) is size]
        if found:
            missed[size] = 1.0 - float(np.mean(found))
    shifts = [s for p in pairs for s in p.shifts_mm]
    invented = np.log([d for p in pairs for d in p.invented_mm])
    return LesionErrors(
        missed,
        float(np.mean(shifts)) if shifts else default.shift_mean_mm,
        float(np.std(shifts)) if shifts else default.shift_std_mm,
        len(invented) / len(pairs),
        float(np.exp(invented.mean())) if invented.size else default.invented_diameter_mm,
        float(invented.std()) if invented.size else default.invented_log_std,
    )


def errors_of_predictions(cases: Iterable[Case]) -> MaskErrors:
    """Errors of the predictions that lie beside the cases (:func:`flrplan.input_masks.predictions.with_predictions`).

    Cases without any are left out; where no case has one, :data:`DEFAULT_ERRORS`.
    Raises: ImageError, GridError, LabelError from the files.
    """
    livers, lesions = [], []
    for case in cases:
        if not case.predicted:
            continue
        ct, truth = case.load(case.predicted)
        spacing = ct.geometry.spacing_zyx_mm
        for structure, mask in case.load_predicted(case.predicted, ct).items():
            if structure is Structure.LIVER:
                pair = compare_livers(truth[structure], mask, spacing)
                livers += [pair] if pair else []
            elif structure is Structure.CRLM:
                lesions.append(compare_lesions(truth[structure], mask, spacing))
    if not livers and not lesions:
        return DEFAULT_ERRORS
    errors = summarise(livers, lesions)
    logger.info("errors of the predicted masks of %d cases: %s", errors.cases, errors.to_json())
    return errors
