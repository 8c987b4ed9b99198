"""What every metric returns on empty masks: one declared table, used by the code, the tests and the report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType


class Emptiness(Enum):
    """Which of the two masks of a comparison are empty."""

    NONE = "neither empty"
    REFERENCE = "reference empty"
    PREDICTION = "prediction empty"
    BOTH = "both empty"

    @classmethod
    def of(cls, reference_voxels: int, prediction_voxels: int) -> Emptiness:
        """The state of two masks with that many voxels."""
        if reference_voxels and prediction_voxels:
            return cls.NONE
        if reference_voxels:
            return cls.PREDICTION
        return cls.REFERENCE if prediction_voxels else cls.BOTH


class Undefined(StrEnum):
    """Why a metric is NaN. The value is what ``cases.csv`` shows."""

    BOTH_EMPTY = "both empty"
    REFERENCE_EMPTY = "reference empty"
    PREDICTION_EMPTY = "prediction empty"
    NO_LESION_MATCHED = "no lesion matched"
    NO_REGION = "the network saw no voxel"
    NO_REFERENCE_LIVER = "reference liver holds nothing but tumour"
    NO_PREDICTED_LIVER = "liver of the prediction holds nothing but tumour"
    NO_GIVEN_LIVER = "the liver of this cascade was not predicted"
    NO_REFERENCE_CUT = "no cut in the reference"
    NO_PREDICTED_CUT = "no cut in the prediction"
    NO_CUT = "no cut in either"
    NO_RESECTED_TUMOUR = "no tumour in the resection of the reference"

    @property
    def is_of_prediction(self) -> bool:
        """Whether the prediction alone lacks what the metric needs, so that comparisons count the worst value for it."""
        return self in _OF_PREDICTION


_OF_PREDICTION = frozenset(
    {Undefined.PREDICTION_EMPTY, Undefined.NO_PREDICTED_LIVER, Undefined.NO_PREDICTED_CUT, Undefined.NO_LESION_MATCHED}
)

Outcome = float | Undefined
"""A declared value, or the reason why there is none (the value is then NaN)."""

_BOTH, _REFERENCE, _PREDICTION = Undefined.BOTH_EMPTY, Undefined.REFERENCE_EMPTY, Undefined.PREDICTION_EMPTY


def _row(reference_empty: Outcome, prediction_empty: Outcome, both_empty: Outcome) -> Mapping[Emptiness, Outcome]:
    return MappingProxyType(
        {Emptiness.REFERENCE: reference_empty, Emptiness.PREDICTION: prediction_empty, Emptiness.BOTH: both_empty}
    )


EMPTY_MASKS: Mapping[str, Mapping[Emptiness, Outcome]] = MappingProxyType(
    {
        #                             reference empty, prediction empty, both empty
        "dice": _row(0.0, 0.0, _BOTH),
        "precision": _row(0.0, _PREDICTION, _BOTH),
        "recall": _row(_REFERENCE, 0.0, _BOTH),
        "nsd": _row(0.0, 0.0, _BOTH),
        "hd95_mm": _row(_REFERENCE, _PREDICTION, _BOTH),
        "assd_mm": _row(_REFERENCE, _PREDICTION, _BOTH),
        "lesion_recall": _row(_REFERENCE, 0.0, _BOTH),
        "lesion_precision": _row(0.0, _PREDICTION, _BOTH),
        "lesion_f1": _row(0.0, 0.0, _BOTH),
        "lesion_pq": _row(0.0, 0.0, _BOTH),
        "lesion_sq": _row(_REFERENCE, _PREDICTION, _BOTH),
    }
)
"""Results on empty masks by metric. Volumes and volume errors are always defined: an empty mask has 0 ml.

A ratio 0/0 is undefined (NaN), never 0 or 1: a case without tumours in which none is found says nothing about overlap,
and the precision of a model that marked nothing is unknown. Dice and NSD of an empty against a filled mask are 0 by their
formula. Distances to a surface that is not there are undefined, not infinite. The mean IoU of matched lesions (``lesion_sq``)
is undefined wherever none is matched, also where neither mask is empty. Means leave NaN out and the tables count it;
comparisons do not (:attr:`Undefined.is_of_prediction`).
The paper does not say how it scored such cases.
"""


EMPTY_CUTS: Mapping[str, Mapping[Emptiness, Outcome]] = MappingProxyType(
    {
        #                        no cut in reference, in prediction, in either
        "cut_nsd_5mm": _row(0.0, 0.0, Undefined.NO_CUT),
        "cut_nsd_10mm": _row(0.0, 0.0, Undefined.NO_CUT),
        "cut_hd95_mm": _row(Undefined.NO_REFERENCE_CUT, Undefined.NO_PREDICTED_CUT, Undefined.NO_CUT),
        "cut_mean_mm": _row(Undefined.NO_REFERENCE_CUT, Undefined.NO_PREDICTED_CUT, Undefined.NO_CUT),
    }
)
"""Results where there is no cut (:mod:`flrplan.metrics.cut`): the FLR is empty, or the whole liver, or no part of the interface
lies deep enough. As for surfaces of masks: a share of nothing against something is 0, a distance to nothing undefined."""


def on_empty(metric: str, emptiness: Emptiness) -> Outcome:
    """The declared outcome of a metric where a mask is empty. ``emptiness`` must not be ``NONE``."""
    return EMPTY_MASKS[metric][emptiness]


def value_of(outcome: Outcome) -> float:
    """The number of an outcome; NaN where it is undefined."""
    return math.nan if isinstance(outcome, Undefined) else outcome
