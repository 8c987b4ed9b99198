"""Metastases: where they are planted, what shape they have, and what the resection rule sees of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.cohort.fields import COARSE_MM, AxisArray, FineGrid, FloatArray, Slices
from flrplan.cohort.liver import LiverFields, Sector, sector_mask
from flrplan.cohort.resection import WEDGE_MAX_DEPTH_MM, LesionSite
from flrplan.labels import Mask

MIN_LARGEST_MM = 12.0
"""The largest lesion of a case is at least this large, so that no grid misses it."""


@dataclass(frozen=True)
class Lesion:
    """A lumpy ellipsoid. ``centre_zyx_mm`` physical; ``contrast_hu`` below the liver; ``lumps`` ``(K, 5)``: direction z, y, x,
    amplitude, phase.
    """

    centre_zyx_mm: tuple[float, float, float]
    diameter_mm: float
    stretch_zyx: tuple[float, float, float]
    lumps: NDArray[np.float64]
    contrast_hu: float
    rim_hu: float
    calcified: bool

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


class Plan(str, Enum):
    """What a case is planted for; what is done about it is the rule's affair alone."""

    WEDGE = "wedge"
    SECTION = "section"
    RIGHT = "right"
    LEFT = "left"
    EXTENDED = "extended"
    RIGHT_AND_LEFT = "right and left"
    LEFT_AND_RIGHT = "left and right"
    TWO_STAGE = "two stage"


PLAN_WEIGHTS = (0.19, 0.15, 0.15, 0.11, 0.11, 0.13, 0.09, 0.07)

_RP, _RA, _LM, _LL = Sector.RIGHT_POSTERIOR, Sector.RIGHT_ANTERIOR, Sector.LEFT_MEDIAL, Sector.LEFT_LATERAL
Wish = tuple[tuple[Sector, ...], float, bool]
"""Allowed sectors, diameter in mm, near the surface only."""


def _wishes(rng: np.random.Generator) -> list[Wish]:
    plan = list(Plan)[int(rng.choice(len(Plan), p=PLAN_WEIGHTS))]

    def big() -> float:
        return float(np.clip(rng.lognormal(3.6, 0.4), 31, 100))

    def mid() -> float:
        return float(np.clip(rng.lognormal(2.85, 0.5), 5, 50))

    def tiny() -> float:
        return float(np.clip(rng.lognormal(2.8, 0.4), MIN_LARGEST_MM, 29))

    crowd = int(rng.integers(6, 26)) if rng.random() < 0.07 else int(rng.choice([0, 1, 2, 3, 4], p=[0.35, 0.25, 0.2, 0.1, 0.1]))

    def scatter(sectors: tuple[Sector, ...]) -> list[Wish]:
        small = crowd > 5
        return [(sectors, float(np.clip(rng.lognormal(2.2, 0.4), 3, 18)) if small else mid(), False) for _ in range(crowd)]

    everywhere = (_RP, _RA, _LM, _LL)
    if plan is Plan.WEDGE:
        return [(everywhere, tiny(), True) for _ in range(int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])))]
    if plan is Plan.SECTION:
        one: tuple[Sector, ...] = (everywhere[int(rng.integers(4))],)
        return [(one, min(big(), 48.0), False)] + [(one, tiny(), False) for _ in range(min(crowd, 2))]
    if plan is Plan.RIGHT:
        return [((_RA,), big(), False), ((_RP,), mid(), False), *scatter((_RA, _RP))]
    if plan is Plan.LEFT:
        return [((_LM,), min(big(), 60.0), False), ((_LL,), mid(), False), *scatter((_LM, _LL))]
    if plan is Plan.EXTENDED:
        return [((_RA,), big(), False), ((_LM,), mid() + 6, False), *scatter((_RA, _RP, _LM))]
    left_small: list[Wish] = [((_LL,), tiny(), True)] + [((_LL, _LM), tiny(), True) for _ in range(int(rng.integers(0, 3)))]
    if plan is Plan.RIGHT_AND_LEFT:
        return [((_RA, _RP), big(), False), *scatter((_RA, _RP)), *left_small]
    if plan is Plan.LEFT_AND_RIGHT:
        right_small: list[Wish] = [((_RA, _RP), tiny(), True) for _ in range(int(rng.integers(1, 4)))]
        return [((_LL,), min(big(), 55.0), False), ((_LM,), mid(), False), *right_small]
    deep: list[Wish] = [((_LL, _LM), mid(), False) for _ in range(int(rng.integers(1, 5)))]
    return [((_RA, _RP), big() + 12, False), *scatter((_RA, _RP)), ((_LL,), float(rng.uniform(31, 36)), False), *deep]


def _draw_lesion(rng: np.random.Generator, centre: tuple[float, float, float], diameter: float) -> Lesion:
    stretch = rng.normal(1, 0.1, 3)
    stretch = np.clip(stretch / np.cbrt(stretch.prod()), 0.75, 1.3)
    directions = rng.standard_normal((4, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lumps = np.concatenate([directions, rng.normal(0, 0.05, (4, 1)).clip(-0.1, 0.1), rng.uniform(0, 6.28, (4, 1))], 1)
    return Lesion(
        centre, diameter, (float(stretch[0]), float(stretch[1]), float(stretch[2])), lumps,
        contrast_hu=float(rng.uniform(20, 70)),
        rim_hu=float(rng.uniform(8, 35)) if rng.random() < 0.3 else 0.0,
        calcified=bool(rng.random() < 0.08),
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


def plant_lesions(rng: np.random.Generator, liver: LiverMap) -> list[Lesion]:
    """Lesions in the scanned liver, largest first; empty if no place was found."""
    lesions: list[Lesion] = []
    z = liver.axes_mm[0]
    scanned = np.nonzero(liver.liver.any((1, 2)))[0]
    if scanned.size < 4:
        return []
    inner = (z > z[scanned[0]] + 6) & (z < z[scanned[-1]] - 6)
    for sectors, diameter, shallow in _wishes(rng):
        sector = sectors[int(rng.integers(len(sectors)))]
        border = liver.border_mm[sector]
        place = liver.sectors[sector] & inner[:, None, None] & (liver.depth_mm > min(5.0, diameter * 0.3))
        if shallow:
            place &= (liver.depth_mm < WEDGE_MAX_DEPTH_MM - 6) & (border > diameter * 0.5)
        else:
            clear = place & (border > diameter * 0.45) & (liver.depth_mm > diameter * 0.25)
            place = clear if clear.any() else place & (border > np.quantile(border[place], 0.8) if place.any() else False)
        spots = np.argwhere(place)
        for _ in range(8):
            if spots.shape[0] == 0:
                break
            spot = spots[int(rng.integers(spots.shape[0]))]
            c = tuple(float(a[i] + rng.uniform(-1.5, 1.5)) for a, i in zip(liver.axes_mm, spot, strict=True))
            centre = (c[0], c[1], c[2])
            apart = [np.linalg.norm(np.subtract(centre, o.centre_zyx_mm)) - 0.45 * (o.diameter_mm + diameter) for o in lesions]
            if not apart or min(apart) > 0:
                lesions.append(_draw_lesion(rng, centre, diameter))
                break
    return sorted(lesions, key=lambda lesion: -lesion.diameter_mm)


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
