"""What every metric returns on empty masks: one declared table, used by the code, the tests and the report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
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


class Undefined(str, Enum):
    """Why a metric is NaN. The value is what ``cases.csv`` shows."""

    BOTH_EMPTY = "both empty"
    REFERENCE_EMPTY = "reference empty"
    PREDICTION_EMPTY = "prediction empty"
    NO_REFERENCE_LIVER = "reference liver holds nothing but tumour"
    NO_PREDICTED_LIVER = "liver of the prediction holds nothing but tumour"

    def __str__(self) -> str:
        return self.value

    @property
    def is_of_prediction(self) -> bool:
        """Whether the prediction alone lacks what the metric needs, so that comparisons count the worst value for it."""
        return self in (Undefined.PREDICTION_EMPTY, Undefined.NO_PREDICTED_LIVER)


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
    }
)
"""Results on empty masks by metric. Volumes and volume errors are always defined: an empty mask has 0 ml.

A ratio 0/0 is undefined (NaN), never 0 or 1: a case without tumours in which none is found says nothing about overlap,
and the precision of a model that marked nothing is unknown. Dice and NSD of an empty against a filled mask are 0 by their
formula. Distances to a surface that is not there are undefined, not infinite. Means leave NaN out and the tables count it;
comparisons do not (:attr:`Undefined.is_of_prediction`).
The paper does not say how it scored such cases.
"""


def on_empty(metric: str, emptiness: Emptiness) -> Outcome:
    """The declared outcome of a metric where a mask is empty. ``emptiness`` must not be ``NONE``."""
    return EMPTY_MASKS[metric][emptiness]


def value_of(outcome: Outcome) -> float:
    """The number of an outcome; NaN where it is undefined."""
    return math.nan if isinstance(outcome, Undefined) else outcome
