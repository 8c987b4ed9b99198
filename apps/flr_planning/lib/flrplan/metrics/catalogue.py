"""All metrics as data: name, title, unit, which direction is better, and for which structures they are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from flrplan.labels import Structure
from flrplan.metrics.lesions import IOU_THRESHOLDS, iou_key
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT

NSD_TOLERANCE_MM: Mapping[Structure, float] = MappingProxyType(
    {Structure.LIVER: 5.0, Structure.CRLM: 2.0, Structure.FLR: 5.0, Structure.LRS: 5.0}
)
"""Tolerances of the NSD. Liver 5 mm and tumour 2 mm are FLARE's. The FLR (and its complement) takes the liver's: most of
its surface is the liver's own, and a cut is not planned to be finer than that."""


class Better(Enum):
    """Which direction of a metric is better; a description has none."""

    HIGHER = "higher"
    LOWER = "lower"
    ZERO = "nearer to zero"
    NEITHER = "neither"


@dataclass(frozen=True)
class Metric:
    """One column of ``cases.csv``. ``structures``: where it is computed; elsewhere its cell is blank (not applicable)."""

    name: str
    title: str
    unit: str
    better: Better
    structures: frozenset[Structure] = frozenset(Structure)

    def oriented(self, value: float) -> float:
        """The value as a number of which higher is better; NaN for a description."""
        sign = {Better.HIGHER: value, Better.LOWER: -value, Better.ZERO: -abs(value)}
        return sign.get(self.better, math.nan)

    def worst(self, diagonal_mm: float) -> float | None:
        """The worst value: 0 of a ratio, the image's diagonal of a distance, 1 of a cut-off crossed; None where there is no bound."""
        if self.better is Better.HIGHER:
            return 0.0
        if self.better is Better.LOWER:
            return {"mm": diagonal_mm, "": 1.0}.get(self.unit)
        return None


_ALL = frozenset(Structure)
_FLR = frozenset({Structure.FLR})
_CRLM = frozenset({Structure.CRLM})

PAPER_METRICS: tuple[str, ...] = ("dice", "precision", "recall")
"""The metrics of the paper's Tables 1 and 2, in their order (D, P, R)."""


def _lesion_metrics() -> list[Metric]:
    metrics = [
        Metric("lesions_reference", "lesions in the reference", "", Better.NEITHER, _CRLM),
        Metric("lesions_predicted", "lesions predicted", "", Better.NEITHER, _CRLM),
    ]
    for threshold in IOU_THRESHOLDS:
        for name in ("recall", "precision", "f1"):
            title = f"lesion {name.replace('f1', 'F1')} (IoU > {threshold})"
            metrics.append(Metric(f"lesion_{name}_{iou_key(threshold)}", title, "", Better.HIGHER, _CRLM))
    return metrics


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        m.name: m
        for m in (
            Metric("dice", "Dice", "", Better.HIGHER),
            Metric("precision", "precision", "", Better.HIGHER),
            Metric("recall", "recall", "", Better.HIGHER),
            Metric("nsd", "NSD", "", Better.HIGHER),
            Metric("hd95_mm", "HD95", "mm", Better.LOWER),
            Metric("assd_mm", "ASSD", "mm", Better.LOWER),
            Metric("volume_reference_ml", "volume, reference", "ml", Better.NEITHER),
            Metric("volume_prediction_ml", "volume, prediction", "ml", Better.NEITHER),
            Metric("volume_error_ml", "volume error", "ml", Better.ZERO),
            Metric("volume_abs_error_ml", "absolute volume error", "ml", Better.LOWER),
            Metric("flr_percent_reference", "FLR%, reference", "%", Better.NEITHER, _FLR),
            Metric("flr_percent_prediction", "FLR%, prediction", "%", Better.NEITHER, _FLR),
            Metric("flr_percent_error", "FLR% error", "points", Better.ZERO, _FLR),
            Metric("flr_percent_abs_error", "absolute FLR% error", "points", Better.LOWER, _FLR),
            *(Metric(f"crossing_{t}", f"FLR% cut-off {t} % crossed", "", Better.LOWER, _FLR) for t in FLR_THRESHOLDS_PERCENT),
            *_lesion_metrics(),
        )
    }
)
"""Every metric by name, in the order of ``cases.csv``."""


def metrics_of(structure: Structure) -> tuple[Metric, ...]:
    """The metrics that are computed for one structure, in the order of :data:`METRICS`."""
    return tuple(m for m in METRICS.values() if structure in m.structures)
