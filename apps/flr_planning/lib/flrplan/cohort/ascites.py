"""Free fluid in the belly: around the liver, in the flanks, between the bowel and in the pelvis."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flrplan.cohort.fields import Frame
from flrplan.cohort.landmarks import descent
from flrplan.cohort.liver import LiverFields
from flrplan.cohort.organs import Organ, Stream, stream
from flrplan.cohort.trunk import Cavity, Layer
from flrplan.image.smooth_noise import FloatArray

ASCITES_SHARE = 0.06
"""Share of patients with free fluid."""

_BARE_MM = (45.0, 85.0)
"""The liver stays attached at hilum and cava and gives way to fluid from here on, fully at the second distance."""


@dataclass(frozen=True)
class Ascites:
    """How thick the fluid is, mm: beside the liver, and in the flanks and the pelvis; 0 for none."""

    gap_mm: float
    depth_mm: float


def draw_ascites(seed: int, index: int) -> Ascites:
    """The fluid of a patient, mostly none."""
    rng = stream(seed, index, Stream.ASCITES)
    amount = float(rng.uniform(0.2, 1.0)) if rng.random() < ASCITES_SHARE else 0.0
    return Ascites(gap_mm=14.0 * amount, depth_mm=34.0 * amount)


def _mobile(f: Frame) -> FloatArray:
    """0 at the hilum and the bare area of the liver, 1 where fluid can lie on it; less at the thin left lobe, which floats."""
    distance = np.sqrt((f.x + 22) ** 2 + (f.y - 8) ** 2 + (0.7 * (f.z - 15)) ** 2)
    return (1 - descent(distance, _BARE_MM[1], _BARE_MM[0])) * (1 - np.float32(0.65) * (1 - descent(f.x, 30.0, 0.0)))


def recede(liver: LiverFields, ascites: Ascites) -> LiverFields:
    """The liver shrunk to make room for the fluid on its free surface; every other field as it was."""
    if not ascites.gap_mm:
        return liver
    values = liver.liver.values - np.float32(ascites.gap_mm) * _mobile(liver.frame)
    return replace(liver, liver=liver.frame.field(values))


def fluid(f: Frame, cavity: Cavity, liver: LiverFields, ascites: Ascites) -> list[Layer]:
    """The fluid, painted after the fat of the belly and before its organs; ``liver`` as it was before it receded."""
    if not ascites.gap_mm:
        return []
    free = np.minimum(cavity.inside - 1, (cavity.lung_floor_mm - f.z - 1) * np.float32(0.75))
    # Kidneys, pancreas and great vessels lie behind the peritoneum.
    free = np.minimum(free, np.hypot(0.55 * f.x, f.y - 62) - 46)
    flanks = ascites.depth_mm * np.clip((np.abs(f.x) - 30) / 60, 0, 1) - cavity.inside
    basin = 0.5 * (-250 + 2.2 * ascites.depth_mm - f.z)
    whole = np.minimum(free, np.maximum(flanks, basin))
    around = liver.frame
    near = cavity.on(around)
    beside = np.minimum(near.inside - 1, (near.lung_floor_mm - around.z - 1) * np.float32(0.75))
    beside = np.minimum(beside, liver.liver.values + np.float32(0.5 * ascites.gap_mm) * _mobile(around))
    return [
        (Organ.ASCITES, f.field(whole.astype(np.float32))),
        (Organ.ASCITES, around.field(beside.astype(np.float32))),
    ]
