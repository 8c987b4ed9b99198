"""The liver, its gallbladder and veins, and the four sectors that the hepatic veins divide it into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from flrplan.cohort.fields import Field, FloatArray, Frame
from flrplan.cohort.patient import Patient
from flrplan.cohort.shapes import ellipsoid, smooth_cut, smooth_union, tilted_ellipsoid, tube, tube_within
from flrplan.cohort.trunk import AORTA_POINTS, AORTA_RADII, CAVA_POINTS, CAVA_RADII, SPINE_Y_MM, Cavity
from flrplan.labels import Mask


class Sector(str, Enum):
    """A part of the liver between hepatic veins. The caudate lobe counts to the side it lies on."""

    RIGHT_POSTERIOR = "right posterior"
    RIGHT_ANTERIOR = "right anterior"
    LEFT_MEDIAL = "left medial"
    LEFT_LATERAL = "left lateral"


RIGHT_SIDE = frozenset({Sector.RIGHT_POSTERIOR, Sector.RIGHT_ANTERIOR})
LEFT_SIDE = frozenset({Sector.LEFT_MEDIAL, Sector.LEFT_LATERAL})


@dataclass(frozen=True)
class LiverShape:
    """What differs from liver to liver, mm of body coordinates."""

    right_radii: tuple[float, float, float]
    left_length: float
    left_radii_yz: tuple[float, float]
    left_tilt: float
    tip: float
    slope: float
    curve: float
    gallbladder: tuple[float, float, float]
    gallbladder_radii: tuple[float, float, float]
    bridge_radii: tuple[float, float, float]
    fissure_x: float
    fissure_depth: float
    kidney_right: tuple[float, float, float]

    @property
    def cava(self) -> tuple[float, float, float]:
        """Where the hepatic veins join the cava: the three vein surfaces meet in the vertical line through it."""
        return (-22.0, 14.0, 58.0)


def draw_liver_shape(rng: np.random.Generator) -> LiverShape:
    """A liver; from small left lobes to ones that reach the spleen."""

    def n(mean: float, sd: float) -> float:
        return float(rng.normal(mean, sd))

    return LiverShape(
        right_radii=(float(np.clip(n(80, 6), 66, 96)), n(98, 6), n(104, 10)),
        left_length=float(np.clip(n(84, 18), 45, 122)),
        left_radii_yz=(float(np.clip(n(47, 6), 34, 60)), float(np.clip(n(38, 6), 26, 52))),
        left_tilt=float(rng.normal(-0.12, 0.12)),
        tip=float(np.clip(n(-66, 17), -112, -35)),
        slope=float(np.clip(n(0.42, 0.12), 0.15, 0.75)),
        curve=float(rng.uniform(0.002, 0.0055)),
        gallbladder=(n(-50, 8), n(-48, 8), n(-26, 8)),
        gallbladder_radii=(float(rng.uniform(9, 19)), float(rng.uniform(18, 34)), float(rng.uniform(14, 26))),
        bridge_radii=(n(56, 5), float(np.clip(n(36, 7), 18, 50)), float(np.clip(n(33, 6), 18, 48))),
        fissure_x=n(8, 6),
        fissure_depth=float(np.clip(rng.normal(0, 13), -30, 28)),
        kidney_right=(n(-64, 4), n(48, 5), n(-62, 13)),
    )


@dataclass(frozen=True)
class LiverFields:
    """Fields of the liver on its frame; ``right`` > 0 right of Cantlie's plane, ``posterior`` > 0 behind the right vein's
    surface, ``lateral`` > 0 left of the fissure, ``upper`` > 0 above the portal plane.
    """

    frame: Frame
    liver: Field
    gallbladder: Field
    gallbladder_lumen: Field
    right: Field
    posterior: Field
    lateral: Field
    upper: Field
    portal: Field
    hepatic: Field
    portal_trunk: Field


def _plane(f: Frame, a: tuple[float, float, float], b: tuple[float, float, float], lean: float) -> FloatArray:
    """Depth in mm on the one side (the right, for a line that runs to the front; the back, for one to the right) of the upright
    surface through ``a`` and ``b`` seen from above, leaning ``lean`` mm per mm height.
    """
    d = np.array([b[0] - a[0], b[1] - a[1]])
    d /= np.linalg.norm(d)
    return np.asarray(d[1] * (f.x - a[0] - lean * f.z) - d[0] * (f.y - a[1]), np.float32)


def make_liver(whole: Frame, cavity: Cavity, patient: Patient, shape: LiverShape) -> LiverFields:
    """All liver fields on the part of the frame that a liver can take."""
    f = whole.crop((-150, -115, -125), (130, 95, 120), margin=16)
    inner = cavity.on(f)
    right = ellipsoid(f, (-66, -2, 0), shape.right_radii)
    along = f.x + 120
    floor = shape.tip + shape.slope * along + shape.curve * np.clip(f.x + 72, 0, 130) ** 2 + 0.06 * f.y
    steep = np.sqrt(1 + (shape.slope + 2 * shape.curve * np.clip(f.x + 72, 0, 130)) ** 2)
    right = smooth_cut(right, np.asarray((f.z - floor) / steep, np.float32), 14)
    left = tilted_ellipsoid(
        f, (shape.left_length * 0.12, -50, 25), (shape.left_length, *shape.left_radii_yz), -0.12, shape.left_tilt
    )
    # Between the lobes, to a varying degree: livers without it are notched in front.
    bridge = ellipsoid(f, (-16, -54, 29), shape.bridge_radii)
    left = smooth_union(left, bridge, 12)
    caudate = ellipsoid(f, (-10, 8, 24), (19, 18, 26))
    liver = smooth_union(smooth_union(right, left, 16), caudate, 10)
    # Fat between liver and abdominal wall, hardly any in the lean.
    gap = np.float32(np.clip(1.5 + 0.04 * patient.belly_mm, 0.8, 3.0))
    liver = smooth_cut(liver, inner.inside - gap, 8)
    liver = smooth_cut(liver, (inner.lung_floor_mm - f.z - np.float32(1.0)) * np.float32(0.75), 6)

    g, r = shape.gallbladder, shape.gallbladder_radii
    gallbladder = tilted_ellipsoid(f, (g[0], g[1] + 8, g[2] - 4), r, -0.35, 0.25)
    hilum = ellipsoid(f, (-24, -8, -13), (17, 18, 16))
    k = shape.kidney_right
    # Behind and beside the kidney there is no liver, so the bed is wider than the kidney.
    kidney = ellipsoid(f, (k[0] + 12, k[1] + 13, k[2] - 2), (45, 44, 58))
    cleft = np.clip((shape.fissure_depth - f.z) * 0.16, -4, 6)  # wider below
    fissure = np.minimum(cleft - np.abs(f.x - shape.fissure_x), -30 - f.y)
    spine = 29 - np.sqrt(f.x**2 + (f.y - SPINE_Y_MM) ** 2)
    holes = (
        gallbladder + 1, hilum, kidney, fissure.astype(np.float32), spine.astype(np.float32),
        tube(f, CAVA_POINTS, CAVA_RADII) - 2.5, tube(f, AORTA_POINTS, AORTA_RADII) + 5,
    )  # fmt: skip
    for hole in holes:
        liver = smooth_cut(liver, np.asarray(-hole, np.float32), 5)

    c = shape.cava
    to_gallbladder = _plane(f, c, g, 0.06)
    right_vein = (-122.0, 6.0, 0.0)
    fissure_end = (shape.fissure_x, -80.0, 0.0)
    portal, hepatic, trunk = _veins(f, shape)
    return LiverFields(
        frame=f,
        liver=f.field(liver),
        gallbladder=f.field(gallbladder),
        gallbladder_lumen=f.field(gallbladder - 2.0),
        right=f.field(to_gallbladder),
        posterior=f.field(_plane(f, c, right_vein, 0.0)),
        lateral=f.field(-_plane(f, c, fissure_end, 0.0)),
        upper=f.field(f.z - 2 - 0.05 * (f.x + 30)),
        portal=portal,
        hepatic=hepatic,
        portal_trunk=trunk,
    )


def _veins(f: Frame, shape: LiverShape) -> tuple[Field, Field, Field]:
    """(portal, hepatic, portal trunk) tubes; the hepatic ones lie in the vein surfaces."""
    c, g = shape.cava, shape.gallbladder

    def between(end: tuple[float, float], share: float, z: float, lean: float = 0.0) -> tuple[float, float, float]:
        return (c[0] + share * (end[0] - c[0]) + lean * z, c[1] + share * (end[1] - c[1]), z)

    fissure_end = (shape.fissure_x, -80.0)
    right_end = (-122.0, 6.0)
    hepatic = tube_within(
        f, (c, between(right_end, 0.35, 46), between(right_end, 0.7, 16), between(right_end, 0.9, -18)), (6.5, 5, 3.6, 1.8)
    )
    middle = (
        c,
        between((g[0], g[1]), 0.35, 42, 0.06),
        between((g[0], g[1]), 0.7, 18, 0.06),
        between((g[0], g[1]), 0.9, -8, 0.06),
    )
    hepatic = np.maximum(hepatic, tube_within(f, middle, (6.5, 5, 3.4, 1.8)))
    left = (c, between(fissure_end, 0.4, 48), between(fissure_end, 0.7, 38), (shape.fissure_x + 26, -64.0, 30.0))
    hepatic = np.maximum(hepatic, tube_within(f, left, (6, 4.6, 3.2, 1.6)))

    hilum = (-30.0, -4.0, 4.0)
    portal = tube_within(f, (hilum, (-62, 2, 8), (-88, -22, 32), (-96, -32, 48)), (6.5, 6, 4, 1.8))
    portal = np.maximum(portal, tube_within(f, ((-62, 2, 8), (-88, 34, -4), (-98, 44, -22)), (5.5, 4, 1.8)))
    umbilical = (shape.fissure_x - 2, -54.0, 20.0)
    portal = np.maximum(portal, tube_within(f, (hilum, (-6, -22, 14), umbilical), (6, 5, 4.5)))
    portal = np.maximum(portal, tube_within(f, (umbilical, (shape.fissure_x + 34, -56, 28)), (3.6, 1.6)))
    portal = np.maximum(portal, tube_within(f, (umbilical, (shape.fissure_x - 26, -66, 26)), (3.6, 1.6)))
    trunk = tube_within(f, (hilum, (-14, 2, -16), (4, -2, -38)), (7, 7, 7))
    return f.field(portal), f.field(hepatic), f.field(trunk)


def sector_mask(right: FloatArray, posterior: FloatArray, lateral: FloatArray, sector: Sector) -> Mask:
    """Where a sector lies, from the three vein surfaces sampled on any grid; bool of the same shape."""
    if sector is Sector.RIGHT_POSTERIOR:
        return (right > 0) & (posterior > 0)
    if sector is Sector.RIGHT_ANTERIOR:
        return (right > 0) & (posterior <= 0)
    if sector is Sector.LEFT_LATERAL:
        return (right <= 0) & (lateral > 0)
    return (right <= 0) & (lateral <= 0)
