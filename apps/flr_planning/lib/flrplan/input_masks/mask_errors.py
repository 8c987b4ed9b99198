"""How predicted masks differ from true ones, as a few numbers that can be measured and drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flrplan.metrics.lesions import SizeClass


@dataclass(frozen=True)
class LiverErrors:
    """Errors of a predicted liver.

    shift_mean_mm, shift_std_mm: displacement of the whole surface, over cases; positive where the liver is too large.
    local_std_mm: standard deviation of the displacement along the surface of one case, far errors left out.
    missing_rate, missing_fraction: share of cases where a part is missing altogether (a lobe, the dome), and the mean share of the
        liver's volume that it makes up there.
    added_rate, added_fraction: the same for something beside the liver that was taken for it.
    """

    shift_mean_mm: float
    shift_std_mm: float
    local_std_mm: float
    missing_rate: float
    missing_fraction: float
    added_rate: float
    added_fraction: float


@dataclass(frozen=True)
class LesionErrors:
    """Errors of predicted metastases.

    missed: share of true lesions that no predicted voxel touches, by size class.
    shift_mean_mm, shift_std_mm: radius of a predicted lesion less that of the true one it belongs to, over lesions.
    invented_per_case: mean number of predicted lesions that touch no true one.
    invented_diameter_mm, invented_log_std: geometric mean of their diameters, and the standard deviation of its logarithm.
    """

    missed: Mapping[SizeClass, float]
    shift_mean_mm: float
    shift_std_mm: float
    invented_per_case: float
    invented_diameter_mm: float
    invented_log_std: float


@dataclass(frozen=True)
class MaskErrors:
    """Errors of predicted masks; ``cases`` is how many they were measured on."""

    liver: LiverErrors
    lesions: LesionErrors
    cases: int = field(default=0)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the record of a preparation."""
        lesions = asdict(self.lesions)
        missed = {size.value: rate for size, rate in self.lesions.missed.items()}
        return {"liver": asdict(self.liver), "lesions": {**lesions, "missed": missed}, "cases": self.cases}


DEFAULT_ERRORS = MaskErrors(
    LiverErrors(
        shift_mean_mm=0.33,
        shift_std_mm=1.0,
        local_std_mm=2.2,
        missing_rate=0.92,
        missing_fraction=0.042,
        added_rate=1.0,
        added_fraction=0.090,
    ),
    LesionErrors(
        missed={SizeClass.SMALL: 1.0, SizeClass.MEDIUM: 0.76, SizeClass.LARGE: 0.20},
        shift_mean_mm=-0.02,
        shift_std_mm=5.0,
        invented_per_case=1.5,
        invented_diameter_mm=14.5,
        invented_log_std=0.72,
    ),
    cases=24,
)
"""Where there are no predictions to measure: the errors of earlier demo models (liver of cohort version 3, CRLM of version 2; the
present ones err less) on 24 unseen synthetic cases of version 3 (``flrplan cohort --cases 24 --seed 21 --size medium``;
``benchmark/predict.py --no-mirroring``, raw masks; :func:`flrplan.input_masks.errors_of_predictions`)."""
