"""What a synthetic cohort is made from: how many cases, which seed, how fine a grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from flrplan.cohort.organs import Stream, stream
from flrplan.errors import SettingsError
from flrplan.files.checked import Whole, checked

COHORT_VERSION = 4
"""Raised whenever the same (seed, index, size) would give another case."""

MAX_CASES = 10_000
"""Case identifiers have four digits."""

FAULTS_NAME = "faults.json"
"""Per case the faults of its label."""
FAULT_SHARE = 0.5
"""Share of the cases that get label faults, where the command line asks for faults without a number."""

WIDE_SHARE = 0.5
"""Share of the wide cases, where the command line asks for them without a number."""


class CaseSize(StrEnum):
    """How finely the same physical anatomy is scanned."""

    SMALL = "small"
    MEDIUM = "medium"
    FULL = "full"


@dataclass(frozen=True)
class GridLimits:
    """In-plane matrix and spacing, and slice count and spacing, between which a grid of one size lies."""

    matrix: int
    in_plane_mm: tuple[float, float]
    slice_mm: tuple[float, float]
    slices: tuple[int, int]


GRID_LIMITS: dict[CaseSize, GridLimits] = {
    CaseSize.SMALL: GridLimits(96, (3.2, 4.4), (3.0, 7.5), (16, 84)),
    CaseSize.MEDIUM: GridLimits(176, (1.9, 2.4), (2.0, 5.0), (24, 160)),
    CaseSize.FULL: GridLimits(512, (0.61, 0.98), (0.8, 7.5), (21, 240)),
}
"""Limits of full: those of TCIA Colorectal-Liver-Metastases (Simpson 2024, Sci Data 11:172)."""


_Share = Annotated[float, Field(strict=True, ge=0, le=1)]


@checked
class CohortSettings:
    """Settings of a cohort. Case ``i`` depends on ``seed``, ``i``, ``size``, ``faults`` and ``wide`` alone, never on ``cases``.

    ``faults``: share of the cases that get label faults.
    ``fault_kinds``: names of :class:`~flrplan.cohort.faults.FaultKind`, one a faulty case, in turn; none: drawn as the refinement of
        the TCIA data met them.
    ``wide``: share of the cases whose fields of view and lesions spread wide (:func:`flrplan.cohort.case.make_case`). A case that is
        wide at some share is the same at every larger one.
    Raises: SettingsError for a value out of range.
    """

    cases: Annotated[Whole, Field(ge=1, le=MAX_CASES)] = 40
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = 0
    size: CaseSize = CaseSize.SMALL
    first_index: Annotated[Whole, Field(ge=0)] = 0
    faults: _Share = 0.0
    wide: _Share = 0.0
    fault_kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.indices.stop > MAX_CASES:
            raise SettingsError(
                f"first_index must be at most {MAX_CASES - self.cases} for {self.cases} cases, got {self.first_index}"
            )

    @property
    def indices(self) -> range:
        """Indices of the cases in this cohort."""
        return range(self.first_index, self.first_index + self.cases)

    def is_wide(self, index: int) -> bool:
        """Whether a case is one of the wide ones."""
        return bool(stream(self.seed, index, Stream.SPREAD).random() < self.wide)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready settings."""
        return {**asdict(self), "size": self.size.value, "fault_kinds": list(self.fault_kinds)}


def case_name(seed: int, index: int) -> str:
    """Identifier of a case, for example ``synth-1-0007``; with the seed, so that cohorts can be told apart.

    The same case in another size has the same name: it is the same patient.
    """
    return f"synth-{seed}-{index:04d}"
