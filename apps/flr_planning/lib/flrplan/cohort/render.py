"""From organ map to HU: a mean per organ and phase, lesions, texture, blur, noise, padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.cohort.fields import Field, FineGrid, FloatArray
from flrplan.cohort.lesions import Lesion
from flrplan.cohort.organs import Organ, Stream, Vessel, stream
from flrplan.cohort.scan import Phase, Scan

HU_RANGE = (-1024, 3071)
"""Values that a 12-bit scanner stores; padding may be lower."""

RIM, CALCIUM = 64, 128
"""Added to a lesion's number in the zone map: in its rim, in its calcification."""

_HALO = 2
# Means and spreads in HU per organ: (no contrast, arterial, portal venous), standard deviation over patients.
_MEANS: dict[Organ, tuple[tuple[float, float, float], float]] = {
    Organ.AIR: ((-1000, -1000, -1000), 6),
    Organ.TABLE: ((-120, -120, -120), 90),
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
_GRAIN = {Organ.STOOL: 75.0, Organ.LUNG: 45.0, Organ.BONE_SPONGY: 45.0, Organ.STOMACH_CONTENT: 12.0, Organ.BOWEL_CONTENT: 10.0}


@dataclass(frozen=True)
class Intensities:
    """HU of one patient: ``organ_hu`` by label value, liver, lesions (one each), portal and hepatic veins in the liver."""

    organ_hu: FloatArray
    liver_hu: float
    lesion_hu: FloatArray
    vessel_hu: tuple[float, float]
    liver_kind: str


def draw_intensities(seed: int, index: int, scan: Scan, lesions: list[Lesion]) -> Intensities:
    """The mean HU of everything in one patient; one in four patients has organ means far from the textbook."""
    rng = stream(seed, index, Stream.INTENSITY)
    phase = list(Phase).index(scan.phase)
    wild = 2.2 if rng.random() < 0.25 else 1.0
    table = np.zeros(256, np.float32)
    for organ, (means, spread) in _MEANS.items():
        # Air and fat have no contrast phase and little spread.
        table[organ] = rng.normal(means[phase], spread * (1.0 if means[phase] < -50 else wild))
    draw = rng.random()
    if scan.phase is Phase.NONE:
        liver = float(rng.normal(55, 7))
    elif scan.phase is Phase.ARTERIAL:
        liver = float(rng.normal(76, 15))
    else:
        liver = float(rng.normal(112, 24))
    kind = "normal"
    if draw < 0.15:
        kind, liver = "steatosis", float(rng.uniform(5, 40) if scan.phase is Phase.NONE else rng.uniform(25, 70))
    elif draw < 0.35:
        kind, liver = "any", float(rng.normal(105, 35))
    liver = float(np.clip(liver, 5, 190))
    table[Organ.LIVER] = liver
    if rng.random() < 0.12:
        table[Organ.STOMACH_CONTENT] = table[Organ.BOWEL_CONTENT] = rng.uniform(120, 450)
    if scan.phase is Phase.ARTERIAL and rng.random() < 0.4:
        table[Organ.CAVA], table[Organ.PORTAL_TRUNK] = rng.normal(50, 10), rng.normal(60, 15)
    lesion_hu = np.array([max(liver - lesion.contrast_hu, -20.0) for lesion in lesions], np.float32)
    # Without contrast, blood is a little darker than liver; in a fatty liver it is brighter.
    vessel = {Phase.NONE: 42.0, Phase.ARTERIAL: liver + rng.uniform(-5, 35), Phase.PORTAL_VENOUS: liver + rng.uniform(15, 70)}
    hepatic = {Phase.NONE: 40.0, Phase.ARTERIAL: liver - rng.uniform(0, 20), Phase.PORTAL_VENOUS: liver + rng.uniform(5, 65)}
    pair = (float(vessel[scan.phase]), float(hepatic[scan.phase]))
    return Intensities(table, liver, lesion_hu, pair, kind)


def _lesion_hu(zones: NDArray[np.uint8], look: Intensities, lesions: list[Lesion]) -> FloatArray:
    numbers = (zones & 63).astype(int) - 1
    hu = look.lesion_hu[numbers]
    rims = np.array([lesion.rim_hu for lesion in lesions], np.float32)
    hu = np.where(zones & RIM, hu + rims[numbers], hu)
    return np.asarray(np.where(zones & CALCIUM, np.float32(320.0), hu), np.float32)


def _noise_plane(seed: int, index: int, k: int, shape: tuple[int, int], blur: float) -> FloatArray:
    """White noise of one slice, blurred in plane, back at standard deviation 1; the same whichever slab asks for it."""
    white = stream(seed, index, Stream.NOISE, k).standard_normal(shape, dtype=np.float32)
    plane = ndimage.gaussian_filter(white, blur, mode="wrap", truncate=3.0)
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
) -> NDArray[np.int16]:
    """HU ``(Z, Y, X) int16``; slab by slab, so that memory stays at the size of the arrays given."""
    out = np.empty(organs.shape, np.int16)
    grain = np.zeros(256, np.float32)
    for organ, amplitude in _GRAIN.items():
        grain[organ] = amplitude
    soft = np.zeros(256, np.float32)
    soft[[int(o) for o in Organ if o not in (Organ.AIR, Organ.GAS, Organ.TABLE, Organ.LUNG)]] = 1
    shape = (organs.shape[1], organs.shape[2])
    outside = _outside_circle(grid) if scan.padding_hu is not None else None
    texture_maps = [_TextureSlabs(grid, t, a) for t, a in zip(textures, scan.texture_hu, strict=True)]
    for start, stop, low, high in _slabs(organs.shape[0], grid.slab):
        labels = organs[low:high]
        hu = look.organ_hu[labels]
        zone = zones[low:high]
        hit = zone > 0
        if hit.any():
            hu[hit] = _lesion_hu(zone[hit], look, lesions)
        for vessel, value in zip(Vessel, look.vessel_hu, strict=True):
            hu[vessels[low:high] == vessel] = value
        noise = np.stack([_noise_plane(seed, index, k, shape, scan.noise_blur_voxels) for k in range(low, high)])
        hu += grain[labels] * noise
        hu = ndimage.gaussian_filter(hu, (scan.blur_slices, scan.blur_voxels, scan.blur_voxels), mode="nearest", truncate=3.0)
        inner = slice(start - low, stop - low)
        hu = hu[inner]
        weight = soft[organs[start:stop]]
        for texture in texture_maps:
            hu += weight * texture(start, stop)
        for row, k in enumerate(range(start, stop)):
            # Streams of their own: the grain above must not repeat in the noise.
            hu[row] += scan.noise_hu * _noise_plane(seed, index, 100_000 + k, shape, scan.noise_blur_voxels)
        np.clip(hu, *HU_RANGE, out=hu)
        if outside is not None:
            hu[:, outside] = scan.padding_hu
        out[start:stop] = np.rint(hu).astype(np.int16)
    return out


def _outside_circle(grid: FineGrid) -> NDArray[np.bool_]:
    _, y, x = grid.axes_mm
    radius = (x[-1] - x[0] + x[1] - x[0]) / 2
    return np.asarray((y[:, None] - y.mean()) ** 2 + (x[None] - x.mean()) ** 2 > radius**2)


class _TextureSlabs:
    """Slow texture in HU over the slices ``start..stop``; sampled on demand."""

    def __init__(self, grid: FineGrid, field: Field, amplitude_hu: float) -> None:
        self._slabs = grid.slabs(field, whole=True)
        self._amplitude = np.float32(amplitude_hu)
        self._shape = grid.shape_zyx[1:]

    def __call__(self, start: int, stop: int) -> FloatArray:
        box, values = next(self._slabs)
        full = np.zeros((stop - start, *self._shape), np.float32)
        full[box[0].start - start : box[0].stop - start, box[1], box[2]] = values * self._amplitude
        return full
