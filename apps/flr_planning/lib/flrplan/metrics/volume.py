"""Errors of volumes and of the FLR percentage, and which cut-offs of it they cross."""

from __future__ import annotations

from flrplan.metrics.empty import Outcome, Undefined
from flrplan.metrics.region import Region

FLR_THRESHOLDS_PERCENT: tuple[int, ...] = (20, 30, 40)
"""Generic cut-offs of the measured FLR%, to count errors that are large enough to matter. They are no clinical limits: those that are
cited for 20 % (Kishi 2009) and 30 % (Shindoh 2013) are of the remnant over the standardised liver volume (sTLV), which needs height and
weight."""

OWN = "own_"
"""Stands in the names of the metrics whose FLR% is of the liver and CRLM that the same architecture predicted from the CT."""


def flr_percent(liver: Region, crlm: Region, flr: Region) -> float | None:
    """The measured FLR%: ``100 * |FLR without tumour| / |liver without tumour|``; None where that liver is empty.

    Counted on the raw binary masks: FLR voxels outside the liver count as remnant, so a bad mask can exceed 100.
    (The app reports the same fraction from the planning map, where structures nest.)
    Empty CRLM: tumours take nothing away. Empty FLR: 0.
    """
    parenchyma = liver.voxels - liver.voxels_shared_with(crlm)
    if parenchyma == 0:
        return None
    return 100.0 * (flr.voxels - flr.voxels_shared_with(crlm)) / parenchyma


def volume_outcomes(reference: Region, prediction: Region) -> dict[str, Outcome]:
    """Both volumes and their difference, prediction minus reference, in ml. Always defined: an empty mask has 0 ml."""
    error = prediction.volume_ml - reference.volume_ml
    return {
        "volume_reference_ml": reference.volume_ml,
        "volume_prediction_ml": prediction.volume_ml,
        "volume_error_ml": error,
        "volume_abs_error_ml": abs(error),
    }


def flr_percent_outcomes(
    reference_percent: float | None, prediction_percent: float | None, own: str = ""
) -> dict[str, Outcome]:
    """The prediction's FLR%, its error in points (prediction minus reference), and the generic cut-offs between the two.

    ``crossing_T`` is 1 where one of the two is below T % and the other is not, else 0. A value of exactly T is not below.
    Where a liver without tumour is empty, what depends on it is undefined. own: empty or :data:`OWN`, for the names.
    """
    outcomes: dict[str, Outcome] = {}
    why: Undefined | None = None
    if prediction_percent is None:
        why = Undefined.NO_PREDICTED_LIVER
    if reference_percent is None:
        why = Undefined.NO_REFERENCE_LIVER
    outcomes[f"flr_percent_{own}prediction"] = (
        Undefined.NO_PREDICTED_LIVER if prediction_percent is None else prediction_percent
    )
    errors = (f"flr_percent_{own}error", f"flr_percent_{own}abs_error")
    crossings = [f"crossing_{own}{t}" for t in FLR_THRESHOLDS_PERCENT]
    if why is not None or reference_percent is None or prediction_percent is None:
        reason = why or Undefined.NO_REFERENCE_LIVER
        return outcomes | dict.fromkeys([*errors, *crossings], reason)
    error = prediction_percent - reference_percent
    outcomes |= dict(zip(errors, (error, abs(error)), strict=True))
    for name, threshold in zip(crossings, FLR_THRESHOLDS_PERCENT, strict=True):
        outcomes[name] = float((reference_percent < threshold) != (prediction_percent < threshold))
    return outcomes
