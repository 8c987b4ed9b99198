"""Implicit shapes in body coordinates: positive inside, roughly the depth below the surface in mm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flrplan.cohort.fields import Frame
from flrplan.image.smooth_noise import FloatArray

Point = tuple[float, float, float]


def ellipsoid(f: Frame, centre: Point, radii: Point) -> FloatArray:
    """Ellipsoid with axes along x, y, z; depth is exact to first order at the surface of the shortest axis."""
    r = ((f.x - centre[0]) / radii[0]) ** 2 + ((f.y - centre[1]) / radii[1]) ** 2 + ((f.z - centre[2]) / radii[2]) ** 2
    return np.asarray((1.0 - np.sqrt(r)) * min(radii), np.float32)


def tilted_ellipsoid(f: Frame, centre: Point, radii: Point, tilt_xy: float = 0.0, tilt_xz: float = 0.0) -> FloatArray:
    """Ellipsoid turned by ``tilt_xy`` in the axial and by ``tilt_xz`` in the coronal plane, in radians."""
    x, y, z = f.x - centre[0], f.y - centre[1], f.z - centre[2]
    x, y = x * np.cos(tilt_xy) + y * np.sin(tilt_xy), y * np.cos(tilt_xy) - x * np.sin(tilt_xy)
    x, z = x * np.cos(tilt_xz) + z * np.sin(tilt_xz), z * np.cos(tilt_xz) - x * np.sin(tilt_xz)
    r = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2
    return np.asarray((1.0 - np.sqrt(r)) * min(radii), np.float32)


def tube(f: Frame, points: Sequence[Point], radii: Sequence[float]) -> FloatArray:
    """A tube along a polyline; the radius runs linearly from point to point."""
    best = np.full(f.x.shape, -1e3, np.float32)
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        d = np.subtract(b, a)
        length2 = float(d @ d) or 1.0
        t = np.clip(((f.x - a[0]) * d[0] + (f.y - a[1]) * d[1] + (f.z - a[2]) * d[2]) / length2, 0, 1).astype(np.float32)
        dist2 = (f.x - a[0] - t * d[0]) ** 2 + (f.y - a[1] - t * d[1]) ** 2 + (f.z - a[2] - t * d[2]) ** 2
        best = np.maximum(best, ra + t * (rb - ra) - np.sqrt(dist2), dtype=np.float32)
    return best


def tube_within(f: Frame, points: Sequence[Point], radii: Sequence[float]) -> FloatArray:
    """As :func:`tube`, but reckoned near the tube only; further than 20 mm outside it is -20, so that it stays smooth."""
    near = tube_frame(f, points, max(radii) + 8)
    out = np.full(f.x.shape, -20, np.float32)
    if near.x.size:
        first = [int(np.searchsorted(a, b[0])) for a, b in zip(f.axes_mm, near.axes_mm, strict=True)]
        box = tuple(slice(i, i + b.size) for i, b in zip(first, near.axes_mm, strict=True))
        out[box] = np.maximum(tube(near, points, radii), np.float32(-20))
    return out


def tube_frame(f: Frame, points: Sequence[Point], radius: float) -> Frame:
    """The part of the frame that a tube of this radius needs."""
    p = np.asarray(points, float)
    low, high = p.min(0) - radius, p.max(0) + radius
    return f.crop((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def smooth_union(a: FloatArray, b: FloatArray, blend_mm: float) -> FloatArray:
    """The union of two shapes with a fillet of about ``blend_mm``."""
    h = np.clip(blend_mm - np.abs(a - b), 0, None)
    return np.asarray(np.maximum(a, b) + h * h / (4 * blend_mm), np.float32)


def smooth_cut(a: FloatArray, b: FloatArray, blend_mm: float) -> FloatArray:
    """The intersection of two shapes with a rounded edge of about ``blend_mm``."""
    return -smooth_union(-a, -b, blend_mm)
