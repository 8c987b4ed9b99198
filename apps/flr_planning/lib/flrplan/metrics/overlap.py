"""Dice, precision and recall of one case (arXiv:2604.07999, section 3.3; averaged over cases elsewhere)."""

from __future__ import annotations

from flrplan.anatomy import Mask
from flrplan.metrics.empty import Emptiness, Outcome, Undefined, on_empty
from flrplan.metrics.region import Region


def dice(reference: Mask, prediction: Mask) -> float:
    """Dice of two masks ``(Z, Y, X) bool``; 0 if one is empty, NaN if both are (:data:`flrplan.metrics.EMPTY_MASKS`)."""
    value = overlap_outcomes(Region.of(reference, (1, 1, 1)), Region.of(prediction, (1, 1, 1)))["dice"]
    return float(value) if isinstance(value, float) else float("nan")


def overlap_outcomes(reference: Region, prediction: Region) -> dict[str, Outcome]:
    """Dice ``2|A and B| / (|A| + |B|)``, precision ``|A and B| / |B|``, recall ``|A and B| / |A|``, with A the reference; each 0..1.

    Empty masks (:data:`flrplan.metrics.empty.EMPTY_MASKS`):

    =========  ===============  ================  ==========
    metric     reference empty  prediction empty  both empty
    =========  ===============  ================  ==========
    dice       0                0                 undefined
    precision  0                undefined         undefined
    recall     undefined        0                 undefined
    =========  ===============  ================  ==========

    Raises: GridError where the two lie on different grids.
    """
    emptiness = Emptiness.of(reference.voxels, prediction.voxels)
    if emptiness is not Emptiness.NONE:
        return {name: on_empty(name, emptiness) for name in ("dice", "precision", "recall")}
    shared = reference.voxels_shared_with(prediction)
    return {
        "dice": 2.0 * shared / (reference.voxels + prediction.voxels),
        "precision": shared / prediction.voxels,
        "recall": shared / reference.voxels,
    }


def dice_ceiling(reference: Region, given: Region | None) -> Outcome:
    """The highest Dice that a prediction inside a given region can have: ``2|A and G| / (|A| + |A and G|)``, for the prediction A and G.

    given: the region that the model was shown (a liver); None: the whole image, where the ceiling is 1. 0 where it holds nothing of
    the reference, undefined for an empty reference. Raises: GridError where the two lie on different grids.
    """
    if reference.is_empty:
        return Undefined.REFERENCE_EMPTY
    reached = reference.voxels if given is None else reference.voxels_shared_with(given)
    return 2.0 * reached / (reference.voxels + reached)
