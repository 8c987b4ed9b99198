"""Which of nnU-Net's tiles a region needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Tile = tuple[slice, ...]

LEAST_SHARE = 0.05
"""A tile with no larger share in the answer of any voxel of a region is not needed there."""
MOST_POINTS = 20_000
"""Of a region, about so many voxels are looked at: one of each cube that holds any, so that no fragment is passed over."""


def needed_tiles(tiles: Sequence[Tile], region: NDArray[np.bool_]) -> list[Tile]:
    """The tiles that have a share in the answer of some voxel of a region, in their order; all where the region is empty.

    tiles: each within the image that ``region`` ``(Z, Y, X)`` is of.
    """
    points = np.argwhere(region)
    if not len(points):
        return list(tiles)
    cubes = points // max(1, math.ceil((len(points) / MOST_POINTS) ** (1 / 3)))
    points = points[np.unique(np.ravel_multi_index(tuple(cubes.T), region.shape), return_index=True)[1]]
    weights = np.stack([_weights(tile, points) for tile in tiles])
    needed = (weights > LEAST_SHARE * weights.sum(axis=0)).any(axis=1)
    return [tile for tile, is_needed in zip(tiles, needed, strict=True) if is_needed]


def _weights(tile: Tile, points: NDArray[np.int64]) -> NDArray[np.float64]:
    """What nnU-Net weighs a tile's answer by at these voxels: a Gaussian of an eighth of its size; 0 outside."""
    start, size = np.array([(s.start, s.stop - s.start) for s in tile]).T
    away = (points - (start + size // 2)) / (size / 8)
    inside = ((points >= start) & (points < start + size)).all(axis=1)
    weight: NDArray[np.float64] = np.where(inside, np.exp(-0.5 * (away**2).sum(axis=1)), 0.0)
    return weight
