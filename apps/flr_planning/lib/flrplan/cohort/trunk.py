"""The trunk: skin, fat, muscle wall, ribs, spine, lungs with their domes, heart and great vessels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flrplan.cohort.fields import Field, Frame
from flrplan.cohort.landmarks import FLOOR_Z_MM, FORK_Z_MM, SACRUM_Z_MM, descent
from flrplan.cohort.organs import Organ
from flrplan.cohort.patient import BACK_MUSCLE_MM, CAVITY_CENTRE_Y_MM, CAVITY_RADII_MM, Patient
from flrplan.cohort.shapes import ellipsoid, smooth_cut, smooth_union, tilted_ellipsoid, tube, tube_frame
from flrplan.image.smooth_noise import AxisArray, FloatArray, smooth_noise

Layer = tuple[Organ, Field]

SPINE_Y_MM = 60.0
"""Middle of the vertebral bodies."""

CAVA_POINTS: tuple[tuple[float, float, float], ...] = (
    (-20, 27, -260),
    (-22, 26, -60),
    (-24, 20, 0),
    (-22, 14, 62),
    (-14, 4, 92),
)
CAVA_RADII: tuple[float, ...] = (10.5, 10.5, 11.5, 13, 14)
AORTA_POINTS: tuple[tuple[float, float, float], ...] = ((6, 31, -150), (9, 32, -40), (13, 33, 40), (20, 40, 120), (20, 40, 260))
AORTA_RADII: tuple[float, ...] = (8.5, 9.5, 11, 12, 12.5)
OESOPHAGUS_POINTS: tuple[tuple[float, float, float], ...] = ((22, 10, 48), (4, 22, 80), (2, 24, 260))
OESOPHAGUS_RADII: tuple[float, ...] = (9, 8, 8)


@dataclass(frozen=True)
class Cavity:
    """The inside of the trunk wall (depth in mm) and the height of the lungs' lower surface above a point (mm)."""

    inside: FloatArray
    lung_floor_mm: FloatArray
    axes_mm: tuple[AxisArray, AxisArray, AxisArray]

    def on(self, part: Frame) -> Cavity:
        """The cavity on a part of its frame, as ``Frame.crop`` gives it."""
        cuts = []
        for whole, piece in zip(self.axes_mm, part.axes_mm, strict=True):
            start = int(np.searchsorted(whole, piece[0])) if piece.size else 0
            cuts.append(slice(start, start + piece.size))
        cut = (cuts[0], cuts[1], cuts[2])
        return Cavity(self.inside[cut], self.lung_floor_mm[cut], part.axes_mm)


def _outline(
    f: Frame,
    centre_y: float,
    radii: tuple[float, float],
    power: float = 2.35,
    belly: float = 0.0,
    hips: float = 0.0,
    back: float = 0.0,
) -> FloatArray:
    """Depth below an upright hull: narrow at the shoulders and the waist, ``hips`` wider at the hips, with a ``belly``."""
    below = descent(f.z, -130, -270)
    taper = 1 - 0.26 * np.clip((f.z - 70) / 190, 0, 1) ** 2 - 0.05 * np.clip((-40 - f.z) / 60, 0, 1) + hips * below
    paunch = belly * np.exp(-(((f.z + 85) / np.where(f.z > -85, 85.0, 95.0)) ** 2))
    front = radii[1] * (1 - 0.14 * below) + paunch
    dy = f.y - centre_y
    # The long muscles of the back bulge on either side of the spine.
    depth = np.where(dy < 0, front, radii[1] + back * np.exp(-(((np.abs(f.x) - 30) / 60) ** 2)))
    width = radii[0] * taper + 0.3 * paunch
    r = (np.abs(f.x / width) ** power + np.abs(dy / depth) ** power) ** (1 / power)
    return np.asarray((1 - r) * min(radii), np.float32)


def _thighs(f: Frame, radii: tuple[float, float]) -> FloatArray:
    r = np.sqrt(((np.abs(f.x) - 0.53 * radii[0]) / (0.51 * radii[0])) ** 2 + ((f.y - 10) / (0.72 * radii[1])) ** 2)
    return np.asarray((1 - r) * 0.5 * radii[0], np.float32)


def _hull(f: Frame, patient: Patient, radii: tuple[float, float], centre_y: float, power: float) -> FloatArray:
    """A surface outside the cavity, which parts into the thighs."""
    trunk = _outline(f, centre_y, radii, power, patient.belly_mm, 0.04, BACK_MUSCLE_MM)
    legs = descent(f.z, FORK_Z_MM + 45, FORK_Z_MM - 15)
    return np.asarray(trunk * (1 - legs) + _thighs(f, radii) * legs, np.float32)


def muscle_surface(f: Frame, patient: Patient) -> FloatArray:
    """Depth in mm below the common surface of the muscles of trunk, buttocks and thighs."""
    wall = patient.wall_mm
    return _hull(f, patient, (CAVITY_RADII_MM[0] + wall, CAVITY_RADII_MM[1] + wall + 8), -2.0, 2.35)


def _dome(f: Frame, top: float, x0: float, width: float, drop: float) -> FloatArray:
    dy = f.y + 14.0
    q = ((f.x - x0) / width) ** 2 + (dy / np.where(dy > 0, 96.0, 100.0)) ** 2
    inner = top - drop * (1 - np.sqrt(np.clip(1 - q, 0, 1)))
    return np.asarray(np.where(q < 1, inner, top - drop - 60 * (np.sqrt(q) - 1)), np.float32)


def make_cavity(f: Frame, patient: Patient) -> Cavity:
    """The cavity on this frame; costly, so it is made once on the whole frame and cut by :meth:`Cavity.on`."""
    right = _dome(f, patient.dome_right_mm, -64, 82, 92)
    left = _dome(f, patient.dome_left_mm, 72, 74, 84)
    # Under the heart the diaphragm is a flat saddle between the domes.
    saddle = patient.dome_left_mm - patient.saddle_mm - 26 * (((f.x - 8) / 58) ** 2 + ((f.y + 42) / 66) ** 2)
    floor = smooth_union(np.maximum(right, left), saddle.astype(np.float32), 14)
    inside = _outline(f, CAVITY_CENTRE_Y_MM, CAVITY_RADII_MM, belly=patient.belly_mm, hips=-0.42)
    bowl = FLOOR_Z_MM + np.minimum(0.010 * (f.x**2 + (f.y - 20) ** 2), 60)
    inside = np.minimum(inside, ((f.z - bowl) * 0.7).astype(np.float32))
    return Cavity(inside, floor, f.axes_mm)


def _ribs(f: Frame, inside: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """(bony part, cartilage) of the ribs: slanted stripes of a layer just outside the cavity."""
    pitch, drop = rng.uniform(24, 29), rng.uniform(100, 165)
    around = np.arctan2(np.abs(f.x), f.y + 12) / np.float32(np.pi)  # 0 at the spine, 1 at the breast bone
    phase = (f.z + drop * around) / pitch + rng.random()
    stripe = (0.21 - np.abs(phase - np.floor(phase) - 0.5)) * pitch
    layer = 3.9 - np.abs(inside + 5.5)
    # The costal margin climbs to the front; ribs end where the loins begin.
    margin = np.minimum((f.z + 100 + 0.95 * np.minimum(f.y, 20)) * 0.7, f.z + 105)
    rib = np.minimum(np.minimum(stripe, layer), margin)
    rib = np.minimum(rib, np.abs(f.x) - 18)
    front = (-46 - f.y) * 0.8
    return np.minimum(rib, -front).astype(np.float32), np.minimum(rib, front).astype(np.float32)


def _spine(f: Frame, rng: np.random.Generator) -> list[Layer]:
    s = f.crop((-42, SPINE_Y_MM - 22, SACRUM_Z_MM), (42, 122, 500))
    if s.x.size == 0:
        return []
    pitch = rng.uniform(30, 36)
    phase = s.z / pitch + rng.random()
    gap = (np.abs(phase - np.floor(phase) - 0.5) - 0.11) * pitch
    waist = 2.0 * np.cos(2 * np.pi * phase)
    body = (1 - np.sqrt((s.x / 22) ** 2 + ((s.y - SPINE_Y_MM) / 17) ** 2)) * 17 - waist.astype(np.float32)
    vertebra = np.minimum(body, gap)
    canal_r = np.sqrt(s.x**2 + (s.y - SPINE_Y_MM - 25) ** 2)
    arch = np.minimum(14.5 - canal_r, np.abs(phase - np.floor(phase) - 0.35) * pitch - 3)
    blade = np.minimum(np.minimum(4.2 - np.abs(s.x), 118 - s.y), s.y - SPINE_Y_MM - 34)
    blade = np.minimum(blade, np.abs(phase - np.floor(phase) - 0.3) * pitch - 4)
    wing = np.minimum(np.minimum(5 - np.abs(s.y - SPINE_Y_MM - 22 - 0.1 * np.abs(s.x)), 36 - np.abs(s.x)), np.abs(s.x) - 10)
    wing = np.minimum(wing, 6.0 - np.abs(phase - np.floor(phase) - 0.75) * pitch)
    back = np.maximum(np.maximum(arch, blade), wing)
    end = (s.z - SACRUM_Z_MM).astype(np.float32)
    body, vertebra, back = np.minimum(body, end), np.minimum(vertebra, end), np.minimum(back, end)
    return [
        (Organ.DISC, s.field(body)),
        (Organ.BONE_CORTICAL, s.field(np.maximum(vertebra, back))),
        (Organ.BONE_SPONGY, s.field(np.maximum(vertebra - 2.2, back - 3.4))),
        (Organ.SPINAL_CANAL, s.field(np.minimum(9.5 - canal_r, end))),
    ]


def trunk_shell(f: Frame, cavity: Cavity, patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Skin, fat, muscle wall, inner fat, lungs; painted before any organ."""
    radii = patient.body_radii_mm
    skin = _hull(f, patient, radii, 2.0, 2.25)
    muscle = muscle_surface(f, patient)
    layers: list[Layer] = [
        (Organ.SKIN, f.field(skin)),
        (Organ.FAT, f.field(skin - 2.4)),
        (Organ.MUSCLE, f.field(np.minimum(muscle, skin - 3.5))),
        (Organ.VISCERAL_FAT, f.field(np.minimum(cavity.inside, skin - 8))),
    ]
    blade = f.crop((-160, 20, 95), (160, 110, 400))
    if blade.x.size:
        inside = cavity.on(blade).inside
        shoulder = np.minimum(np.minimum(4.5 - np.abs(inside + 16), blade.z - 120), 40 - np.abs(np.abs(blade.x) - 88))
        layers += [(Organ.BONE_CORTICAL, blade.field(shoulder))]
    if patient.arms:
        for side in (-1, 1):
            x = side * (radii[0] + 46)
            a = f.crop((x - 45, -40, -500), (x + 45, 60, 500))
            r = np.sqrt((a.x - x) ** 2 + (a.y - 12) ** 2)
            for organ, radius in (
                (Organ.SKIN, 40),
                (Organ.FAT, 38),
                (Organ.MUSCLE, 33),
                (Organ.BONE_CORTICAL, 11),
                (Organ.FAT, 6),
            ):
                layers.append((organ, a.field(np.asarray(radius - r, np.float32))))
    upper = f.crop((-200, -200, -60), (200, 200, 500))
    if upper.x.size:
        c = cavity.on(upper)
        heartbed = 1 - np.sqrt(((upper.x - 4) / 30) ** 2 + ((upper.y + 4) / 92) ** 2)
        narrow = 1 - np.sqrt((upper.x / 30) ** 2 + ((upper.y - 52) / 34) ** 2)
        bed = np.maximum(heartbed, narrow) * 30
        lung = np.minimum(c.inside - 1.5, (upper.z - c.lung_floor_mm - 1.5) * 0.7)
        lung = smooth_cut(lung, np.asarray(-bed, np.float32), 8)
        layers.append((Organ.LUNG, upper.field(lung)))
    return layers


def heart_and_vessels(f: Frame, cavity: Cavity, patient: Patient, rng: np.random.Generator) -> list[Layer]:
    """Heart on the diaphragm between the lungs, oesophagus, aorta, cava."""
    layers: list[Layer] = []
    h = f.crop((-60, -95, 20), (110, 60, 210))
    if h.x.size:
        c = cavity.on(h)
        base = patient.dome_left_mm - 18
        size = rng.uniform(0.88, 1.12)
        centre = (22.0, -30.0, base + 46)
        bag = tilted_ellipsoid(h, centre, (66 * size, 52 * size, 56 * size), 0.5, -0.25)
        bag = smooth_cut(
            np.minimum(bag, c.inside - 3), np.asarray(h.z - np.maximum(base - 2, c.lung_floor_mm - 2), np.float32), 8
        )
        left = tilted_ellipsoid(h, (40.0, -38.0, base + 38), (44 * size, 30 * size, 34 * size), 0.55, -0.2)
        right = tilted_ellipsoid(h, (-4.0, -40.0, base + 40), (34 * size, 30 * size, 38 * size), 0.4, 0.0)
        atrium = ellipsoid(h, (6, 4, base + 66), (34 * size, 24 * size, 26 * size))
        layers += [
            (Organ.VISCERAL_FAT, h.field(bag)),
            (Organ.HEART_WALL, h.field(np.minimum(np.maximum(np.maximum(left, right), atrium) + 7, bag - 3))),
            (Organ.HEART_BLOOD, h.field(np.minimum(np.maximum(np.maximum(left - 4, right + 2), atrium + 2), bag - 6))),
        ]
    o = tube_frame(f, ((2, 36, 60), (12, 34, 260)), 10)
    oesophagus = tube(o, OESOPHAGUS_POINTS, OESOPHAGUS_RADII)
    layers += [(Organ.OESOPHAGUS, o.field(oesophagus))]
    layers += great_vessels(f)
    return layers


def great_vessels(f: Frame) -> list[Layer]:
    """Aorta with its iliac branches and the lower cava; painted after the liver as well, which they border."""
    layers: list[Layer] = []
    for organ, points, radii in ((Organ.CAVA, CAVA_POINTS, CAVA_RADII), (Organ.AORTA, AORTA_POINTS, AORTA_RADII)):
        t = tube_frame(f, points, 14)
        layers.append((organ, t.field(tube(t, points, radii))))
    for side in (-1, 1):
        points = ((6.0, 31.0, -150.0), (6.0 + side * 28, 30.0, -195.0), (side * 62.0, -10.0, -255.0))
        t = tube_frame(f, points, 8)
        layers.append((Organ.AORTA, t.field(tube(t, points, (7, 6, 5)))))
    return layers


def skeleton(f: Frame, cavity: Cavity, rng: np.random.Generator) -> list[Layer]:
    """Spine, ribs, breast bone, psoas; painted last, so that nothing grows through bone."""
    layers: list[Layer] = []
    for side in (-1, 1):
        points = ((side * 27.0, SPINE_Y_MM - 2, -25.0), (side * 40.0, SPINE_Y_MM - 6, -110.0), (side * 62.0, 26.0, -225.0))
        p = tube_frame(f, points, 24)
        layers.append((Organ.MUSCLE, p.field(tube(p, points, (7, 20, 22)))))
        loin = ((side * 62.0, 74.0, -20.0), (side * 68.0, 76.0, -122.0))
        q = tube_frame(f, loin, 20)
        layers.append((Organ.MUSCLE, q.field(tube(q, loin, (8, 17)))))
        crus = ((side * 16.0, 40.0, -50.0), (side * 17.0 + 2, 34.0, 10.0), (side * 14.0 + 6, 24.0, 48.0))
        k = tube_frame(f, crus, 8)
        layers.append((Organ.MUSCLE, k.field(tube(k, crus, (6, 6, 4)))))
    above = int(np.searchsorted(f.axes_mm[0], -140 * f.scale_xyz[2]))
    r = replace(f, x=f.x[above:], y=f.y[above:], z=f.z[above:], axes_mm=(f.axes_mm[0][above:], *f.axes_mm[1:]))
    bone, cartilage = _ribs(r, cavity.inside[above:], rng)
    layers += [
        (Organ.CARTILAGE, r.field(cartilage)),
        (Organ.BONE_CORTICAL, r.field(bone)),
        (Organ.BONE_SPONGY, r.field(bone - 2.1)),
    ]
    s = f.crop((-25, -130, 25), (25, -60, 400))
    if s.x.size:
        plate = 5.0 - np.abs(_outline(s, CAVITY_CENTRE_Y_MM, CAVITY_RADII_MM) + 7)
        plate = np.minimum(np.minimum(plate, 19 - np.abs(s.x)), np.minimum(s.z - 38, -s.y - 40)).astype(np.float32)
        layers += [(Organ.BONE_CORTICAL, s.field(plate)), (Organ.BONE_SPONGY, s.field(plate - np.float32(2)))]
    return layers + _spine(f, rng)


def tangle(f: Frame, rng: np.random.Generator, lattice_mm: float) -> tuple[Field, Field]:
    """Two smooth fields; where both are near zero there are thin winding vessels."""
    return f.field(smooth_noise(rng, f.axes_mm, lattice_mm)), f.field(smooth_noise(rng, f.axes_mm, lattice_mm))
