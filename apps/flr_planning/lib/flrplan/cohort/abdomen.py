"""The organs around the liver: spleen, kidneys, stomach, pancreas, bowel with gas and stool."""

from __future__ import annotations

import numpy as np

from flrplan.cohort.fields import Frame
from flrplan.cohort.liver import LiverFields, LiverShape
from flrplan.cohort.organs import Organ
from flrplan.cohort.patient import Patient
from flrplan.cohort.shapes import Point, ellipsoid, smooth_cut, smooth_union, tilted_ellipsoid, tube, tube_frame
from flrplan.cohort.trunk import Cavity, Layer
from flrplan.image.smooth_noise import FloatArray, smooth_noise

_APART_MM = np.float32(1.0)
"""Fat between the liver and an organ that it presses on."""


def _jitter(rng: np.random.Generator, point: Point, sd: float) -> Point:
    x, y, z = rng.normal(point, sd)
    return (float(x), float(y), float(z))


def _spleen(f: Frame, cavity: Cavity, liver: LiverFields, rng: np.random.Generator) -> list[Layer]:
    s = f.crop((40, -50, -80), (140, 95, 100))
    if s.x.size == 0:
        return []
    c = cavity.on(s)
    size = float(np.clip(rng.normal(1.0, 0.14), 0.7, 1.4))
    body = tilted_ellipsoid(s, _jitter(rng, (96, 32, 14), 5), (30 * size, 46 * size, 50 * size), 0.45, 0.15)
    body = smooth_cut(body, -ellipsoid(s, _jitter(rng, (56, -4, 14), 6), (42, 44, 60)), 8)
    body = smooth_cut(body, np.minimum(c.inside - 2, (c.lung_floor_mm - s.z - 1) * 0.75), 6)
    return [(Organ.SPLEEN, s.field(smooth_cut(body, -liver.on(s) - _APART_MM, 4)))]


def _kidneys(f: Frame, shape: LiverShape, rng: np.random.Generator) -> list[Layer]:
    layers: list[Layer] = []
    right = shape.kidney_right
    left = _jitter(rng, (62, 46, right[2] + 16), 5)
    size = float(np.clip(rng.normal(1.0, 0.1), 0.75, 1.25))
    for side, centre in ((-1, right), (1, left)):
        k = f.crop(tuple(np.subtract(centre, 60)), tuple(np.add(centre, 60)), margin=16)
        if k.x.size == 0:
            continue
        outer = tilted_ellipsoid(k, centre, (27 * size, 25 * size, 53 * size), side * 0.5, -side * 0.2)
        sinus = ellipsoid(k, (centre[0] - side * 17, centre[1] - 10, centre[2]), (17, 15, 22))
        outer = smooth_cut(outer, -sinus, 5)
        lumps = smooth_noise(rng, k.axes_mm, 16.0)
        layers += [
            (Organ.KIDNEY_CORTEX, k.field(outer)),
            (Organ.KIDNEY_MEDULLA, k.field(np.minimum(outer - 6, lumps * 6 + 2))),
        ]
    return layers


def _hollow(f: Frame, depth: FloatArray, wall: float, fill: Organ, gas_above_y: float) -> list[Layer]:
    """Wall, content and gas of a hollow organ; gas collects in front, the patient lies on the back."""
    return [
        (Organ.BOWEL_WALL if fill is not Organ.STOMACH_CONTENT else Organ.STOMACH_WALL, f.field(depth)),
        (fill, f.field(depth - wall)),
        (Organ.GAS, f.field(np.minimum(depth - wall, gas_above_y - f.y))),
    ]


def _stomach(f: Frame, cavity: Cavity, liver: LiverFields, rng: np.random.Generator) -> list[Layer]:
    s = f.crop((-30, -100, -80), (125, 60, 90))
    if s.x.size == 0:
        return []
    c = cavity.on(s)
    full = float(np.clip(rng.normal(0.95, 0.25), 0.5, 1.5))
    fundus = _jitter(rng, (62, 2, 30), 7)
    fundus_part = ellipsoid(s, fundus, (32 * full + 4, 36 * full, 36 * full))
    bend = _jitter(rng, (48, -48, -18), 10)
    antrum = _jitter(rng, (4, -46, -34), 8)
    body = tube(s, (fundus, bend, antrum, (-24, -26, -28)), (24 * full, 22 * full, 15 * full, 9))
    depth = smooth_union(fundus_part, body, 14)
    depth = smooth_cut(depth, np.minimum(c.inside - 3, (c.lung_floor_mm - s.z - 3) * 0.75), 8)
    depth = depth + np.float32(2.5) * smooth_noise(rng, s.axes_mm, 12.0)
    depth = smooth_cut(depth, -liver.on(s) - _APART_MM, 6)
    level = float(rng.choice([-120.0, rng.uniform(-70, -30), rng.uniform(-40, 0)], p=[0.25, 0.5, 0.25]))
    return _hollow(s, depth, float(rng.uniform(4, 7)), Organ.STOMACH_CONTENT, level)


def _colon(f: Frame, cavity: Cavity, patient: Patient, shape: LiverShape, rng: np.random.Generator) -> list[Layer]:
    """Ascending colon under the liver, transverse colon behind the front wall, descending and sigmoid colon."""
    layers: list[Layer] = []
    right = _jitter(rng, (-90, -24, min(shape.tip + 4, -50)), 7)
    left = _jitter(rng, (94, -10, 2), 8)
    front = -72 - 0.65 * patient.belly_mm
    sag = float(np.clip(rng.normal(-30, 34), -120, 12))
    paths: tuple[tuple[Point, ...], ...] = (
        (right, _jitter(rng, (-96, 0, -118), 6), _jitter(rng, (-88, -8, -160), 7), _jitter(rng, (-78, -14, -192), 8)),
        (
            right,
            _jitter(rng, (-48, front, -66 + 0.7 * sag), 9),
            _jitter(rng, (8, front - 6, -62 + sag), 9),
            _jitter(rng, (62, front + 8, -42 + 0.6 * sag), 10),
            left,
        ),
        (left, _jitter(rng, (106, 26, -50), 5), _jitter(rng, (105, 26, -120), 5), _jitter(rng, (92, 4, -178), 7)),
        (
            (92, 4, -178),
            _jitter(rng, (62, 6, -205), 9),
            _jitter(rng, (20, -10, -190), 14),
            _jitter(rng, (-16, 18, -200), 14),
            (14, 46, -205),
        ),
    )
    for part, points in enumerate(paths):
        width = float(rng.uniform(18, 32) if part == 0 else rng.uniform(12, 25) if part == 1 else rng.uniform(9, 20))
        fluid, gassy = bool(rng.random() < 0.4), float(rng.uniform(-2.4, 1.0))
        t = tube_frame(f, points, width + 6)
        if t.x.size == 0:
            continue
        haustra = 4.0 * smooth_noise(rng, t.axes_mm, 26.0)
        depth = tube(t, points, [width] * len(points)) + haustra
        depth = np.minimum(depth, cavity.on(t).inside - 2).astype(np.float32)
        clumps = smooth_noise(rng, t.axes_mm, 13.0)
        middle = float(np.mean([p[1] for p in points]))
        gas = np.minimum(depth - 3, (clumps + gassy) * 5 - (t.y - middle) * (0.9 if fluid else 0.35))
        layers += [
            (Organ.BOWEL_WALL, t.field(depth)),
            (Organ.BOWEL_CONTENT if fluid else Organ.STOOL, t.field(depth - np.float32(3))),
            (Organ.GAS, t.field(np.asarray(gas, np.float32))),
        ]
    return layers


def _small_bowel(f: Frame, cavity: Cavity, patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Collapsed bowel as winding sheets, and over it filled loops, each a tube of its own."""
    front = -78 - 0.7 * max(patient.belly_mm, 0)
    b = f.crop((-115, front - 30, -290), (115, 60, 0))
    if b.x.size == 0:
        return []
    # Bowel hangs on the mesentery in the middle: fat lies between and behind it, the more the larger the belly.
    roof = -22 + 0.25 * b.x - b.z
    reach = np.minimum(cavity.on(b).inside - 5, np.minimum(roof, 30 - b.y))
    sheets = smooth_noise(rng, b.axes_mm, 26.0)
    amount = float(rng.uniform(-0.4, 0.3)) - 0.006 * patient.belly_mm
    depth = np.minimum(reach, (0.45 - np.abs(sheets - 0.35) + amount * 0.6) * 13).astype(np.float32)
    layers: list[Layer] = [(Organ.BOWEL_WALL, b.field(depth)), (Organ.BOWEL_CONTENT, b.field(depth - np.float32(2.8)))]
    width, gassy = float(rng.uniform(8.5, 15)), float(rng.uniform(8, 30))
    for _ in range(int(rng.integers(6, 24))):
        point = np.array([rng.uniform(-85, 90), rng.uniform(front, 10), rng.uniform(-250, -55)])
        heading, points = rng.normal(0, 1, 3), [point]
        for _ in range(int(rng.integers(3, 7))):
            heading = 0.75 * heading / np.linalg.norm(heading) + rng.normal(0, 0.45, 3)
            point = np.clip(point + 26 * heading, (-100, front, -275), (100, 25, -50))
            points.append(point)
        path: list[Point] = [(float(p[0]), float(p[1]), float(p[2])) for p in points]
        radius = width * float(np.clip(rng.normal(1, 0.18), 0.6, 1.5))
        gas_above = float(np.min([p[1] for p in path])) - radius + gassy * float(rng.uniform(0, 1))
        t = tube_frame(f, path, radius + 5)
        if t.x.size == 0:
            continue
        folds = 1.8 * smooth_noise(rng, t.axes_mm, 13.0)
        roof = -30 + 0.25 * t.x - t.z
        loop = np.minimum(tube(t, path, [radius] * len(path)) + folds, np.minimum(cavity.on(t).inside - 4, roof))
        layers += _hollow(t, np.asarray(loop, np.float32), 2.6, Organ.BOWEL_CONTENT, gas_above)
    return layers


def abdominal_organs(
    f: Frame, cavity: Cavity, patient: Patient, shape: LiverShape, liver: LiverFields, rng: np.random.Generator
) -> list[Layer]:
    """Layers in painting order; stomach and spleen give way to the liver, which overrides what else reaches into it."""
    layers = _small_bowel(f, cavity, patient, rng)
    layers += _colon(f, cavity, patient, shape, rng)
    layers += _kidneys(f, shape, rng)
    duct = (_jitter(rng, (-36, -4, -36), 4), _jitter(rng, (-40, 8, -70), 5), _jitter(rng, (-4, 6, -86), 6), (24, -10, -74))
    d = tube_frame(f, duct, 14)
    layers += _hollow(d, tube(d, duct, (11, 12, 11, 11)), 3.0, Organ.BOWEL_CONTENT, -30.0)
    gland = (_jitter(rng, (-26, -6, -46), 4), _jitter(rng, (4, -18, -26), 5), _jitter(rng, (40, -6, -8), 5), (74, 18, 8))
    p = tube_frame(f, gland, 16)
    layers.append((Organ.PANCREAS, p.field(tube(p, gland, (15, 10, 9, 8)) + 2.0 * smooth_noise(rng, p.axes_mm, 12.0))))
    vein = ((4.0, -2.0, -38.0), (34.0, 4.0, -14.0), (76.0, 24.0, 8.0))
    v = tube_frame(f, vein, 6)
    layers.append((Organ.PORTAL_TRUNK, v.field(tube(v, vein, (6, 5, 4)))))
    mesentery = ((4.0, 2.0, -38.0), (10.0, -12.0, -110.0), (0.0, -14.0, -180.0))
    m = tube_frame(f, mesentery, 6)
    layers.append((Organ.PORTAL_TRUNK, m.field(tube(m, mesentery, (6, 5, 3)))))
    layers += _spleen(f, cavity, liver, rng)
    layers += _stomach(f, cavity, liver, rng)
    return layers
