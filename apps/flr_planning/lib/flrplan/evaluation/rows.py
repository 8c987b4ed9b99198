"""The results of scoring as plain rows: one per case, architecture and column, and one per lesion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from flrplan.evaluation.columns import COLUMNS, Column, Part
from flrplan.evaluation.inputs import Gap
from flrplan.evaluation.probabilities import ProbabilityRow
from flrplan.metrics.lesions import SizeClass

INSTANCES, COMPONENTS = "instances", "components"
"""What the lesions of the truth are: told apart by the source of the labels, or 26-connected components of the CRLM."""


@dataclass(frozen=True)
class Row:
    """All metrics of one prediction.

    fold: None for a held-out case. architecture: or the name of a baseline, or of the original labels. slice_spacing_mm, tumours: facts of the case.
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


def by_key(rows: list[Row]) -> dict[tuple[Part, str, str], list[Row]]:
    """Rows grouped by part, architecture and column."""
    grouped: dict[tuple[Part, str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.key, []).append(row)
    return grouped
