"""The pelvis: hip bones, sacrum and thigh bones with their muscles, and bladder, rectum and womb or prostate between them."""

from __future__ import annotations

import numpy as np

from flrplan.cohort.fields import Frame
from flrplan.cohort.landmarks import CREST_Z_MM, SACRUM_Z_MM
from flrplan.cohort.organs import Organ
from flrplan.cohort.patient import Patient
from flrplan.cohort.shapes import Point, ellipsoid, tube, tube_frame
from flrplan.cohort.trunk import Cavity, Layer, muscle_surface
from flrplan.image.smooth_noise import FloatArray, smooth_noise

HIP: Point = (88.0, 36.0, -272.0)
"""Centre of the left femoral head; the right one mirrors it."""


def _sacrum_y(z: FloatArray) -> FloatArray:
    heights = (-300.0, -285.0, -260.0, -230.0, -200.0, SACRUM_Z_MM, -150.0)
    return np.interp(z, heights, (76.0, 86.0, 98.0, 98.0, 84.0, 68.0, 60.0)).astype(np.float32)


def _sacrum(f: Frame) -> list[Layer]:
    s = f.crop((-60, 40, -300), (60, 125, SACRUM_Z_MM))
    if s.x.size == 0:
        return []
    heights = (-298.0, -275.0, -235.0, -195.0, SACRUM_Z_MM)
    half_width = np.interp(s.z, heights, (5.0, 10.0, 36.0, 54.0, 44.0)).astype(np.float32)
    half_depth = np.interp(s.z, heights, (4.0, 7.0, 13.0, 19.0, 19.0)).astype(np.float32)
    bend = 0.004 * s.x**2
    bone = np.minimum(half_depth - np.abs(s.y - _sacrum_y(s.z) - bend), (half_width - np.abs(s.x)) * 0.8)
    bone = np.minimum(bone, np.minimum(SACRUM_Z_MM - 3 - s.z, s.z + 298))
    holes = 5 - np.sqrt((np.abs(s.x) - 20) ** 2 + ((s.z + 4) % 26 - 13) ** 2)
    canal = np.minimum(8.0 - np.hypot(s.x, s.y - _sacrum_y(s.z) - 9), s.z + 245)
    return [
        (Organ.BONE_CORTICAL, s.field(bone)),
        (Organ.BONE_SPONGY, s.field(np.minimum(bone - 2.4, -holes))),
        (Organ.SPINAL_CANAL, s.field(np.minimum(canal, bone - 1))),
    ]


def _wing(p: Frame) -> tuple[FloatArray, FloatArray]:
    """(bone, the iliac muscle on its inner face) of both iliac wings."""
    side = np.abs(p.x)
    middle = 46 + 0.66 * np.clip(90 - p.y, 0, 110) - 0.0018 * np.clip(90 - p.y, 0, 110) ** 2 + 0.24 * (p.z + 185)
    thick = 4.6 + 6.0 * np.clip((-215 - p.z) / 40, 0, 1) + 3.0 * np.clip((p.y - 70) / 20, 0, 1)
    top = CREST_Z_MM - 42 * ((p.y - 36) / 58) ** 2
    bottom = -262 + 1.0 * np.clip(p.y - 48, 0, 60)
    front = -14 + 0.34 * np.clip(-p.z - 165, 0, 200)
    extent = np.minimum(np.minimum(top - p.z, p.z - bottom) * 0.7, np.minimum(p.y - front, 96 - p.y))
    inward = (middle - side) * 0.82
    bone = np.minimum(thick - np.abs(inward), extent)
    muscle = np.minimum(np.minimum(inward, 19 - inward), np.minimum(extent - 3, 62 - p.y))
    return bone.astype(np.float32), muscle.astype(np.float32)


def _sided(points: list[Point], side: int) -> list[Point]:
    return [(side * x, y, z) for x, y, z in points]


def hip_bones(f: Frame) -> list[Layer]:
    """Bones of pelvis and thigh with the muscles on them; painted over the bowel, which they bound."""
    layers: list[Layer] = []
    p = f.crop((-165, -50, -480), (165, 130, CREST_Z_MM))
    if p.x.size == 0:
        return layers
    wing, iliacus = _wing(p)
    layers.append((Organ.MUSCLE, p.field(iliacus)))
    for side in (-1, 1):
        psoas = _sided([(62, 26, -215), (78, -6, -262), (94, 8, -310), (100, 40, -345)], side)
        m = tube_frame(f, psoas, 22)
        layers.append((Organ.MUSCLE, m.field(tube(m, psoas, (21, 20, 17, 10)))))
    x, y, z = HIP
    for side in (-1, 1):
        h = f.crop((side * 90 - 75, -50, -480), (side * 90 + 75, 110, -225))
        if h.x.size == 0:
            continue
        r = np.sqrt((h.x - side * x) ** 2 + (h.y - y) ** 2 + (h.z - z) ** 2)
        medial = side * (side * (x + 8) - h.x)
        cup = np.minimum(np.minimum(37 - r, r - 26), medial)
        inner = np.minimum(np.minimum(46 - r, r - 33), np.minimum(medial - 20, h.z + 300))
        pubis = _sided([(70, 14, -280), (40, -12, -290), (11, -24, -300), (9, -20, -322), (26, 8, -340), (50, 52, -346)], side)
        ischium = _sided([(80, 62, -278), (66, 66, -310), (54, 58, -346)], side)
        rami = np.maximum(tube(h, pubis, (10, 8, 10, 9, 6, 7)), tube(h, ischium, (15, 13, 14)))
        fixed = np.maximum(cup, rami)
        head = np.asarray(24.5 - r, np.float32)
        stem = _sided([(x, y, z), (118, 42, -294), (126, 44, -318), (116, 40, -480)], side)
        moving = np.maximum(head, tube(h, stem, (14, 16, 18, 14)))
        moving = np.maximum(moving, ellipsoid(h, (side * 128.0, 52.0, -296.0), (14, 18, 22)))
        layers += [
            (Organ.MUSCLE, h.field(inner)),
            (Organ.BONE_CORTICAL, h.field(fixed)),
            (Organ.BONE_SPONGY, h.field(fixed - np.float32(2.6))),
            (Organ.BONE_CORTICAL, h.field(moving)),
            (Organ.BONE_SPONGY, h.field(np.minimum(moving - 3, (h.z + 345) * 0.4))),
            (Organ.FAT, h.field(np.minimum(moving - 6, -(h.z + 345) * 0.4))),
        ]
    layers += [(Organ.BONE_CORTICAL, p.field(wing)), (Organ.BONE_SPONGY, p.field(wing - np.float32(2.4)))]
    return layers + _sacrum(f)


def gluteal_fat(whole: Frame, cavity: Cavity, patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Planes of fat between the muscles of buttock and thigh, and the fat beside the anus and in the groins."""
    f = whole.crop((-300, -200, -600), (300, 200, CREST_Z_MM - 20), margin=0)
    if f.x.size == 0:
        return []
    muscle = np.minimum(muscle_surface(f, patient), -cavity.on(f).inside - 4)
    sheets = 0.16 - np.abs(smooth_noise(rng, f.axes_mm, 34.0) - 0.2)
    clefts = 0.13 - np.abs(smooth_noise(rng, f.axes_mm, 46.0))
    planes = np.minimum(np.maximum(sheets, clefts) * 12, muscle - 2)
    fossa = np.minimum(19 - np.hypot((np.abs(f.x) - 26) * 0.8, (f.y - 70) * 0.6), np.minimum(-278 - f.z, f.z + 345))
    groin = 13 - np.hypot(np.abs(f.x) - 66, (f.y + 34) * 0.9)
    groin = np.minimum(groin, -270 - f.z)
    return [
        (Organ.FAT, f.field(planes.astype(np.float32))),
        (Organ.FAT, f.field(np.maximum(fossa, groin).astype(np.float32))),
    ]


def pelvic_organs(f: Frame, rng: np.random.Generator) -> list[Layer]:
    """Bladder from nearly empty to full, womb or prostate, rectum with stool and gas."""
    p = f.crop((-75, -90, -330), (75, 110, -180))
    fill = float(rng.uniform(0.15, 1.0))
    tall = 12 + 44 * fill * float(rng.uniform(0.75, 1.15))
    wide, deep = 24 + 30 * fill, 18 + 24 * fill
    lean, lift = float(rng.normal(0, 6)), float(rng.normal(0, 5))
    female = bool(rng.random() < 0.45)
    womb = (float(rng.normal(0, 10)), float(rng.normal(36, 6)), float(rng.normal(-246, 8)))
    size = float(rng.uniform(0.75, 1.35))
    stool, gas = float(rng.uniform(-0.8, 1.2)), float(rng.uniform(-2.2, 0.4))
    width = float(rng.uniform(11, 22))
    if p.x.size == 0:
        return []
    layers: list[Layer] = []
    if female:
        layers.append((Organ.PELVIC_ORGAN, p.field(ellipsoid(p, womb, (27 * size, 20 * size, 32 * size)))))
    else:
        layers.append((Organ.PELVIC_ORGAN, p.field(ellipsoid(p, (0, 8, -306), (22 * size, 18 * size, 18 * size)))))
    bladder = ellipsoid(p, (lean, -8 + 0.25 * deep, -298 + tall + lift), (wide, deep, tall))
    layers += [(Organ.BOWEL_WALL, p.field(bladder + np.float32(2.5))), (Organ.BLADDER, p.field(bladder))]
    points: list[Point] = [(0, 60, -330), (0, 66, -300), (3, 70, -262), (-6, 62, -225), (14, 46, -205)]
    lumps = 3.0 * smooth_noise(rng, p.axes_mm, 22.0)
    depth = tube(p, points, (9, width, width + 3, width * 0.85, width * 0.8)) + lumps
    clumps = smooth_noise(rng, p.axes_mm, 14.0)
    layers += [
        (Organ.BOWEL_WALL, p.field(depth)),
        (Organ.STOOL if stool > 0 else Organ.BOWEL_CONTENT, p.field(depth - np.float32(3.5))),
        (Organ.GAS, p.field(np.minimum(depth - 3.5, (clumps + gas) * 6 - (p.y - 62) * 0.4))),
    ]
    return layers
