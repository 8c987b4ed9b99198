"""Errors of volumes and of the FLR percentage, and which cut-offs of it they cross."""

from __future__ import annotations

from flrplan.metrics.empty import Outcome, Undefined
from flrplan.metrics.region import Region

FLR_THRESHOLDS_PERCENT: tuple[int, ...] = (20, 30, 40)
"""Generic cut-offs of the measured FLR%, to count errors that are large enough to matter; no clinical thresholds: the cited ones of
20 % (normal liver, Kishi 2009) and 30 % (after long chemotherapy, Shindoh 2013) are of FLR / standardised liver volume (sTLV)."""


def flr_percent(liver: Region, crlm: Region, flr: Region) -> float | None:
    """The measured FLR%: 100 * |FLR without tumour| / |liver without tumour|; None where that liver is empty.

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


def flr_percent_outcomes(reference_percent: float | None, prediction_percent: float | None) -> dict[str, Outcome]:
    """FLR% of both, the error in points (prediction minus reference), and the generic cut-offs between the two.

    ``crossing_T`` is 1 where one of the two is below T % and the other is not, else 0. A value of exactly T is not below.
    Where a liver without tumour is empty, what depends on it is undefined.
    """
    outcomes: dict[str, Outcome] = {}
    why: Undefined | None = None
    if prediction_percent is None:
        why = Undefined.NO_PREDICTED_LIVER
    if reference_percent is None:
        why = Undefined.NO_REFERENCE_LIVER
    outcomes["flr_percent_reference"] = Undefined.NO_REFERENCE_LIVER if reference_percent is None else reference_percent
    outcomes["flr_percent_prediction"] = Undefined.NO_PREDICTED_LIVER if prediction_percent is None else prediction_percent
    crossings = [f"crossing_{t}" for t in FLR_THRESHOLDS_PERCENT]
    if why is not None or reference_percent is None or prediction_percent is None:
        reason = why or Undefined.NO_REFERENCE_LIVER
        return outcomes | dict.fromkeys(["flr_percent_error", "flr_percent_abs_error", *crossings], reason)
    error = prediction_percent - reference_percent
    outcomes |= {"flr_percent_error": error, "flr_percent_abs_error": abs(error)}
    for name, threshold in zip(crossings, FLR_THRESHOLDS_PERCENT, strict=True):
        outcomes[name] = float((reference_percent < threshold) != (prediction_percent < threshold))
    return outcomes
