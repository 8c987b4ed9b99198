"""The liver, its gallbladder and veins, and the four sectors that the hepatic veins divide it into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from flrplan.anatomy import Mask
from flrplan.cohort.fields import Field, Frame
from flrplan.cohort.lobes import Lobes, caudate, draw_lobes, left_lateral, riedel_tongue, venous_fissure
from flrplan.cohort.patient import Patient
from flrplan.cohort.shapes import ellipsoid, smooth_cut, smooth_union, tilted_ellipsoid, tube, tube_within
from flrplan.cohort.trunk import (
    AORTA_POINTS,
    AORTA_RADII,
    CAVA_POINTS,
    CAVA_RADII,
    OESOPHAGUS_POINTS,
    OESOPHAGUS_RADII,
    SPINE_Y_MM,
    Cavity,
    make_cavity,
)
from flrplan.image.smooth_noise import FloatArray


class Sector(StrEnum):
    """A part of the liver between hepatic veins. The caudate lobe counts to the left medial part: it goes with the left or the
    extended right liver, and stays when the left lateral part alone is removed.
    """

    RIGHT_POSTERIOR = "right posterior"
    RIGHT_ANTERIOR = "right anterior"
    LEFT_MEDIAL = "left medial"
    LEFT_LATERAL = "left lateral"


_FAR_MM = -50.0
_ROUGH_MM = 8.0
_LIFT_MM = (-40.0, 60.0)
_VOLUME_LIMITS_ML = (980.0, 2300.0)

RIGHT_SIDE = frozenset({Sector.RIGHT_POSTERIOR, Sector.RIGHT_ANTERIOR})
LEFT_SIDE = frozenset({Sector.LEFT_MEDIAL, Sector.LEFT_LATERAL})


@dataclass(frozen=True)
class LiverShape:
    """What differs from liver to liver, mm of body coordinates."""

    volume_ml: float
    right_radii: tuple[float, float, float]
    lobes: Lobes
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
        volume_ml=float(np.clip(rng.lognormal(7.3, 0.2), *_VOLUME_LIMITS_ML)),
        right_radii=(float(np.clip(n(78, 6), 66, 92)), float(np.clip(n(90, 6), 78, 102)), n(104, 10)),
        lobes=draw_lobes(rng),
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
    surface, ``lateral`` > 0 left of the fissure, ``upper`` > 0 above the portal plane. In the caudate lobe, neither ``right`` nor
    ``lateral`` is positive.
    """

    frame: Frame
    liver: Field
    caudate: Field
    gallbladder: Field
    gallbladder_lumen: Field
    right: Field
    posterior: Field
    lateral: Field
    upper: Field
    portal: Field
    hepatic: Field
    portal_trunk: Field

    def on(self, part: Frame) -> FloatArray:
        """Depth in mm below the liver's surface on another part of the same frame; far outside where the liver is not reckoned."""
        depth = np.full(part.x.shape, _FAR_MM, np.float32)
        here: list[slice] = []
        there: list[slice] = []
        for own, other in zip(self.liver.axes_mm, part.axes_mm, strict=True):
            low, high = max(own[0], other[0]), min(own[-1], other[-1])
            for axis, cuts in ((own, here), (other, there)):
                start = int(np.searchsorted(axis, low))
                cuts.append(slice(start, max(start, int(np.searchsorted(axis, high, side="right")))))
        depth[tuple(there)] = self.liver.values[tuple(here)]
        return depth


def _plane(f: Frame, a: tuple[float, float, float], b: tuple[float, float, float], lean: float) -> FloatArray:
    """Depth in mm on the one side (the right, for a line that runs to the front; the back, for one to the right) of the upright
    surface through ``a`` and ``b`` seen from above, leaning ``lean`` mm per mm height.
    """
    d = np.array([b[0] - a[0], b[1] - a[1]])
    d /= np.linalg.norm(d)
    return np.asarray(d[1] * (f.x - a[0] - lean * f.z) - d[0] * (f.y - a[1]), np.float32)


def _volume_ml(patient: Patient, shape: LiverShape) -> float:
    """The volume of this patient's liver: it grows with the body, but less."""
    return float(np.clip(shape.volume_ml * float(np.prod(patient.scale_xyz)) ** 0.6, *_VOLUME_LIMITS_ML))


@dataclass(frozen=True)
class _Parts:
    """What the liver is built of, depths in mm: both lobes, the height over the under side of the right one, and what bounds them."""

    right: FloatArray
    above_floor: FloatArray
    left: FloatArray
    kidney_bed: FloatArray
    wall: FloatArray
    roof: FloatArray


def _parts(f: Frame, inner: Cavity, patient: Patient, shape: LiverShape) -> _Parts:
    # Fat between liver and abdominal wall, hardly any in the lean.
    wall = inner.inside - np.float32(np.clip(1.5 + 0.04 * patient.belly_mm, 0.8, 3.0))
    along = f.x + 120
    floor = shape.tip + shape.slope * along + shape.curve * np.clip(f.x + 72, 0, 130) ** 2 + 0.06 * f.y
    steep = np.sqrt(1 + (shape.slope + 2 * shape.curve * np.clip(f.x + 72, 0, 130)) ** 2)
    # Between the lobes, to a varying degree: livers without it are notched in front.
    bridge = ellipsoid(f, (-22, -54, 29), shape.bridge_radii)
    k = shape.kidney_right
    return _Parts(
        right=ellipsoid(f, (-66, -2, 0), shape.right_radii),
        above_floor=np.asarray((f.z - floor) / steep, np.float32),
        left=smooth_union(left_lateral(f, inner, wall, shape.lobes.lateral), bridge, 12),
        # Behind and beside the kidney there is no liver, so the bed is wider than the kidney.
        kidney_bed=ellipsoid(f, (k[0] + 12, k[1] + 13, k[2] - 2), (45, 44, 58)),
        wall=wall,
        roof=(inner.lung_floor_mm - f.z - np.float32(1.0)) * np.float32(0.75),
    )


def _lift_mm(patient: Patient, shape: LiverShape) -> np.float32:
    """How far the under side of the right lobe rises so that the liver has its volume; the scanned range plays no part in it."""
    axes = tuple(np.arange(low, high, _ROUGH_MM) for low, high in ((-125.0, 121.0), (-115.0, 96.0), (-150.0, 136.0)))
    z, y, x = (np.asarray(a, np.float32) for a in np.meshgrid(*axes, indexing="ij"))
    f = Frame(x, y, z, (axes[0], axes[1], axes[2]), (1.0, 1.0, 1.0))
    p = _parts(f, make_cavity(f, patient), patient, shape)
    bounds = np.minimum(p.wall, p.roof)
    left = np.minimum(p.left, bounds) > 0
    heights = p.above_floor[(np.minimum(np.minimum(p.right, bounds), -p.kidney_bed) > 0) & ~left]
    voxel_ml = _ROUGH_MM**3 / 1000 * float(np.prod(patient.scale_xyz))
    share = 1 - (_volume_ml(patient, shape) / voxel_ml - np.count_nonzero(left)) / max(heights.size, 1)
    return np.float32(np.clip(np.quantile(heights, np.clip(share, 0, 1)), *_LIFT_MM))


def make_liver(whole: Frame, cavity: Cavity, patient: Patient, shape: LiverShape) -> LiverFields:
    """All liver fields on the part of the frame that a liver can take."""
    lobes = shape.lobes
    low = -125.0 if lobes.tongue_z is None else lobes.tongue_z - 8
    f = whole.crop((-150, -115, low), (135, 95, 120), margin=16)
    parts = _parts(f, cavity.on(f), patient, shape)
    lift = _lift_mm(patient, shape)
    right = smooth_cut(parts.right, parts.above_floor - lift, 14)
    spiegel = caudate(f, lobes)
    liver = smooth_cut(smooth_union(right, parts.left, 16), -venous_fissure(f, spiegel), 5)
    liver = smooth_union(liver, spiegel, 3)
    if lobes.tongue_z is not None:
        liver = smooth_union(liver, riedel_tongue(f, lobes.tongue_z), 16)
    liver = smooth_cut(smooth_cut(liver, parts.wall, 8), parts.roof, 6)

    g, r = shape.gallbladder, shape.gallbladder_radii
    # The gallbladder stays in its bed on the under side of the liver.
    gallbladder = tilted_ellipsoid(f, (g[0], g[1] + 8, g[2] - 4 + 0.7 * max(float(lift), 0.0)), r, -0.35, 0.25)
    hilum = ellipsoid(f, (-24, -8, -13), (17, 18, 16))
    cleft = np.clip((shape.fissure_depth - f.z) * 0.16, -4, 6)  # wider below
    fissure = np.minimum(cleft - np.abs(f.x - shape.fissure_x), -30 - f.y)
    spine = 29 - np.sqrt(f.x**2 + (f.y - SPINE_Y_MM) ** 2)
    holes = (
        gallbladder + 1, hilum, parts.kidney_bed, fissure.astype(np.float32), spine.astype(np.float32),
        tube(f, CAVA_POINTS, CAVA_RADII) - 2.5, tube(f, AORTA_POINTS, AORTA_RADII) + 5,
        tube_within(f, OESOPHAGUS_POINTS, OESOPHAGUS_RADII) + 1,
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
        caudate=f.field(spiegel),
        gallbladder=f.field(gallbladder),
        gallbladder_lumen=f.field(gallbladder - 2.0),
        right=f.field(np.minimum(to_gallbladder, -spiegel)),
        posterior=f.field(_plane(f, c, right_vein, 0.0)),
        lateral=f.field(np.minimum(-_plane(f, c, fissure_end, 0.0), -spiegel)),
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
