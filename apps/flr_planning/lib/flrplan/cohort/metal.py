"""Metal in the patient: surgical clips, a spine implant, the lead of a pacemaker; drawn as rods into the HU, no organ of its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from flrplan.cohort.fields import FineGrid
from flrplan.cohort.organs import Organ
from flrplan.image.smooth_noise import FloatArray

METAL_HU = 9000.0
"""Before blur and clipping to what a scanner stores."""

Point = tuple[float, float, float]


class Metal(StrEnum):
    """What kind of metal a patient carries."""

    NONE = "none"
    CLIPS = "surgical clips"
    SPINE = "spine implant"
    LEAD = "pacemaker lead"


METAL_WEIGHTS = (0.94, 0.03, 0.015, 0.015)


@dataclass(frozen=True)
class Rod:
    """A round bar between two points of the grid's physical mm, z, y, x."""

    start_zyx_mm: Point
    end_zyx_mm: Point
    radius_mm: float


def place_metal(rng: np.random.Generator, metal: Metal, grid: FineGrid, organs: NDArray[np.uint8]) -> list[Rod]:
    """The rods of one patient; none where the organ that would carry them is not in the scan."""
    if metal is Metal.CLIPS:
        centre = _middle(grid, organs, Organ.GALLBLADDER)
        if centre is None:
            return []
        spots = rng.normal(centre, (9, 9, 9), (int(rng.integers(2, 6)), 3))
        return [_rod(spot, spot + rng.normal(0, 2.5, 3), 0.9) for spot in spots]
    if metal is Metal.SPINE:
        return _spine_implant(rng, grid, organs)
    if metal is Metal.LEAD:
        tip = _middle(grid, organs, Organ.HEART_BLOOD)
        if tip is None:
            return []
        points = np.asarray(tip) + np.array([[-14, -8, 16], [-4, 0, 4], [14, 12, -18], [44, 16, -26], [300, 10, -24]])
        return [_rod(a, b, 1.1) for a, b in pairwise(points)]
    return []


def _spine_implant(rng: np.random.Generator, grid: FineGrid, organs: NDArray[np.uint8]) -> list[Rod]:
    z_mm = grid.axes_mm[0]
    low = float(rng.uniform(z_mm[0] - 20, z_mm[-1] - 50))
    rods = []
    levels = [level for level in low + 36.0 * np.arange(int(rng.integers(2, 4))) if z_mm[0] <= level <= z_mm[-1]]
    middles = [_middle(grid, organs, Organ.SPINAL_CANAL, int(np.abs(z_mm - level).argmin())) for level in levels]
    joints = [np.array(m, np.float64) for m in middles if m is not None]
    for side in (-1, 1):
        heads = [joint + np.array([0.0, 16.0, side * 21.0]) for joint in joints]
        rods += [_rod(head, head + np.array([0.0, -48.0, -side * 8.0]), 2.6) for head in heads]
        rods += [_rod(a, b, 2.8) for a, b in pairwise(heads)]
    return rods


def _middle(grid: FineGrid, organs: NDArray[np.uint8], organ: Organ, row: int | None = None) -> Point | None:
    first = 0 if row is None else row
    found = np.nonzero(organs[first : None if row is None else row + 1] == organ)
    if found[0].size == 0:
        return None
    z, y, x = (float(axis[int(np.median(i)) + o]) for axis, i, o in zip(grid.axes_mm, found, (first, 0, 0), strict=True))
    return (z, y, x)


def _rod(start: NDArray[np.float64], end: NDArray[np.float64], radius_mm: float) -> Rod:
    (a, b, c), (d, e, f) = (tuple(float(v) for v in point) for point in (start, end))
    return Rod((a, b, c), (d, e, f), radius_mm)


def draw_metal(hu: FloatArray, grid: FineGrid, first_slice: int, rods: list[Rod]) -> None:
    """Draws rods into the slices ``hu`` ``(Z, Y, X)`` from ``first_slice`` on; voxels that they fill in part get that part."""
    z_all, y_all, x_all = grid.axes_mm
    z = z_all[first_slice : first_slice + hu.shape[0]]
    voxel = np.array([abs(a[1] - a[0]) for a in grid.axes_mm])
    for rod in rods:
        a, b = np.array(rod.start_zyx_mm), np.array(rod.end_zyx_mm)
        reach = rod.radius_mm + voxel
        low, high = np.minimum(a, b) - reach, np.maximum(a, b) + reach
        cuts = [slice(*np.searchsorted(axis, (lo, hi))) for axis, lo, hi in zip((z, y_all, x_all), low, high, strict=True)]
        points = np.meshgrid(z[cuts[0]], y_all[cuts[1]], x_all[cuts[2]], indexing="ij")
        if points[0].size == 0:
            continue
        along = b - a
        share = sum((p - s) * d for p, s, d in zip(points, a, along, strict=True)) / max(float(along @ along), 1e-6)
        share = np.clip(share, 0, 1)
        distance = np.sqrt(sum((p - s - share * d) ** 2 for p, s, d in zip(points, a, along, strict=True)))
        filled = np.clip((rod.radius_mm - distance) / voxel[2] + 0.5, 0, 1).astype(np.float32)
        part = hu[cuts[0], cuts[1], cuts[2]]
        part += filled * (np.float32(METAL_HU) - part)
