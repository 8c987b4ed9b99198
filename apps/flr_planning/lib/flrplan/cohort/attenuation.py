"""HU that vary with the patient rather than the organ: fatty livers, blood in them, urine, bowel contents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flrplan.cohort.organs import Organ, Stream, stream
from flrplan.cohort.render import Intensities
from flrplan.cohort.scan import Phase, Scan
from flrplan.image.smooth_noise import FloatArray

_UTERUS_HU = {Phase.NONE: 42.0, Phase.ARTERIAL: 70.0}
_UTERUS_LATER_HU = 95.0
_FAINT_HU = 15.0
_FLUID_HU = 8.0
_BLOOD = [Organ.HEART_BLOOD, Organ.AORTA, Organ.CAVA, Organ.PORTAL_TRUNK]


def _lesions(look: Intensities, liver_hu: float) -> FloatArray:
    """HU of the lesions in a liver that now has ``liver_hu``: as much darker as before, but solid tissue stays above fluid.

    So in a fatty liver a lesion may be the brighter of the two; one that hardly differed before hardly differs after.
    """
    moved = look.lesion_hu + np.float32(liver_hu - look.liver_hu)
    distinct = np.abs(look.lesion_hu - look.liver_hu) > _FAINT_HU
    darkest = np.minimum(look.lesion_hu, _FLUID_HU)
    return np.asarray(np.where(distinct, np.maximum(moved, darkest), moved), np.float32)


def attenuate(seed: int, index: int, scan: Scan, look: Intensities) -> Intensities:
    """``look`` with a native liver between fat and well above muscle, urine that may hold contrast, and bowel contents."""
    rng = stream(seed, index, Stream.ATTENUATION)
    table = look.organ_hu.copy()
    native = scan.phase is Phase.NONE
    late = scan.phase not in _UTERUS_HU and rng.random() < 0.25
    table[Organ.BLADDER] = rng.uniform(60, 600) if late else rng.uniform(0, 20)
    table[Organ.PELVIC_ORGAN] = rng.normal(_UTERUS_HU.get(scan.phase, _UTERUS_LATER_HU), 16)
    table[Organ.ASCITES] = rng.uniform(0, 22)
    thick, alike = float(rng.normal(28, 14)), rng.random()
    fluid_stool = float(rng.normal(20, 25))
    if table[Organ.BOWEL_CONTENT] < 100:
        table[Organ.BOWEL_CONTENT] = thick
    table[Organ.STOOL] = fluid_stool
    liver = look.liver_hu
    fatty, plain, neighbour = float(rng.uniform(-10, 40)), float(rng.normal(52, 9)), float(rng.normal(0, 5))
    if look.liver_kind == "steatosis":
        liver = fatty if native else fatty + float(rng.uniform(15, 40))
    elif native and look.liver_kind == "normal":
        liver = plain
        if alike < 0.4:
            # As bright as what it touches: nothing but texture and shape tells them apart.
            organ = (Organ.SPLEEN, Organ.MUSCLE, Organ.BOWEL_CONTENT, Organ.BOWEL_WALL)[int(alike * 10)]
            liver = float(np.clip(table[organ] + neighbour, 25, 75))
    table[[Organ.LIVER, Organ.TUMOUR]] = liver
    blood = float(rng.normal(42, 4))
    vessels = look.vessel_hu
    if native:
        # Without contrast all blood is alike, and darker than liver unless that is fatty.
        table[_BLOOD] = blood
        vessels = blood, blood
    elif look.liver_kind == "steatosis":
        vessels = float(table[Organ.PORTAL_TRUNK]) - 3, float(table[Organ.CAVA]) - 3
    return replace(look, organ_hu=table, liver_hu=liver, lesion_hu=_lesions(look, liver), vessel_hu=vessels)
