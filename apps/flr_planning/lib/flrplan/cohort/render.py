"""From organ map to HU: a mean per organ and phase, lesions, texture, blur, noise, padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.cohort.fields import Field, FineGrid
from flrplan.cohort.lesion_look import draw_lesions
from flrplan.cohort.lesion_mix import LesionKind
from flrplan.cohort.lesions import Lesion
from flrplan.cohort.metal import draw_metal, place_metal
from flrplan.cohort.organs import Organ, Stream, Vessel, stream
from flrplan.cohort.scan import Phase, Scan, outside_view
from flrplan.cohort.streaks import SliceStreaks
from flrplan.image.smooth_noise import FloatArray

HU_RANGE = (-1024, 3071)
"""Values that a 12-bit scanner stores; padding may be lower."""

_HALO = 2
_KERNEL_PIXEL_MM = 0.8
_OVERSHOOT_HU = 80
"""A sharp kernel overshoots at the edges of organs; at skin and bone no more than this, or they get a white rim."""
# Means and spreads in HU per organ: (no contrast, arterial, portal venous), standard deviation over patients.
_MEANS: dict[Organ, tuple[tuple[float, float, float], float]] = {
    Organ.AIR: ((-1000, -1000, -1000), 6),
    Organ.TABLE: ((60, 60, 60), 150),
    Organ.SKIN: ((-5, 0, 5), 20),
    Organ.FAT: ((-105, -105, -103), 9),
    Organ.MUSCLE: ((48, 55, 60), 10),
    Organ.VISCERAL_FAT: ((-100, -98, -96), 11),
    Organ.BONE_CORTICAL: ((420, 430, 440), 140),
    Organ.BONE_SPONGY: ((170, 175, 185), 55),
    Organ.DISC: ((85, 85, 90), 18),
    Organ.SPINAL_CANAL: ((25, 28, 32), 10),
    Organ.CARTILAGE: ((105, 105, 110), 30),
    Organ.LUNG: ((-845, -840, -840), 40),
    Organ.LUNG_VESSEL: ((-150, 20, 10), 110),
    Organ.HEART_WALL: ((42, 95, 105), 15),
    Organ.HEART_BLOOD: ((42, 280, 160), 30),
    Organ.AORTA: ((42, 300, 160), 40),
    Organ.CAVA: ((40, 90, 140), 25),
    Organ.PORTAL_TRUNK: ((40, 95, 165), 22),
    Organ.OESOPHAGUS: ((38, 48, 60), 12),
    Organ.GALLBLADDER: ((10, 10, 12), 8),
    Organ.SPLEEN: ((48, 115, 122), 18),
    Organ.KIDNEY_CORTEX: ((33, 175, 185), 30),
    Organ.KIDNEY_MEDULLA: ((30, 70, 165), 30),
    Organ.PANCREAS: ((38, 95, 95), 16),
    Organ.STOMACH_WALL: ((38, 65, 80), 16),
    Organ.STOMACH_CONTENT: ((22, 22, 25), 20),
    Organ.BOWEL_WALL: ((36, 75, 85), 18),
    Organ.BOWEL_CONTENT: ((20, 20, 24), 16),
    Organ.STOOL: ((-20, -20, -15), 60),
    Organ.GAS: ((-930, -930, -930), 40),
    Organ.MESENTERIC_VESSEL: ((15, 60, 90), 30),
    Organ.BLADDER: ((6, 8, 10), 8),
}
_MOST = {Organ.BONE_SPONGY: 300.0, Organ.KIDNEY_CORTEX: 260.0, Organ.KIDNEY_MEDULLA: 250.0}
"""Brighter than this they look like metal, however far from the textbook a patient is."""
_GRAIN = {Organ.STOOL: 75.0, Organ.LUNG: 45.0, Organ.BONE_SPONGY: 45.0, Organ.STOMACH_CONTENT: 12.0, Organ.BOWEL_CONTENT: 10.0}


@dataclass(frozen=True)
class Intensities:
    """HU of one patient: ``organ_hu`` by label value, liver, lesions (one each), portal and hepatic veins in the liver, and
    ``strands_hu``: fibres in fat, fat in muscle.
    """

    organ_hu: FloatArray
    liver_hu: float
    lesion_hu: FloatArray
    vessel_hu: tuple[float, float]
    liver_kind: str
    strands_hu: tuple[float, float]


def draw_intensities(seed: int, index: int, scan: Scan, lesions: list[Lesion]) -> Intensities:
    """The mean HU of everything in one patient; one in four patients has organ means far from the textbook."""
    rng = stream(seed, index, Stream.INTENSITY)
    wild = 2.2 if rng.random() < 0.25 else 1.0
    table = np.zeros(256, np.float32)
    for organ, (means, spread) in _MEANS.items():
        # Air and fat have no contrast phase and little spread.
        mean = _organ_means(scan.phase, means)
        table[organ] = rng.normal(mean, spread * (1.0 if mean < -50 else wild))
    table[Organ.BONE_CORTICAL], table[Organ.BONE_SPONGY] = (
        max(table[Organ.BONE_CORTICAL], 220),
        max(table[Organ.BONE_SPONGY], 80),
    )
    for organ, most in _MOST.items():
        table[organ] = min(table[organ], most)
    draw = rng.random()
    if scan.phase is Phase.NONE:
        liver = float(rng.normal(55, 7))
    elif scan.phase is Phase.ARTERIAL:
        liver = float(rng.normal(76, 15))
    else:
        liver = float(rng.normal(112 if scan.phase is Phase.PORTAL_VENOUS else 92, 24))
    kind = "normal"
    if draw < 0.15:
        kind, liver = "steatosis", float(rng.uniform(5, 40) if scan.phase is Phase.NONE else rng.uniform(25, 70))
    elif draw < 0.35:
        kind, liver = "any", float(rng.normal(62, 14) if scan.phase is Phase.NONE else rng.normal(105, 35))
    liver = float(np.clip(liver, 5, 190))
    table[[Organ.LIVER, Organ.TUMOUR]] = liver
    if rng.random() < 0.12:
        table[Organ.STOMACH_CONTENT] = table[Organ.BOWEL_CONTENT] = rng.uniform(120, 450)
    if scan.phase is Phase.ARTERIAL and rng.random() < 0.4:
        table[Organ.CAVA], table[Organ.PORTAL_TRUNK] = rng.normal(50, 10), rng.normal(60, 15)
    lesion_hu = np.array([_lesion_mean_hu(lesion, liver, scan.phase) for lesion in lesions], np.float32)
    # Without contrast, blood is a little darker than liver; in a fatty liver it is brighter.
    vessel = {
        Phase.NONE: 42.0,
        Phase.ARTERIAL: liver + rng.uniform(-5, 35),
        Phase.PORTAL_VENOUS: liver + rng.uniform(15, 70),
        Phase.LATE: liver + rng.uniform(0, 25),
    }
    hepatic = {
        Phase.NONE: 40.0,
        Phase.ARTERIAL: liver - rng.uniform(0, 20),
        Phase.PORTAL_VENOUS: liver + rng.uniform(5, 65),
        Phase.LATE: liver + rng.uniform(0, 25),
    }
    pair = (float(vessel[scan.phase]), float(hepatic[scan.phase]))
    strands = (float(rng.uniform(0, 60)), float(rng.uniform(0, 80)))
    return Intensities(table, liver, lesion_hu, pair, kind, strands)


def _organ_means(phase: Phase, means: tuple[float, float, float]) -> float:
    """The late phase lies between the portal venous one and no contrast."""
    if phase is Phase.LATE:
        return 0.4 * means[0] + 0.6 * means[2]
    return means[list(Phase).index(phase)]


def _lesion_mean_hu(lesion: Lesion, liver_hu: float, phase: Phase) -> float:
    """Mean HU of a lesion: below the liver, but not below fluid; so in a very fatty liver it may be the brighter of the two."""
    if lesion.kind is LesionKind.VANISHING:
        return liver_hu - lesion.contrast_hu
    enhanced = {Phase.NONE: 0.6, Phase.ARTERIAL: 0.8, Phase.PORTAL_VENOUS: 1.0, Phase.LATE: 0.75}[phase]
    hu = max(liver_hu - enhanced * lesion.contrast_hu, 8.0)
    return hu if liver_hu - hu > 12 else liver_hu + 0.5 * lesion.contrast_hu


def _noise_plane(seed: int, index: int, k: int, shape: tuple[int, int], blur: float, hollow: float) -> FloatArray:
    """White noise of one slice, band-passed in plane, back at standard deviation 1; the same whichever slab asks for it."""
    white = stream(seed, index, Stream.NOISE, k).standard_normal(shape, dtype=np.float32)
    plane = ndimage.gaussian_filter(white, blur, mode="wrap", truncate=3.0)
    if hollow:
        plane -= np.float32(hollow) * ndimage.gaussian_filter(plane, 2 * blur, mode="wrap", truncate=2.5)
    return np.asarray(plane / max(float(plane.std()), 1e-6), np.float32)


def _slabs(depth: int, slab: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, depth, slab):
        stop = min(start + slab, depth)
        yield start, stop, max(start - _HALO, 0), min(stop + _HALO, depth)


def render_hu(
    seed: int,
    index: int,
    scan: Scan,
    grid: FineGrid,
    organs: NDArray[np.uint8],
    zones: NDArray[np.uint8],
    vessels: NDArray[np.uint8],
    look: Intensities,
    lesions: list[Lesion],
    textures: tuple[Field, Field],
    rows: slice,
) -> NDArray[np.int16]:
    """HU ``(Z, Y, X) int16``; slab by slab, so that memory stays at the size of the arrays given. Only ``rows`` are sure to be drawn."""
    out = np.empty(organs.shape, np.int16)
    grain = np.zeros(256, np.float32)
    for organ, amplitude in _GRAIN.items():
        grain[organ] = amplitude
    soft = np.zeros(256, np.float32)
    soft[[int(o) for o in Organ if o not in (Organ.AIR, Organ.GAS, Organ.TABLE, Organ.LUNG)]] = 1
    shape = (organs.shape[1], organs.shape[2])
    # Coarser voxels stand for a resampled scan, whose grain and blur are of the scanner's size in mm, but never below its own.
    finer = min(np.sqrt(_KERNEL_PIXEL_MM / float(grid.axes_mm[2][1] - grid.axes_mm[2][0])), 1.0)
    grain_voxels, blur_voxels = max(finer * scan.noise_blur_voxels, 0.33), max(finer * scan.blur_voxels, 0.3)
    outside = outside_view(scan, grid)
    texture_maps = [_TextureSlabs(grid, texture) for texture in textures]
    streaks = SliceStreaks(grid, scan.hardening_hu, scan.starvation_hu)
    rods = place_metal(stream(seed, index, Stream.SCAN, 1), scan.metal, grid, organs)
    for start, stop, low, high in _slabs(organs.shape[0], grid.slab):
        patterns = [texture(start, stop) for texture in texture_maps]
        if stop <= rows.start or start >= rows.stop:
            continue
        labels = organs[low:high]
        hu = look.organ_hu[labels]
        for vessel, value in zip(Vessel, look.vessel_hu, strict=True):
            hu[vessels[low:high] == vessel] = value
        draw_lesions(hu, grid, low, labels, zones[low:high], lesions, look.lesion_hu)
        noise = np.stack([_noise_plane(seed, index, k, shape, grain_voxels, 0.0) for k in range(low, high)])
        hu += grain[labels] * noise
        draw_metal(hu, grid, low, rods)
        hu = ndimage.gaussian_filter(hu, (scan.blur_slices, blur_voxels, blur_voxels), mode="nearest", truncate=3.0)
        inner = slice(start - low, stop - low)
        hu = hu[inner]
        weight = soft[organs[start:stop]]
        for values, texture_hu in zip(patterns, scan.texture_hu, strict=True):
            hu += weight * values * np.float32(texture_hu)
        _draw_strands(hu, organs[start:stop], patterns, look.strands_hu)
        hu += streaks(hu, stream(seed, index, Stream.NOISE, 200_000 + start))
        if scan.sharpen:
            overshoot = hu - ndimage.gaussian_filter(hu, (0, 1.3, 1.3), truncate=2.5)
            hu += np.float32(finer * scan.sharpen) * np.clip(overshoot, -_OVERSHOOT_HU, _OVERSHOOT_HU)
        for row, k in enumerate(range(start, stop)):
            # Streams of their own: the grain above must not repeat in the noise.
            hu[row] += scan.noise_hu * _noise_plane(seed, index, 100_000 + k, shape, grain_voxels, scan.hollow_noise)
        np.clip(hu, *HU_RANGE, out=hu)
        if outside is not None:
            hu[:, outside] = scan.padding_hu
        out[start:stop] = np.rint(hu).astype(np.int16)
    return out


def _draw_strands(
    hu: FloatArray, labels: NDArray[np.uint8], patterns: list[FloatArray], strands_hu: tuple[float, float]
) -> None:
    """Fibres in fat and fat in muscle: sheets where the finer of two patterns changes its sign, strong where the other is."""
    sheet = np.clip(1 - np.abs(patterns[1]) / np.float32(0.2), 0, 1) * np.clip(np.abs(patterns[0]) - 0.4, 0, 1)
    hu += np.isin(labels, (Organ.FAT, Organ.VISCERAL_FAT)) * sheet * np.float32(strands_hu[0])
    hu -= (labels == Organ.MUSCLE) * sheet * np.float32(strands_hu[1])


class _TextureSlabs:
    """Slow texture, standard deviation 1, over the slices ``start..stop``; sampled on demand."""

    def __init__(self, grid: FineGrid, field: Field) -> None:
        self._slabs = grid.slabs(field, whole=True)
        self._shape = grid.shape_zyx[1:]

    def __call__(self, start: int, stop: int) -> FloatArray:
        box, values = next(self._slabs)
        full = np.zeros((stop - start, *self._shape), np.float32)
        full[box[0].start - start : box[0].stop - start, box[1], box[2]] = values
        return full
