"""A real CT with a reference liver, and how well the liver of the demo models agrees with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flrplan.anatomy import Mask, Structure
from flrplan.demo import REAL_FORM
from flrplan.demo.reference_mask import Reference, read_reference
from flrplan.engine import Cascade
from flrplan.errors import EmptyLiverError, SettingsError
from flrplan.image import CT, read_ct
from flrplan.method import LIVER, CascadeResult
from flrplan.metrics.overlap import dice

CROP_MARGIN_MM = 10.0
"""A real CT is measured a second time with no more than this around its reference liver, as data sets are often cropped."""


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
        """Reads both. Raises: as :func:`flrplan.image.read_ct` and :func:`flrplan.demo.reference_mask.read_reference`."""
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


def measure_cropped(real: RealCT, cascade: Cascade, margin_mm: float = CROP_MARGIN_MM) -> RealScore:
    """The score of the liver where the CT ends this far from the reference liver on all sides; 0 where no liver is found."""
    ct, reference = real.load()
    box = box_around(reference.liver, ct.geometry.spacing_zyx_mm, margin_mm)
    ct = replace(ct, array_zyx=np.ascontiguousarray(ct.array_zyx[box]), geometry=ct.geometry.crop(box))
    reference = Reference(reference.liver[box], reference.covered[box], reference.notes)
    try:
        result = cascade.run(ct, stages=(LIVER,))
    except EmptyLiverError as error:
        return score_real(cropped_name(real.name), np.zeros_like(reference.liver), reference, ct, (str(error),))
    return score_real(cropped_name(real.name), result.masks[Structure.LIVER], reference, ct, result.warnings)


def cropped_name(name: str, margin_mm: float = CROP_MARGIN_MM) -> str:
    """What the score of a real CT that was cropped goes by."""
    return f"{name} cropped to {margin_mm:g} mm around the liver"


def box_around(mask: Mask, spacing_zyx_mm: tuple[float, float, float], margin_mm: float) -> tuple[slice, slice, slice]:
    """The voxels of a mask that is not empty and what lies this near along the axes, within the array."""
    cuts = []
    for axis, mm in enumerate(spacing_zyx_mm):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = round(margin_mm / mm)
        cuts.append(slice(max(int(found[0]) - margin, 0), min(int(found[-1]) + 1 + margin, mask.shape[axis])))
    return (cuts[0], cuts[1], cuts[2])


def measure_real(real: RealCT, cascade: Cascade) -> tuple[CascadeResult, RealScore]:
    """The cascade on a real CT, and the score of its liver."""
    ct, reference = real.load()
    result = cascade.run(ct)
    return result, score_real(real.name, result.masks[Structure.LIVER], reference, ct, result.warnings)
