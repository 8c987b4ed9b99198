"""All metrics as data: name, title, unit, which direction is better, and for which structures they are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from flrplan.anatomy import STRUCTURES, Structure
from flrplan.metrics.cut import CUT_TOLERANCES_MM
from flrplan.metrics.lesions import IOU_THRESHOLDS, LESION_RATIOS, iou_key
from flrplan.metrics.volume import FLR_THRESHOLDS_PERCENT, OWN

NSD_TOLERANCE_MM: Mapping[Structure, float] = MappingProxyType({s: info.nsd_tolerance_mm for s, info in STRUCTURES.items()})
"""Tolerances of the NSD, with their reason in :class:`flrplan.anatomy.StructureInfo`."""


class Better(Enum):
    """Which direction of a metric is better; a description has none."""

    HIGHER = "higher"
    LOWER = "lower"
    ZERO = "nearer to zero"
    NEITHER = "neither"


@dataclass(frozen=True)
class Metric:
    """One column of ``cases.csv``. ``structures``: where it is computed; elsewhere its cell is blank (not applicable).

    So it is where the FLR% of its own liver and CRLM was asked for and the architecture has not predicted both.
    """

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
        for name, title in LESION_RATIOS.items():
            full = f"{title} (IoU > {threshold})"
            metrics.append(Metric(f"{name}_{iou_key(threshold)}", full, "", Better.HIGHER, _CRLM))
    return metrics


def _flr_percent_metrics(own: str = "", of: str = "") -> list[Metric]:
    return [
        Metric(f"flr_percent_{own}prediction", f"FLR%{of}, prediction", "%", Better.NEITHER, _FLR),
        Metric(f"flr_percent_{own}error", f"FLR%{of} error", "points", Better.ZERO, _FLR),
        Metric(f"flr_percent_{own}abs_error", f"absolute FLR%{of} error", "points", Better.LOWER, _FLR),
        *(
            Metric(f"crossing_{own}{t}", f"FLR%{of} on the other side of {t} %", "", Better.LOWER, _FLR)
            for t in FLR_THRESHOLDS_PERCENT
        ),
    ]


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
            Metric("dice_ceiling", "highest Dice inside the given liver", "", Better.NEITHER, _FLR | _CRLM),
            Metric("volume_reference_ml", "volume, reference", "ml", Better.NEITHER),
            Metric("volume_prediction_ml", "volume, prediction", "ml", Better.NEITHER),
            Metric("volume_error_ml", "volume error", "ml", Better.ZERO),
            Metric("volume_abs_error_ml", "absolute volume error", "ml", Better.LOWER),
            Metric("flr_percent_reference", "FLR%, reference", "%", Better.NEITHER, _FLR),
            *_flr_percent_metrics(),
            *_flr_percent_metrics(OWN, " of its own liver"),
            *(Metric(f"cut_nsd_{mm:g}mm", f"NSD of the cut at {mm:g} mm", "", Better.HIGHER, _FLR) for mm in CUT_TOLERANCES_MM),
            Metric("cut_hd95_mm", "HD95 of the cut", "mm", Better.LOWER, _FLR),
            Metric("cut_mean_mm", "mean distance of the cut", "mm", Better.LOWER, _FLR),
            Metric("tumour_cut_reference_mm", "tumour to cut, reference", "mm", Better.NEITHER, _FLR),
            Metric("tumour_cut_prediction_mm", "tumour to cut, prediction", "mm", Better.NEITHER, _FLR),
            Metric("tumour_cut_error_mm", "tumour to cut, error", "mm", Better.ZERO, _FLR),
            Metric("tumour_cut_abs_error_mm", "tumour to cut, absolute error", "mm", Better.LOWER, _FLR),
            Metric("tumour_in_flr_reference_ml", "tumour in the FLR, reference", "ml", Better.NEITHER, _FLR),
            Metric("tumour_in_flr_prediction_ml", "tumour in the FLR, prediction", "ml", Better.LOWER, _FLR),
            *_lesion_metrics(),
        )
    }
)
"""Every metric by name, in the order of ``cases.csv``."""


def metrics_of(structure: Structure) -> tuple[Metric, ...]:
    """The metrics that are computed for one structure, in the order of :data:`METRICS`."""
    return tuple(m for m in METRICS.values() if structure in m.structures)
