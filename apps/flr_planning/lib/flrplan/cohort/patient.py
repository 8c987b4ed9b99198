"""One patient's build and the stretch of the body that is scanned; drawn once, the same at every size."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from flrplan.cohort.organs import Stream, stream

CAVITY_RADII_MM = (128.0, 92.0)
"""Half width and half depth of the inside of the rib cage before scaling."""

CAVITY_CENTRE_Y_MM = -12.0

BACK_MUSCLE_MM = 13.0
"""The long muscles beside the spine make the back this much thicker than the front wall."""

SITUS_INVERSUS_SHARE = 0.01
"""Share of mirrored patients: far above the one in ten thousand of life, so that a cohort of hundreds holds some."""


class ScanRange(StrEnum):
    """Which part of the body is scanned."""

    ABDOMEN = "abdomen"
    CHEST_ABDOMEN = "chest+abdomen"
    ABDOMEN_PELVIS = "abdomen+pelvis"
    DOME_CUT = "dome cut off"


@dataclass(frozen=True)
class Patient:
    """Build of a patient in mm of body coordinates (before ``scale_xyz``), and the scanned heights in physical mm.

    ``belly_mm`` is how far the front wall bulges (negative: hollow); ``situs_inversus`` mirrors the whole anatomy.
    """

    scale_xyz: tuple[float, float, float]
    bend_mm: tuple[float, float]
    fat_mm: float
    belly_mm: float
    wall_mm: float
    dome_right_mm: float
    dome_left_mm: float
    saddle_mm: float
    arms: bool
    situs_inversus: bool
    scan_range: ScanRange
    z_low_mm: float
    z_high_mm: float

    @property
    def body_radii_mm(self) -> tuple[float, float]:
        """Half width and half depth of the skin outline, body coordinates."""
        a, b = CAVITY_RADII_MM
        return (a + self.wall_mm + self.fat_mm * 1.1, b + self.wall_mm + 9.0 + self.fat_mm * 0.9)

    @property
    def front_mm(self) -> float:
        """How far the skin reaches in front of the middle of the body, physical mm."""
        return (self.body_radii_mm[1] + max(self.belly_mm, 0.0)) * self.scale_xyz[1]

    @property
    def body_half_mm(self) -> tuple[float, float]:
        """Half width of the body and its depth behind the middle, in physical mm."""
        a, b = self.body_radii_mm
        return (a * self.scale_xyz[0], (b + BACK_MUSCLE_MM) * self.scale_xyz[1])


def draw_patient(seed: int, index: int) -> Patient:
    """The patient of a case."""
    rng = stream(seed, index, Stream.PATIENT)
    common = float(np.clip(rng.normal(1.0, 0.07), 0.87, 1.17))
    scale = tuple(float(np.clip(common * rng.normal(1.0, 0.045), 0.82, 1.22)) for _ in range(3))
    dome_right = float(rng.normal(80, 11))
    kind = list(ScanRange)[int(rng.choice(4, p=(0.30, 0.16, 0.36, 0.18)))]
    top = dome_right + rng.uniform(12, 55)
    bottom = -rng.uniform(80, 135)
    if kind is ScanRange.CHEST_ABDOMEN:
        top, bottom = rng.uniform(150, 235), -rng.uniform(45, 105)
    elif kind is ScanRange.ABDOMEN_PELVIS:
        bottom = -rng.uniform(305, 390)
    elif kind is ScanRange.DOME_CUT:
        top, bottom = dome_right - rng.uniform(5, 55), -rng.uniform(90, 200)
        if rng.random() < 0.6:
            bottom = -rng.uniform(270, 360)
    fat = float(np.clip(rng.lognormal(2.9, 0.6), 3, 55))
    return Patient(
        scale_xyz=(scale[0], scale[1], scale[2]),
        bend_mm=(float(rng.uniform(3.5, 8.5)), float(rng.uniform(0.8, 2.2))),
        fat_mm=fat,
        # Fat under the skin and fat in the belly go together, loosely.
        belly_mm=float(np.clip(rng.normal(-10 + 0.8 * fat, 12), -18, 55)),
        wall_mm=float(rng.uniform(9, 15)),
        dome_right_mm=dome_right,
        dome_left_mm=dome_right - float(rng.normal(16, 8)),
        saddle_mm=float(rng.uniform(4, 28)),
        arms=bool(rng.random() < 0.12),
        situs_inversus=bool(stream(seed, index, Stream.SITUS).random() < SITUS_INVERSUS_SHARE),
        scan_range=kind,
        z_low_mm=bottom * scale[2],
        z_high_mm=float(top * scale[2]),
    )
