"""Metastases: where they are planted, what shape they have, and what the resection rule sees of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask
from flrplan.cohort.fields import COARSE_MM, FineGrid, Slices
from flrplan.cohort.lesion_mix import MIN_LARGEST_MM, LesionKind, Place, Wish, draw_kinds, draw_wishes
from flrplan.cohort.liver import LiverFields, Sector, sector_mask
from flrplan.cohort.resection import WEDGE_MAX_DEPTH_MM, LesionSite
from flrplan.image.smooth_noise import AxisArray, FloatArray

__all__ = ["MIN_LARGEST_MM", "Lesion", "LiverMap", "lesion_site", "plant_lesions"]

_RP, _RA, _LM, _LL = Sector.RIGHT_POSTERIOR, Sector.RIGHT_ANTERIOR, Sector.LEFT_MEDIAL, Sector.LEFT_LATERAL
_TRIES = 10
_LUMPY = (0.08, 0.13)
"""Largest standard deviation of a lump's height, as a share of the radius: usual, wide."""


@dataclass(frozen=True)
class Lesion:
    """A lumpy ellipsoid. ``centre_zyx_mm`` physical; ``lumps`` ``(K, 5)``: direction z, y, x, amplitude, phase.

    ``contrast_hu`` is against the liver; the rim is brighter and the core darker than the rest by ``rim_hu`` and ``core_hu``,
    0 for none, negative the other way round. ``rim_mm`` is how thick the rim is, ``core_from`` where the core begins as a share
    of the diameter, ``mottle_hu`` the standard deviation of patches, ``edge_mm`` how far its margin is washed out.
    """

    centre_zyx_mm: tuple[float, float, float]
    diameter_mm: float
    stretch_zyx: tuple[float, float, float]
    lumps: NDArray[np.float64]
    kind: LesionKind
    place: Place
    contrast_hu: float
    rim_hu: float
    core_hu: float
    calcium_hu: float
    edge_mm: float
    rim_mm: float = 4.0
    core_from: float = 0.2
    mottle_hu: float = 0.0

    @property
    def reach_mm(self) -> float:
        """No part of the lesion lies farther from its centre."""
        return self.diameter_mm / 2 * max(self.stretch_zyx) * (1 + float(np.abs(self.lumps[:, 3]).sum()))

    def box(self, grid: FineGrid, margin_mm: float) -> Slices:
        """The voxels that the lesion with a margin can reach."""
        reach = self.reach_mm + margin_mm
        c = self.centre_zyx_mm
        return grid.box((c[0] - reach, c[1] - reach, c[2] - reach), (c[0] + reach, c[1] + reach, c[2] + reach))

    def depth_mm(self, z: AxisArray, y: AxisArray, x: AxisArray) -> FloatArray:
        """Depth below the lesion's surface ``(Z, Y, X) float32`` in mm at the points of three axes; negative outside."""
        p = [
            (axis - c).astype(np.float32).reshape(shape) / np.float32(s)
            for axis, c, s, shape in zip(
                (z, y, x), self.centre_zyx_mm, self.stretch_zyx, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True
            )
        ]
        distance = np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2)
        safe = np.maximum(distance, np.float32(1e-3))
        radius = np.ones_like(distance)
        for dz, dy, dx, amplitude, phase in self.lumps.astype(np.float32):
            radius += amplitude * np.sin((dz * p[0] + dy * p[1] + dx * p[2]) / safe * np.float32(3.2) + phase)
        return np.asarray(np.float32(self.diameter_mm / 2) * radius - distance, np.float32)

    def clumps(self, z: AxisArray, y: AxisArray, x: AxisArray, finer: float = 0.0) -> FloatArray:
        """A pattern ``(Z, Y, X) float32`` in -4..4 of clumps about a quarter of the lesion wide, for its calcium and its patches.

        ``finer``: by how much each of its four waves is shorter than the one before.
        """
        pitch = np.float32(6.28 / max(0.45 * self.diameter_mm, 4.0))
        dz, dy, dx = (
            (axis - c).astype(np.float32).reshape(shape)
            for axis, c, shape in zip((z, y, x), self.centre_zyx_mm, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True)
        )
        pattern = np.zeros((z.size, y.size, x.size), np.float32)
        for k, (nz, ny, nx, _, phase) in enumerate(self.lumps.astype(np.float32)):
            pattern += np.sin((nz * dz + ny * dy + nx * dx) * (pitch * np.float32(1 + k * finer)) + phase)
        return pattern


def _draw_lesion(
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    diameter: float,
    kind: LesionKind,
    place: Place,
    lumpy: float,
) -> Lesion:
    stretch = rng.normal(1, 0.1, 3)
    stretch = np.clip(stretch / np.cbrt(stretch.prod()), 0.75, 1.3)
    directions = rng.standard_normal((4, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    amplitude = rng.normal(0, rng.uniform(0.02, lumpy), (4, 1)).clip(-1.25 * lumpy, 1.25 * lumpy)
    lumps = np.concatenate([directions, amplitude, rng.uniform(0, 6.28, (4, 1))], 1)
    vanishing = kind is LesionKind.VANISHING
    rim = kind is LesionKind.RIM or (kind is LesionKind.CALCIFIED and rng.random() < 0.3)
    return Lesion(
        centre, diameter, (float(stretch[0]), float(stretch[1]), float(stretch[2])), lumps,
        kind=kind,
        place=place,
        contrast_hu=float(rng.uniform(4, 11) if vanishing else rng.uniform(20, 75)),
        rim_hu=float(rng.uniform(10, 40)) if rim else 0.0,
        core_hu=float(rng.uniform(5, 25)) if not vanishing and rng.random() < 0.4 else 0.0,
        calcium_hu=float(rng.uniform(120, 600)) if kind is LesionKind.CALCIFIED else 0.0,
        edge_mm=float(min(rng.uniform(1, 6), 0.3 * diameter)),
        rim_mm=float(min(0.15 * diameter, 4.0)),
    )  # fmt: skip


@dataclass(frozen=True)
class LiverMap:
    """The liver of one patient on the coarse grid: sectors and depth, cut to the scanned heights."""

    axes_mm: tuple[AxisArray, AxisArray, AxisArray]
    liver: Mask
    depth_mm: FloatArray
    sectors: dict[Sector, Mask]
    border_mm: dict[Sector, FloatArray]

    @classmethod
    def of(cls, fields: LiverFields, scanned: tuple[float, float]) -> LiverMap:
        """The map; ``scanned`` are the lowest and highest scanned z in mm."""
        z = fields.liver.axes_mm[0]
        liver = (fields.liver.values > 0) & ((z >= scanned[0]) & (z <= scanned[1]))[:, None, None]
        depth = ndimage.distance_transform_edt(fields.liver.values > 0, sampling=COARSE_MM).astype(np.float32)
        right, posterior, lateral = fields.right.values, fields.posterior.values, fields.lateral.values
        border = {
            _RP: np.minimum(right, posterior), _RA: np.minimum(right, -posterior),
            _LM: np.minimum(-right, -lateral), _LL: np.minimum(-right, lateral),
        }  # fmt: skip
        return cls(
            fields.liver.axes_mm, liver, depth, {s: liver & sector_mask(right, posterior, lateral, s) for s in Sector}, border
        )


def plant_lesions(rng: np.random.Generator, liver: LiverMap, wide: bool = False) -> list[Lesion]:
    """Lesions in the scanned liver, largest first; empty if no place was found. Wide: more, larger and lumpier ones."""
    scanned = np.nonzero(liver.liver.any((1, 2)))[0]
    if scanned.size < 4:
        return []
    z = liver.axes_mm[0]
    inner = ((z > z[scanned[0]] + 6) & (z < z[scanned[-1]] - 6))[:, None, None]
    wishes = draw_wishes(rng, wide)
    kinds = draw_kinds(rng, [wish.diameter_mm for wish in wishes])
    lesions: list[Lesion] = []
    for wish, kind in zip(wishes, kinds, strict=True):
        confluent = wish.place is Place.CONFLUENT
        if confluent and not lesions:
            continue
        spots = np.argwhere(_places(rng, liver, wish, lesions) & inner)
        for _ in range(_TRIES if spots.shape[0] else 0):
            spot = spots[int(rng.integers(spots.shape[0]))]
            c = tuple(float(a[i] + rng.uniform(-1.5, 1.5)) for a, i in zip(liver.axes_mm, spot, strict=True))
            centre = (c[0], c[1], c[2])
            others = lesions[:-1] if confluent else lesions
            apart = [_distance(centre, o) - 0.5 * (o.diameter_mm + wish.diameter_mm) for o in others]
            if confluent or not apart or min(apart) > 1:
                lesions.append(_draw_lesion(rng, centre, wish.diameter_mm, kind, wish.place, _LUMPY[wide]))
                break
    return sorted(lesions, key=lambda lesion: -lesion.diameter_mm)


def _distance(centre_zyx_mm: tuple[float, float, float], other: Lesion) -> float:
    return float(np.linalg.norm(np.subtract(centre_zyx_mm, other.centre_zyx_mm)))


def _places(rng: np.random.Generator, liver: LiverMap, wish: Wish, lesions: list[Lesion]) -> Mask:
    """Where the centre of a wished lesion may lie, on the coarse grid."""
    diameter = wish.diameter_mm
    if wish.place is Place.STRADDLING:
        borders = np.minimum.reduce([liver.border_mm[s] for s in wish.sectors])
        return np.asarray(liver.liver & (borders > -0.12 * diameter) & (liver.depth_mm > 0.25 * diameter))
    sector = wish.sectors[int(rng.integers(len(wish.sectors)))]
    border = liver.border_mm[sector]
    if wish.place is Place.CONFLUENT:
        near = lesions[-1]
        z, y, x = (a - c for a, c in zip(liver.axes_mm, near.centre_zyx_mm, strict=True))
        distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
        touching = 0.5 * (near.diameter_mm + diameter)
        here = np.logical_or.reduce([liver.sectors[s] & (liver.border_mm[s] > 0.3 * diameter) for s in wish.sectors])
        return np.asarray(here & (np.abs(distance - 0.75 * touching) < max(0.1 * touching, 3.0)) & (liver.depth_mm > 3))
    place = liver.sectors[sector] & (liver.depth_mm > min(5.0, diameter * 0.3))
    if wish.place is Place.CAPSULE:
        at = liver.sectors[sector] & (liver.depth_mm > 2) & (liver.depth_mm < max(0.35 * diameter, 6.0))
        return np.asarray(at & (border > diameter * 0.5))
    if wish.place is Place.NEAR_SURFACE:
        return np.asarray(place & (liver.depth_mm < WEDGE_MAX_DEPTH_MM - 6) & (border > diameter * 0.5))
    clear = place & (border > diameter * 0.45) & (liver.depth_mm > diameter * 0.25)
    if clear.any() or not place.any():
        return np.asarray(clear)
    return np.asarray(place & (border > np.quantile(border[place], 0.8)))


def lesion_site(lesion: Lesion, liver: LiverMap) -> LesionSite | None:
    """What the rule sees of a lesion, measured on the coarse grid; None if nothing of it lies in the liver."""
    grid = FineGrid(liver.axes_mm)
    box = lesion.box(grid, COARSE_MM)
    inside = (lesion.depth_mm(*(a[c] for a, c in zip(liver.axes_mm, box, strict=True))) > 0) & liver.liver[box]
    nearest = tuple(int(np.abs(a - c).argmin()) for a, c in zip(liver.axes_mm, lesion.centre_zyx_mm, strict=True))
    centre = tuple(i - c.start for i, c in zip(nearest, box, strict=True))
    inside[centre] |= liver.liver[nearest]
    total = int(np.count_nonzero(inside))
    if total == 0:
        return None
    share = {s: np.count_nonzero(inside & mask[box]) / total for s, mask in liver.sectors.items()}
    sectors = frozenset(s for s, part in share.items() if part >= 0.2)
    depth = float(liver.depth_mm[nearest])
    volume_ml = np.pi / 6 * lesion.diameter_mm**3 / 1000
    return LesionSite(lesion.diameter_mm, depth, volume_ml, sectors)
