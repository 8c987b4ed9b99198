"""The volumes of a planning label map, each with its own denominator, which are never mixed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import COMPARTMENTS_OF, PLANNED, Compartment, Structure
from flrplan.image import Geometry


@dataclass(frozen=True)
class Volumes:
    """Millilitres and fractions (0..1) of one planning label map.

    liver_ml: total liver volume with tumours (TLV). crlm_ml: tumours (TV). functional_liver_ml: TLV - TV.
    flr_ml: remnant with the tumours in it. flr_functional_ml: remnant parenchyma. lrs_ml: what is resected, with tumours.
    flr_fraction: remnant parenchyma / all parenchyma, the measured FLR% (Kubota 1997; Ribero 2013: tumour is left out
        above and below). flr_of_liver: FLR / liver with tumours; for the benchmark's trivial baseline only.
    NaN where the denominator is empty.
    """

    liver_ml: float
    crlm_ml: float
    functional_liver_ml: float
    flr_ml: float
    flr_functional_ml: float
    lrs_ml: float
    flr_fraction: float
    flr_of_liver: float

    def describe(self) -> str:
        """``liver <n> ml, crlm <n> ml, FLR <n> ml (<p> %)``, and the FLR with the metastases that are left in it, if any."""
        left = (
            f"; with the metastases left in it {self.flr_ml:.0f} ml"
            if round(self.flr_ml) > round(self.flr_functional_ml)
            else ""
        )
        return f"liver {self.liver_ml:.0f} ml, crlm {self.crlm_ml:.1f} ml, {self.describe_flr()}{left}"

    def describe_flr(self) -> str:
        """``FLR <n> ml (<p> %)``: the remnant that functions, its parenchyma, and its share of all parenchyma."""
        share = "undefined" if math.isnan(self.flr_fraction) else f"{100 * self.flr_fraction:.1f}"
        return f"FLR {self.flr_functional_ml:.0f} ml ({share} %)"

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers; what is undefined becomes None."""
        return {name: None if math.isnan(value) else round(value, 6) for name, value in asdict(self).items()}


def measure_volumes(label_zyx: NDArray[np.uint8], voxel_volume_ml: float) -> Volumes:
    """Volumes of a planning label map ``(Z, Y, X) uint8``. An empty map gives 0 ml everywhere and NaN fractions."""
    counts = {c: np.count_nonzero(label_zyx == c) for c in Compartment}

    def volume_ml(structure: Structure) -> float:
        return float(sum(counts[c] for c in COMPARTMENTS_OF[structure])) * voxel_volume_ml

    liver, crlm, flr = (volume_ml(s) for s in PLANNED)
    remnant = float(counts[Compartment.REMNANT]) * voxel_volume_ml
    parenchyma = remnant + float(counts[Compartment.RESECTION]) * voxel_volume_ml
    return Volumes(
        liver_ml=liver,
        crlm_ml=crlm,
        functional_liver_ml=liver - crlm,
        flr_ml=flr,
        flr_functional_ml=remnant,
        lrs_ml=volume_ml(Structure.LRS),
        flr_fraction=remnant / parenchyma if parenchyma else math.nan,
        flr_of_liver=flr / liver if liver else math.nan,
    )


def partial_volume_ml(label_zyx: NDArray[np.uint8], geometry: Geometry) -> float:
    """How far the remnant parenchyma can be off, in ml either way, were half of the voxel that ends each of its columns not of it.

    Columns run through the slices (the axis of the largest spacing). No spread: outlines of what fills half of a slice are off by 2 % of it, of
    all that shows by 80 % (``benchmark/volume_errors.py``). 0 without remnant.
    """
    spacing = geometry.spacing_zyx_mm
    columns = np.moveaxis(label_zyx == Compartment.REMNANT, int(np.argmax(spacing)), 0)
    ends = np.count_nonzero(columns[:-1] != columns[1:]) + np.count_nonzero(columns[0]) + np.count_nonzero(columns[-1])
    return ends * geometry.voxel_volume_ml / 2
