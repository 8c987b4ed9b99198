"""A real CT with a reference liver, and how well the liver of the demo models agrees with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flrplan.cascade import Cascade
from flrplan.cascade_result import CascadeResult
from flrplan.demo import REAL_FORM
from flrplan.demo.reference_mask import Reference, read_reference
from flrplan.errors import SettingsError
from flrplan.io import CT, read_ct
from flrplan.labels import Mask, Structure
from flrplan.metrics.overlap import dice


@dataclass(frozen=True)
class RealCT:
    """Where a CT and its reference liver lie; ``value``: of the liver in its file, None for a binary one."""

    name: str
    ct: Path
    liver: Path
    value: int | None = None

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name:
            raise SettingsError(f"the name of a real CT names a folder of results as well: expected no '/', got {self.name!r}")
        if self.value is not None and self.value < 1:
            raise SettingsError(f"the liver's value in {self.liver} must be at least 1, got {self.value}")

    @classmethod
    def parse(cls, text: str) -> RealCT:
        """From :data:`REAL_FORM`. Raises: SettingsError for another form."""
        name, _, files = text.partition("=")
        ct, _, liver = files.partition(",")
        before, _, value = liver.rpartition(":")
        if before and value.isdecimal():
            liver = before
        if not (name and ct and liver):
            raise SettingsError(f"--real takes {REAL_FORM}, got {text!r}")
        return cls(name, Path(ct), Path(liver), int(value) if before and value.isdecimal() else None)

    def load(self) -> tuple[CT, Reference]:
        """Reads both. Raises: as :func:`flrplan.io.read_ct` and :func:`flrplan.demo.reference_mask.read_reference`."""
        ct = read_ct(self.ct)
        return ct, read_reference(self.liver, ct, self.value)


@dataclass(frozen=True)
class RealScore:
    """Agreement of a predicted liver with a reference, where the reference covers the CT.

    missed_ml, extra_ml: reference without prediction, and the reverse. unjudged_ml: predicted where the reference says nothing.
    slices, of_slices: how many slices of the CT the reference covers, and how many there are.
    """

    name: str
    dice: float
    reference_ml: float
    missed_ml: float
    extra_ml: float
    unjudged_ml: float
    slices: int
    of_slices: int
    notes: tuple[str, ...] = ()


def score_real(name: str, predicted: Mask, reference: Reference, ct: CT, warnings: tuple[str, ...] = ()) -> RealScore:
    """Scores a predicted liver ``(Z, Y, X) bool``; what lies outside ``reference.covered`` counts neither for nor against it."""
    judged = predicted & reference.covered

    def ml(mask: Mask) -> float:
        return float(np.count_nonzero(mask)) * ct.geometry.voxel_volume_ml

    return RealScore(
        name=name,
        dice=dice(reference.liver, judged),
        reference_ml=ml(reference.liver),
        missed_ml=ml(reference.liver & ~judged),
        extra_ml=ml(judged & ~reference.liver),
        unjudged_ml=ml(predicted & ~reference.covered),
        slices=int(reference.covered.any(axis=(1, 2)).sum()),
        of_slices=len(reference.covered),
        notes=(*reference.notes, *warnings),
    )


def measure_real(real: RealCT, cascade: Cascade) -> tuple[CascadeResult, RealScore]:
    """The cascade on a real CT, and the score of its liver."""
    ct, reference = real.load()
    result = cascade.run(ct)
    return result, score_real(real.name, result.masks[Structure.LIVER], reference, ct, result.warnings)
