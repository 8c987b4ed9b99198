"""Lesions of wide cases: attenuation of their own, rims, cores, patches, calcium, sharp and vague margins.

Attenuation is the tissue's and no distance from the liver's. So most lesions are darker than the liver, those in fatty livers
alike or brighter, and what tells lesion from liver is often the rim. Frequencies, portal venous phase: a rim in 73 % of 74
colorectal metastases, thick in 49 %, thin in 24 %, enhancing in 84 %, a brighter centre in 51 % (Ann Acad Med Singapore 2003,
32:191). A necrotic centre, a rim that enhances from the arterial phase to the late one, mucin in about one in ten: doi
10.1186/s13244-020-00904-4. Sharp and homogeneous after, vague and patchy without chemotherapy: Chun 2009, JAMA 302:2338. The HU
are our choice: soft tissue without contrast, and what a tumour with few vessels takes up.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flrplan.cohort.lesion_mix import LesionKind
from flrplan.cohort.lesions import Lesion
from flrplan.cohort.organs import Stream, stream
from flrplan.cohort.render import Intensities
from flrplan.cohort.scan import Phase

TISSUE_HU: dict[Phase, tuple[float, float]] = {
    Phase.NONE: (38, 6),
    Phase.ARTERIAL: (57, 12),
    Phase.PORTAL_VENOUS: (68, 15),
    Phase.LATE: (70, 13),
}
"""Mean and standard deviation over patients of the lesions' attenuation."""

_MUCINOUS_SHARE, _VASCULAR_SHARE, _CALCIFIED_SHARE, _SHARP_SHARE = 0.12, 0.07, 0.12, 0.4
_VASCULAR_HU = {Phase.NONE: 0.0, Phase.ARTERIAL: 45.0, Phase.PORTAL_VENOUS: 22.0, Phase.LATE: 5.0}
_RIM_STRENGTH = {Phase.NONE: 0.15, Phase.ARTERIAL: 1.0, Phase.PORTAL_VENOUS: 0.9, Phase.LATE: 0.6}
_THICK, _THIN, _NO_RIM = 0.49, 0.24, 0.27
_ENHANCING_SHARE = 0.84
_FLUID_HU = 8.0
_ALIKE_HU = 12.0
"""Closer to the liver than this a margin cannot be seen, so nobody would have outlined it; few may."""
_VANISHING_SHARE = 0.12
_CORE_FROM_MM = 10.0
"""Smaller lesions have no core and no patches."""


def spread_looks(
    seed: int, index: int, phase: Phase, lesions: list[Lesion], look: Intensities
) -> tuple[list[Lesion], Intensities]:
    """The lesions with looks drawn anew, and the intensities with theirs; lesions of one patient resemble each other."""
    rng = stream(seed, index, Stream.SPREAD, 2)
    tissue = rng.normal(*TISSUE_HU[phase])
    if rng.random() < _MUCINOUS_SHARE:
        tissue -= rng.uniform(15, 35)
    if rng.random() < _VASCULAR_SHARE:
        tissue += _VASCULAR_HU[phase] * rng.uniform(0.5, 1.3)
    usual_rim = float(rng.choice(3, p=[_THICK, _THIN, _NO_RIM]))
    enhancing = rng.random() < _ENHANCING_SHARE
    sharp = rng.random() < _SHARP_SHARE
    patchy = rng.uniform(0, 5) if sharp else rng.uniform(2, 14)
    calcified = rng.random() < _CALCIFIED_SHARE
    side = float(rng.choice([-1, 1], p=[0.65, 0.35]))
    drawn = []
    for lesion in lesions:
        mm = lesion.diameter_mm
        hu = tissue + rng.normal(0, 7)
        rim = usual_rim if rng.random() < 0.75 else float(rng.integers(3))
        rim_mm = (rng.uniform(0.12, 0.28) * mm, rng.uniform(0.05, 0.12) * mm, 0.0)[int(rim)]
        rim_hu = 0.0
        if rim_mm:
            rim_mm = float(np.clip(rim_mm, 1.0, 12.0))
            rim_hu = _RIM_STRENGTH[phase] * rng.uniform(12, 60) if enhancing else -rng.uniform(8, 25)
            rim_hu = _apart(rng, hu + rim_hu, look.liver_hu, side) - hu
        else:
            hu = _apart(rng, hu, look.liver_hu, side)
        hu = max(hu, _FLUID_HU)
        core = rng.uniform(0, 40) if rng.random() < 0.55 else -rng.uniform(0, 25)
        large = mm >= _CORE_FROM_MM
        calcium = rng.uniform(80, 700) if calcified and rng.random() < 0.6 else 0.0
        contrast = look.liver_hu - hu
        drawn.append(
            replace(
                lesion,
                kind=_kind(contrast, rim_hu, calcium),
                contrast_hu=float(contrast),
                rim_hu=float(rim_hu),
                rim_mm=rim_mm,
                core_hu=float(min(core, hu - _FLUID_HU)) if large else 0.0,
                core_from=float(rng.uniform(0.1, 0.35)),
                mottle_hu=float(patchy) if large else 0.0,
                calcium_hu=float(calcium),
                edge_mm=float(min(rng.uniform(0.5, 2.0) if sharp else rng.uniform(2, 8), 0.3 * mm)),
            )
        )
    means = np.array([look.liver_hu - lesion.contrast_hu for lesion in drawn], np.float32)
    return drawn, replace(look, lesion_hu=means)


def _apart(rng: np.random.Generator, hu: float, liver_hu: float, side: float) -> float:
    """The attenuation of a lesion's margin, moved away from the liver's to this side (1: brighter) where the two are alike."""
    if abs(hu - liver_hu) >= _ALIKE_HU or rng.random() < _VANISHING_SHARE:
        return float(hu)
    return float(liver_hu + side * rng.uniform(_ALIKE_HU, 2.2 * _ALIKE_HU))


def _kind(contrast_hu: float, rim_hu: float, calcium_hu: float) -> LesionKind:
    if calcium_hu:
        return LesionKind.CALCIFIED
    if abs(rim_hu) >= _ALIKE_HU:
        return LesionKind.RIM
    if abs(contrast_hu) < _ALIKE_HU:
        return LesionKind.VANISHING
    return LesionKind.HYPODENSE if contrast_hu > 0 else LesionKind.HYPERDENSE
