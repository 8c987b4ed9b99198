"""Exact distances from grid points to the nearest of other grid points: near ones by a table of steps, far ones by a k-d tree.

Two surfaces of a case mostly run within a few millimetres of each other. A distance transform of the whole volume computes
far more than is asked; here each point only looks around itself, nearest steps first, until it meets the other surface.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

NEAR_STEPS = 600
"""About how many grid steps are tried before the k-d tree takes over: a ball of some 5 mm at 0.8 x 0.8 x 2.5 mm."""

Spacing = tuple[float, float, float]
Points = NDArray[np.int32]
Lengths = NDArray[np.float64]


def _lengths_mm(steps_zyx: NDArray[np.integer[Any]], spacing_zyx_mm: Spacing) -> Lengths:
    # From whole steps: equal steps have equal lengths to the last bit, so "at the tolerance" is not a matter of rounding.
    z, y, x = (steps_zyx[:, axis] * spacing_zyx_mm[axis] for axis in range(3))
    return np.asarray(np.sqrt(z * z + y * y + x * x))


@lru_cache(maxsize=64)
def _near_steps(spacing_zyx_mm: Spacing) -> tuple[NDArray[np.int64], Lengths]:
    """All steps ``(N, 3)`` inside a ball around 0, with their lengths, by rising length; the first is no step at all."""
    radius_mm = (NEAR_STEPS * float(np.prod(spacing_zyx_mm)) * 3 / (4 * np.pi)) ** (1 / 3)
    reach = [int(radius_mm / s) for s in spacing_zyx_mm]
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = _lengths_mm(steps, spacing_zyx_mm)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius_mm]
    return steps[order], lengths[order]


def nearest_distances_mm(points_zyx: Points, targets_zyx: Points, spacing_zyx_mm: Spacing) -> Lengths:
    """``(N,)``: from each point ``(N, 3)`` to the nearest target ``(M, 3)``, both indices on one grid; M must not be 0."""
    steps, lengths = _near_steps(spacing_zyx_mm)
    reach = steps.max(axis=0)
    both = (points_zyx, targets_zyx)
    low = np.array([min(int(p[:, axis].min()) for p in both) for axis in range(3)]) - reach
    high = np.array([max(int(p[:, axis].max()) for p in both) for axis in range(3)]) + reach
    shape = high - low + 1
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    is_target = np.zeros(int(np.prod(shape)), np.bool_)
    is_target[_flat(targets_zyx, low, strides)] = True

    distances = np.empty(len(points_zyx))
    open_points = np.arange(len(points_zyx))
    place = _flat(points_zyx, low, strides)
    for step, length in zip((steps @ strides).tolist(), lengths.tolist(), strict=True):
        hit = is_target[place + step]
        if hit.any():
            distances[open_points[hit]] = length
            open_points, place = open_points[~hit], place[~hit]
            if not open_points.size:
                return distances
    distances[open_points] = far_distances_mm(points_zyx[open_points], targets_zyx, spacing_zyx_mm)
    return distances


def far_distances_mm(points_zyx: Points, targets_zyx: Points, spacing_zyx_mm: Spacing, limit_mm: float = np.inf) -> Lengths:
    """The same as :func:`nearest_distances_mm`, by the k-d tree alone: faster where most points lie far from any target.

    limit_mm: where the nearest target is farther than this, infinity is returned, which saves looking for it.
    """
    spacing = np.array(spacing_zyx_mm)
    tree = cKDTree(targets_zyx * spacing, leafsize=32, balanced_tree=False, compact_nodes=False)
    # The tree's own distances are rounded otherwise: it looks a little farther, and whole steps decide about the limit.
    _, nearest = tree.query(points_zyx * spacing, distance_upper_bound=limit_mm * (1 + 1e-9))
    found = nearest < len(targets_zyx)
    distances = np.full(len(points_zyx), np.inf)
    distances[found] = _lengths_mm(targets_zyx[nearest[found]] - points_zyx[found], spacing_zyx_mm)
    distances[distances > limit_mm] = np.inf
    return distances


def _flat(points_zyx: Points, low: NDArray[np.integer[Any]], strides: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    z, y, x = ((points_zyx[:, a] - low[a]) * strides[a] for a in range(3))
    return np.asarray(z + y + x, np.int64)
