"""How bright the aorta is, which tells the contrast phase; found without a network, in front of the spine beside the liver."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask

_STEP_MM = 2.5
_SLAB_MM = 10.0
_RADIUS_MM = 6.0
"""A disc that lies within the narrowest aorta."""
_CLIP_HU = (-200, 600)
_BODY_HU, _BONE_HU = -300, 180
_SPINE_MM = 30.0
"""Bone nearer to the midline than this, in the rear half of the body, is the spine."""
_BEFORE_SPINE_MM, _LEFT_OF_SPINE_MM = (8.0, 65.0), (-15.0, 45.0)
"""Where the aorta is looked for, from the middle of the spine's bone."""
_EVEN = 1.4
"""Blood is at most this much less even than the liver (ratio of standard deviations in a disc); spongy bone is less so."""
_FROM_LIVER_MM = 8.0
_LEAST_SPINE, _LEAST_SLABS = 20, 3
_LEAST_BLOOD_HU = 25.0
"""What is darker is no blood."""


def aorta_hu(hu: NDArray[Any], liver: Mask, spacing_zyx_mm: tuple[float, float, float]) -> float | None:
    """HU of the brightest even disc in front of the spine: median over slabs of the liver's slices. None where no spine or disc is seen.

    hu, liver: ``(Z, Y, X)``, canonical (superior, posterior, left). Without contrast another even tissue may be the brightest.
    """
    slices = np.flatnonzero(liver.any((1, 2)))
    if not slices.size:
        return None
    steps = [max(1, round(_STEP_MM / s)) for s in spacing_zyx_mm[1:]]
    rows_mm, columns_mm = (s * k for s, k in zip(spacing_zyx_mm[1:], steps, strict=True))
    part = (slice(slices[0], slices[-1] + 1), slice(None, None, steps[0]), slice(None, None, steps[1]))
    hu, liver = hu[part], liver[part]
    disc = _disc(rows_mm, columns_mm)
    beside_liver = max(1, round(_FROM_LIVER_MM / rows_mm))
    thick = max(1, round(_SLAB_MM / spacing_zyx_mm[0]))
    of_slabs, of_liver = [], []
    for first in range(0, len(hu), thick):
        slab, in_liver = np.clip(hu[first : first + thick].astype(np.float32), *_CLIP_HU), liver[first : first + thick]
        window = _window(slab.mean(0), rows_mm, columns_mm)
        if window is None:
            continue
        mean, spread = _mean_and_spread(slab, disc)
        if (all_liver := in_liver.all(0)).any():
            of_liver.append(float(np.median(spread[all_liver])))
        window &= ~ndimage.binary_dilation(in_liver.any(0), iterations=beside_liver)
        of_slabs.append((mean[window], spread[window]))
    if not of_liver:
        return None
    most = _EVEN * float(np.median(of_liver))
    found = [float(even.max()) for mean, spread in of_slabs if (even := mean[spread < most]).size]
    if len(found) < _LEAST_SLABS or np.median(found) < _LEAST_BLOOD_HU:
        return None
    return float(np.median(found))


def _disc(rows_mm: float, columns_mm: float) -> NDArray[np.float32]:
    """Weights of a disc that sum to 1."""
    reach = [int(_RADIUS_MM / mm) for mm in (rows_mm, columns_mm)]
    y, x = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disc = ((y * rows_mm) ** 2 + (x * columns_mm) ** 2 <= _RADIUS_MM**2).astype(np.float32)
    return np.asarray(disc / disc.sum())


def _window(hu: NDArray[np.float32], rows_mm: float, columns_mm: float) -> Mask | None:
    """Where in a slab ``(Y, X)`` the aorta may lie; None where no spine is seen."""
    body = hu > _BODY_HU
    if not body.any():
        return None
    columns = body.sum(0)
    middle = np.interp(0.5, np.cumsum(columns) / columns.sum(), np.arange(len(columns)))
    near = np.abs(np.arange(len(columns)) - middle) * columns_mm < _SPINE_MM
    rows = np.flatnonzero(body[:, near].any(1))
    bone = (hu > _BONE_HU) & near
    if rows.size:
        bone[: (rows[0] + rows[-1]) // 2] = False
    y, x = np.nonzero(bone)
    if len(y) < _LEAST_SPINE:
        return None
    before = (np.median(y) - np.arange(hu.shape[0])) * rows_mm
    left = (np.arange(hu.shape[1]) - np.median(x)) * columns_mm
    (low, high), (right_end, left_end) = _BEFORE_SPINE_MM, _LEFT_OF_SPINE_MM
    return np.asarray(((before > low) & (before < high))[:, None] & ((left > right_end) & (left < left_end)))


def _mean_and_spread(slab: NDArray[np.float32], disc: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean HU and standard deviation within a disc around each pixel, over the slices of a slab ``(Z, Y, X)``."""
    mean = np.stack([ndimage.correlate(s, disc, mode="nearest") for s in slab])
    square = np.stack([ndimage.correlate(s * s, disc, mode="nearest") for s in slab])
    return mean.mean(0), np.sqrt(np.maximum((square - mean * mean).mean(0), 0))
