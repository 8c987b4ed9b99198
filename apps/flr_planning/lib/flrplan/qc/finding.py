"""What a rule says about a label: one finding, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flrplan.anatomy import Structure

SCHEMA_VERSION = 1
"""Of :meth:`Finding.as_dict`; raised when a field changes its meaning or goes."""

Voxel = tuple[int, int, int]


class Severity(StrEnum):
    """How much a finding matters: ``error``: volumes or the plan are wrong; ``warning``: somebody should look; ``note``: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def __str__(self) -> str:
        return self.value

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the label of a case.

    box_zyx: first and last voxel of the place, in the label's own array order; None where it is all of the image.
    centre_mm: the middle of that box, LPS.
    size: how much, in ``unit``; what is measured stands in the rule's title and in the message.
    source: why this is a fault, of the rule.
    """

    case: str
    rule: str
    severity: Severity
    message: str
    structure: Structure | None = None
    box_zyx: tuple[Voxel, Voxel] | None = None
    centre_mm: tuple[float, float, float] | None = None
    size: float | None = None
    unit: str = ""
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": SCHEMA_VERSION,
            "case": self.case,
            "rule": self.rule,
            "severity": self.severity.value,
            "structure": None if self.structure is None else self.structure.value,
            "centre_mm": None if self.centre_mm is None else [round(c, 2) for c in self.centre_mm],
            "box_zyx": None if self.box_zyx is None else [list(corner) for corner in self.box_zyx],
            "size": None if self.size is None else round(self.size, 4),
            "unit": self.unit,
            "message": self.message,
            "source": self.source,
        }
