"""Streaks from bone, metal and starved detectors: what goes wrong along the rays, projected back onto the slice.

Every slice is projected at a coarse resolution. Two errors are made where a scanner makes them, in the projections: beam
hardening, which grows with the square of the dense material on a ray, and noise, which grows with the exponential of
all material on a ray. Filtered back projection then gives streaks between ribs, stars round metal and bands across the
shoulders and the pelvis of large patients. Model: Barrett and Keat 2004, Artifacts in CT, RadioGraphics 24:1679.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from flrplan.cohort.fields import FineGrid
from flrplan.image.smooth_noise import FloatArray

WATER_PER_MM = 0.0195
"""Attenuation of water at about 70 keV."""

_DENSE_FROM_HU = 250.0
_STARVED_FROM = 6.6
_STARVED_CAP = 12.0


@dataclass(frozen=True)
class StreakSettings:
    """``hardening_hu``: strength of the bone and metal streaks; ``starvation_hu``: noise of rays through 340 mm of water, for
    rays that go through more; ``pixels`` and ``angles``: resolution of the projections.
    """

    hardening_hu: float
    starvation_hu: float
    pixels: int
    angles: int


@lru_cache(maxsize=2)
def projector(pixels: int, angles: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """(projection ``(angles * bins, pixels**2)``, its transpose); lengths in pixels, bins one pixel wide."""
    bins = int(np.ceil(pixels * 1.42)) + 2
    centre = np.arange(pixels, dtype=np.float32) - (pixels - 1) / 2
    y, x = np.meshgrid(centre, centre, indexing="ij")
    rows, columns, weights = [], [], []
    for k, angle in enumerate(np.arange(angles) * np.pi / angles):
        t = (x * np.cos(angle) + y * np.sin(angle)).ravel() + (bins - 1) / 2
        low = np.floor(t).astype(np.int32)
        for offset, weight in ((0, 1 - (t - low)), (1, t - low)):
            rows.append(k * bins + low + offset)
            columns.append(np.arange(pixels * pixels, dtype=np.int32))
            weights.append(weight.astype(np.float32))
    shape = (angles * bins, pixels * pixels)
    forward = sparse.csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape, np.float32)
    return forward, forward.T.tocsr()


def streaks_hu(rng: np.random.Generator, hu: FloatArray, pixel_mm: float, settings: StreakSettings) -> FloatArray:
    """The streaks ``(Z, pixels, pixels) float32`` in HU to add to coarse slices ``hu`` of this shape."""
    depth, n = hu.shape[0], settings.pixels
    forward, backward = projector(n, settings.angles)
    flat = hu.reshape(depth, n * n).T
    everything = forward @ np.clip((flat + 1000) / 1000, 0, 12)
    everything *= np.float32(pixel_mm * WATER_PER_MM)
    dense = forward @ np.clip((flat - _DENSE_FROM_HU) / 1000, 0, 12)
    dense *= np.float32(pixel_mm * WATER_PER_MM)
    # Hardening is largest where much of everything is on the ray as well; beyond some metal nothing more gets lost.
    error = (
        -settings.hardening_hu / 1000 * np.minimum(dense, 2.5) * (np.minimum(dense, 2.5) + 0.3 * np.minimum(everything, 10.0))
    )
    noise = np.exp(0.5 * (np.clip(everything, 0, _STARVED_CAP) - _STARVED_FROM)) - 1
    np.clip(noise, 0, None, out=noise)
    error += settings.starvation_hu / 1000 * noise * rng.standard_normal(noise.shape, dtype=np.float32)
    result = back_projected(error, backward, settings.angles, 1000 / (pixel_mm * WATER_PER_MM))
    return np.asarray(result.T.reshape(depth, n, n), np.float32)


def back_projected(projections: FloatArray, backward: sparse.csr_matrix, angles: int, scale: float = 1.0) -> FloatArray:
    """Filtered back projection of ``(angles * bins, Z)`` to ``(pixels**2, Z) float32``, per pixel of ray length, times scale."""
    depth = projections.shape[1]
    filtered = _ramp(projections.reshape(angles, -1, depth))
    return np.asarray((backward @ filtered.reshape(-1, depth)) * np.float32(scale * np.pi / angles), np.float32)


def _ramp(projections: FloatArray) -> FloatArray:
    """Ramp-filtered projections ``(angles, bins, Z)``, apodised by a Hann window."""
    bins = projections.shape[1]
    length = 1 << int(np.ceil(np.log2(2 * bins)))
    frequency = np.fft.rfftfreq(length).astype(np.float32)
    weight = frequency * (0.5 + 0.5 * np.cos(2 * np.pi * frequency))
    spectrum = np.fft.rfft(projections, length, axis=1) * weight[:, None]
    return np.asarray(np.fft.irfft(spectrum, length, axis=1)[:, :bins], np.float32)


class SliceStreaks:
    """Streaks on the grid of the scan: slices are averaged onto coarse pixels, and their streaks interpolated back."""

    def __init__(self, grid: FineGrid, hardening_hu: float, starvation_hu: float) -> None:
        size = grid.shape_zyx[2]
        pixels, angles = (64, 60) if size <= 128 else (128, 120)
        self._settings = StreakSettings(hardening_hu, starvation_hu, pixels, angles)
        self._pixel_mm = float(grid.axes_mm[2][1] - grid.axes_mm[2][0]) * size / pixels
        place = (np.arange(size) + 0.5) * pixels / size - 0.5
        low = np.clip(np.floor(place).astype(int), 0, pixels - 2)
        share = np.clip(place - low, 0, 1).astype(np.float32)
        self._spread = np.zeros((size, pixels), np.float32)
        self._spread[np.arange(size), low] = 1 - share
        self._spread[np.arange(size), low + 1] += share
        self._mean = np.ascontiguousarray((self._spread / self._spread.sum(0)).T)

    def __call__(self, hu: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Streaks ``(Z, Y, X) float32`` of square slices ``hu`` of the grid."""
        coarse = np.matmul(np.matmul(self._mean, hu), self._mean.T)
        streaks = streaks_hu(rng, coarse, self._pixel_mm, self._settings)
        return np.asarray(np.matmul(np.matmul(self._spread, streaks), self._spread.T), np.float32)
