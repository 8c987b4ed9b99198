"""The results of scoring as plain rows: one per case, architecture and column, and one per lesion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from flrplan.evaluation.columns import COLUMNS, Column, Part
from flrplan.evaluation.inputs import Gap
from flrplan.evaluation.probabilities import ProbabilityRow
from flrplan.metrics.catalogue import METRICS
from flrplan.metrics.empty import Emptiness, Undefined
from flrplan.metrics.lesions import SizeClass

INSTANCES, COMPONENTS = "instances", "components"
"""What the lesions of the truth are: told apart by the source of the labels, or 26-connected components of the CRLM."""


@dataclass(frozen=True)
class Row:
    """All metrics of one prediction.

    fold: None for a held-out case. architecture: or the name of a baseline, or of the original labels. slice_spacing_mm,
        tumours, diagonal_mm (of the image): facts of the case.
    values: metric to value, NaN where undefined; reasons: why, for exactly those.
    tumour_percent: tumour volume over liver volume; flr_percent: of the truth; both NaN for an empty liver.
    lesions_from: what the lesions of the truth (``tumours``) are: :data:`INSTANCES` or :data:`COMPONENTS`.
    """

    case: str
    fold: int | None
    architecture: str
    column_name: str
    slice_spacing_mm: float
    tumours: int
    diagonal_mm: float
    values: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)
    tumour_percent: float = math.nan
    flr_percent: float = math.nan
    lesions_from: str = COMPONENTS

    @property
    def column(self) -> Column:
        """The column as an object."""
        return COLUMNS[self.column_name]

    @property
    def part(self) -> Part:
        """Cross-validation or held-out test."""
        return Part.TEST if self.fold is None else Part.CV

    @property
    def key(self) -> tuple[Part, str, str]:
        """Part, architecture, column."""
        return self.part, self.architecture, self.column_name

    @property
    def emptiness(self) -> Emptiness:
        """Which of the two masks are empty."""
        return Emptiness.of(self.values["volume_reference_ml"] > 0, self.values["volume_prediction_ml"] > 0)

    @property
    def is_missed(self) -> bool:
        """Whether nothing was predicted of a structure that is there."""
        return self.emptiness is Emptiness.PREDICTION

    def penalised(self, metric: str) -> float:
        """The value for comparisons: the worst one (:meth:`Metric.worst`) where the prediction alone left it undefined; else as it is.

        A miss counts 0 in precision and the image's diagonal in distances, for a model that is silent where it is unsure would win
        with the mean over its other cases (Maier-Hein, Reinke et al. 2024, Metrics Reloaded, doi 10.1038/s41592-023-02151-z).
        """
        reason = self.reasons.get(metric)
        worst = METRICS[metric].worst(self.diagonal_mm) if reason and Undefined(reason).is_of_prediction else None
        return self.values.get(metric, math.nan) if worst is None else worst

    def order(self, metric: str) -> float:
        """A number that orders the predictions of one case by one metric, higher is better; NaN where it says nothing.

        Whatever the metric: a miss and a structure that is not there but was predicted are last (-inf), and nothing predicted where
        there is nothing is first (inf).
        """
        if self.emptiness is not Emptiness.NONE:
            return math.inf if self.emptiness is Emptiness.BOTH else -math.inf
        reason = self.reasons.get(metric)
        if reason and Undefined(reason).is_of_prediction:
            return -math.inf
        return METRICS[metric].oriented(self.values[metric])


@dataclass(frozen=True)
class LesionRow:
    """One metastasis of the reference or of a prediction. ``iou``: with the lesion it is matched to at the lowest threshold.

    found: by IoU threshold key (``iou10``), whether it is matched there. For a predicted lesion False is a false alarm.
    number: the lesion's in its instances (n of ``Tumor_n``), else counted from 1 in raster order.
    is_covered: of the reference: more than half of it lies in one predicted lesion, whether that is matched to it or not.
    """

    case: str
    fold: int | None
    architecture: str
    column_name: str
    side: str
    diameter_mm: float
    iou: float
    found: Mapping[str, bool]
    number: int
    is_covered: bool = False

    @property
    def part(self) -> Part:
        """Cross-validation or held-out test."""
        return Part.TEST if self.fold is None else Part.CV

    @property
    def size(self) -> SizeClass:
        """Size class by diameter."""
        return SizeClass.of(self.diameter_mm)


@dataclass(frozen=True)
class CaseResult:
    """What a worker sends back about one case: small, whatever the size of the images."""

    rows: tuple[Row, ...] = ()
    baselines: tuple[Row, ...] = ()
    lesions: tuple[LesionRow, ...] = ()
    probabilities: tuple[ProbabilityRow, ...] = ()
    gaps: tuple[Gap, ...] = ()
    original: tuple[Row, ...] = ()
