"""The lobes of the liver that vary most from patient to patient: left lateral section, caudate lobe and Riedel's tongue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flrplan.cohort.fields import Frame
from flrplan.cohort.shapes import ellipsoid, smooth_cut, smooth_union
from flrplan.cohort.trunk import Cavity
from flrplan.image.smooth_noise import FloatArray

RIEDEL_SHARE = 0.08
"""Share of livers with a tongue of the right lobe far below the costal margin."""

PAPILLARY_SHARE = 0.3
"""Share of caudate lobes with a papillary process, a knob that hangs down behind the portal vein."""

_REACHES_MM = ((0.25, (40.0, 66.0)), (0.37, (66.0, 98.0)), (0.38, (98.0, 135.0)))
_ROOT_X_MM = -30.0


@dataclass(frozen=True)
class LateralLobe:
    """The left lateral section, mm: a sheet under the diaphragm that runs over the stomach, and an apron behind the front wall.

    ``reach`` is how far it goes beyond the midline; ``sheet`` and ``depth`` are its height and its extent from front to back, at
    the root and at the tip; ``back`` is y of its rear edge at the midline, which turns by ``wrap`` mm per mm backwards (below 0:
    forwards) on the way to the tip. The apron is ``apron`` thick, ends at z ``apron_low`` at the midline and rises from there.
    """

    reach: float
    sheet: tuple[float, float]
    depth: tuple[float, float]
    back: float
    wrap: float
    apron: float
    apron_low: float
    apron_rise: float


@dataclass(frozen=True)
class Lobes:
    """What varies, mm: the radii of the caudate lobe, its papillary process (0 for none) and z of the tongue's tip (None: none)."""

    lateral: LateralLobe
    caudate_radii: tuple[float, float, float]
    papillary: float
    tongue_z: float | None


def draw_lobes(rng: np.random.Generator) -> Lobes:
    """The lobes of a patient; docs/architecture.md gives the ranges and where they come from."""
    group = int(rng.choice(len(_REACHES_MM), p=[share for share, _ in _REACHES_MM]))
    reach = float(rng.uniform(*_REACHES_MM[group][1]))
    long = (reach - 40) / 90
    tip_depth = float(rng.uniform(15, 45))
    lateral = LateralLobe(
        reach=reach,
        sheet=(float(rng.uniform(24, 42)), float(rng.uniform(9, 18))),
        depth=(float(rng.uniform(62, 92)), tip_depth),
        back=float(rng.uniform(-32, -8)),
        # Short lobes end as a wedge at the front wall, long ones turn round the stomach to the spleen.
        wrap=float(np.clip(rng.normal(-0.55 + 0.8 * long, 0.22), -0.8, 0.5)),
        apron=float(rng.uniform(15, 32)),
        apron_low=float(rng.uniform(-48, 4)),
        apron_rise=float(rng.uniform(0.35, 1.0)),
    )
    size = float(np.clip(rng.lognormal(0.12, 0.36), 0.45, 1.85))
    radii = (19 * size, 16 * size**0.7, 26 * size**0.8)
    papillary = float(rng.uniform(9, 15)) if rng.random() < PAPILLARY_SHARE else 0.0
    tongue = float(rng.uniform(-155, -105)) if rng.random() < RIEDEL_SHARE else None
    return Lobes(lateral, radii, papillary, tongue)


def left_lateral(f: Frame, inner: Cavity, wall_mm: FloatArray, lobe: LateralLobe) -> FloatArray:
    """Depth in mm of the left lateral section; ``wall_mm`` is the depth below the inside of the trunk wall, ``(Z, Y, X)``."""
    along = np.clip((f.x - _ROOT_X_MM) / (lobe.reach - _ROOT_X_MM), 0, 1)
    rest = (1 - along**1.5).astype(np.float32)
    beyond = np.clip(f.x, 0, None)
    roof = (inner.lung_floor_mm - f.z - 1) * np.float32(0.75)
    sheet = lobe.sheet[1] + (lobe.sheet[0] - lobe.sheet[1]) * rest - roof
    back = lobe.back + lobe.wrap * beyond - f.y
    front = lobe.depth[1] + (lobe.depth[0] - lobe.depth[1]) * rest - back
    sheet = smooth_cut(smooth_cut(sheet, np.asarray(back, np.float32), 10), np.asarray(front, np.float32), 10)
    low = f.z - lobe.apron_low - lobe.apron_rise * beyond
    apron = smooth_cut(
        np.asarray(lobe.apron * (0.35 + 0.65 * rest) - wall_mm, np.float32), np.asarray(low * 0.8, np.float32), 12
    )
    apron = smooth_cut(apron, np.asarray(-24 - f.y, np.float32), 10)
    lobe_depth = smooth_union(sheet, apron, 24)
    lobe_depth = smooth_cut(lobe_depth, np.asarray(lobe.reach - f.x, np.float32), 20)
    return smooth_cut(lobe_depth, np.asarray(f.x - _ROOT_X_MM, np.float32), 10)


def caudate(f: Frame, lobes: Lobes) -> FloatArray:
    """Depth in mm of the caudate lobe, between cava and the fissure of the venous ligament; large ones bulge to the left."""
    rx, ry, rz = lobes.caudate_radii
    body = ellipsoid(f, (-20 + 0.7 * rx, 12 - 0.9 * ry, 24), (rx, ry, rz))
    if not lobes.papillary:
        return body
    p = lobes.papillary
    return smooth_union(body, ellipsoid(f, (-16 + 0.9 * rx, 6 - 0.5 * ry, 26 - rz), (p, 0.85 * p, 1.5 * p)), 8)


def venous_fissure(f: Frame, caudate_mm: FloatArray) -> FloatArray:
    """The fat around the free part of the caudate lobe: where this is positive and ``caudate_mm`` is not, no liver lies."""
    attached = np.clip(np.maximum((-8 - f.x) / 10, (f.z - 40) / 10), 0, 1)
    return np.asarray(caudate_mm + 3.0 - 40.0 * attached, np.float32)


def riedel_tongue(f: Frame, tip_z: float) -> FloatArray:
    """Depth in mm of a tongue that hangs from the right lobe beside the colon down to ``tip_z``."""
    top = 10.0
    return ellipsoid(f, (-100.0, -4.0, 0.5 * (top + tip_z)), (26.0, 44.0, 0.5 * (top - tip_z)))
