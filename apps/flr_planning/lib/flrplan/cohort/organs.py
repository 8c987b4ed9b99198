"""The organs of a synthetic patient: label integers of ``organs_zyx``, and the independent random streams."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Organ(IntEnum):
    """Values of an organ map ``(Z, Y, X) uint8``; every voxel has one. For inspection, not for training."""

    AIR = 0
    TABLE = 1
    SKIN = 2
    FAT = 3
    MUSCLE = 4
    VISCERAL_FAT = 5
    BONE_CORTICAL = 6
    BONE_SPONGY = 7
    DISC = 8
    SPINAL_CANAL = 9
    CARTILAGE = 10
    LUNG = 11
    LUNG_VESSEL = 12
    HEART_WALL = 13
    HEART_BLOOD = 14
    AORTA = 15
    CAVA = 16
    PORTAL_TRUNK = 17
    OESOPHAGUS = 18
    LIVER = 19
    TUMOUR = 20
    GALLBLADDER = 21
    SPLEEN = 22
    KIDNEY_CORTEX = 23
    KIDNEY_MEDULLA = 24
    PANCREAS = 25
    STOMACH_WALL = 26
    STOMACH_CONTENT = 27
    BOWEL_WALL = 28
    BOWEL_CONTENT = 29
    STOOL = 30
    GAS = 31
    MESENTERIC_VESSEL = 32
    BLADDER = 33
    PELVIC_ORGAN = 34
    ASCITES = 35


class Vessel(IntEnum):
    """Values of ``vessels_zyx``; vessels inside the liver, which belong to the liver."""

    PORTAL = 1
    HEPATIC = 2


class Stream(IntEnum):
    """Independent random streams of one case, so that a change in one part leaves the others as they were."""

    PATIENT = 0
    WARP = 1
    TRUNK = 2
    LIVER = 3
    ABDOMEN = 4
    LESIONS = 5
    SCAN = 6
    INTENSITY = 7
    TEXTURE = 8
    NOISE = 9
    PELVIS = 10
    ATTENUATION = 11
    ASCITES = 12
    SITUS = 13
    SPREAD = 14


def stream(seed: int, index: int, which: Stream, *more: int) -> np.random.Generator:
    """The random generator of one part of one case."""
    return np.random.default_rng([seed, index, int(which), *more])
