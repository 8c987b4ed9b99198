"""How a patient is scanned: field of view, voxels, padding, table, contrast phase, noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Mask
from flrplan.cohort.fields import FineGrid, Slices
from flrplan.cohort.metal import METAL_WEIGHTS, Metal
from flrplan.cohort.organs import Stream, stream
from flrplan.cohort.patient import Patient
from flrplan.cohort.settings import GRID_LIMITS, CaseSize
from flrplan.image import Geometry


class Phase(StrEnum):
    """Contrast phase."""

    NONE = "no contrast"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal venous"
    LATE = "late"


class Kernel(StrEnum):
    """Reconstruction kernel: how sharp edges are, and how coarse the noise."""

    SMOOTH = "smooth"
    STANDARD = "standard"
    SHARP = "sharp"


class View(StrEnum):
    """How much of the scan is kept: all of it, or a box round the liver."""

    WHOLE = "whole"
    ABDOMEN = "upper abdomen"
    """With skin and air at most on some sides."""
    LIVER = "liver"
    LIVER_CUT = "liver cut at a side"


MAX_CUT = 0.25
"""The share of the liver's extent along an axis that a view may cut off."""

VIEW_WEIGHTS = (0.35, 0.2, 0.3, 0.15)
"""Of wide cases."""

Margins = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Before and behind the liver along z, y, x in mm; negative where the box cuts it."""


@dataclass(frozen=True)
class Scan:
    """One acquisition. ``fov_mm`` is the reconstructed square; ``padding_hu`` fills outside its circle, None for no circle.

    ``hollow_noise`` is how much of the coarse part noise lacks (0..1), as in filtered back projection; ``sharpen`` the overshoot
    at edges. ``hardening_hu`` and ``starvation_hu``: see :class:`~flrplan.cohort.streaks.StreakSettings`. ``margins_mm``: of the
    box round the liver that ``view`` keeps, None for the whole scan.
    """

    phase: Phase
    fov_mm: float
    centre_xy_mm: tuple[float, float]
    wished_slice_mm: float
    padding_hu: int | None
    table: bool
    table_gap_mm: float
    table_radius_mm: float
    table_depth_mm: float
    kernel: Kernel
    metal: Metal
    hardening_hu: float
    starvation_hu: float
    sharpen: float
    hollow_noise: float
    noise_hu: float
    noise_blur_voxels: float
    blur_voxels: float
    blur_slices: float
    texture_hu: tuple[float, float]
    origin_mm: tuple[float, float, float]
    view: View = View.WHOLE
    margins_mm: Margins | None = None


_Range = tuple[float, float]
# Noise grain and blur in voxels, overshoot, and how much louder the noise is.
_KERNELS: dict[Kernel, tuple[_Range, _Range, _Range, float]] = {
    Kernel.SMOOTH: ((0.8, 1.5), (0.6, 1.0), (0.0, 0.0), 0.7),
    Kernel.STANDARD: ((0.5, 0.9), (0.4, 0.75), (0.0, 0.4), 1.0),
    Kernel.SHARP: ((0.35, 0.6), (0.3, 0.5), (0.4, 1.1), 1.6),
}


def draw_scan(seed: int, index: int, patient: Patient) -> Scan:
    """The acquisition of a case, the same at every size."""
    rng = stream(seed, index, Stream.SCAN)
    half = patient.body_half_mm[0]
    width = ((1.1, 1.4), (0.97, 1.1), (0.82, 0.97))[int(rng.choice(3, p=[0.4, 0.5, 0.1]))]
    fov = 2 * half * float(rng.uniform(*width))
    kernel = list(Kernel)[int(rng.choice(3, p=[0.35, 0.45, 0.2]))]
    grain, blur, sharpen, louder = _KERNELS[kernel]
    slice_mm = float(rng.choice([0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.75, 5.0, 5.0, 5.0, 7.0, 7.5]))
    # Fewer photons per slice of a thin slice and of a wide body; scanners make up for most of either.
    noise = float(np.exp(rng.uniform(np.log(5), np.log(28)))) * louder * (2.5 / slice_mm) ** 0.2 * (half / 160) ** 1.5
    return Scan(
        phase=list(Phase)[int(rng.choice(4, p=[0.25, 0.17, 0.48, 0.1]))],
        fov_mm=float(np.clip(fov, 314, 499)),
        centre_xy_mm=(float(rng.normal(0, 8)), float(rng.normal(4, 12))),
        wished_slice_mm=slice_mm,
        padding_hu=[None, None, -1024, -2048][int(rng.integers(4))],
        table=bool(rng.random() < 0.75),
        table_gap_mm=float(rng.uniform(3, 25)),
        table_radius_mm=float(rng.choice([300.0, 450.0, 700.0, 5000.0])),
        table_depth_mm=float(rng.uniform(12, 60)),
        kernel=kernel,
        metal=list(Metal)[int(rng.choice(len(Metal), p=METAL_WEIGHTS))],
        hardening_hu=float(rng.uniform(40, 260)),
        starvation_hu=float(rng.uniform(2, 22)),
        sharpen=float(rng.uniform(*sharpen)),
        hollow_noise=float(rng.uniform(0.3, 0.95)),
        noise_hu=float(np.clip(noise, 4, 45)),
        noise_blur_voxels=float(rng.uniform(*grain)),
        blur_voxels=float(rng.uniform(*blur)),
        blur_slices=float(rng.uniform(0.45, 0.75)),
        texture_hu=(float(rng.uniform(1, 7)), float(rng.uniform(1, 8))),
        origin_mm=(float(rng.uniform(-260, -140)), float(rng.uniform(-300, -100)), float(rng.uniform(-900, 300))),
    )


def cropped(seed: int, index: int, scan: Scan) -> Scan:
    """The same acquisition with a field of view that may be smaller, down to the liver itself without skin or air around it."""
    rng = stream(seed, index, Stream.SPREAD, 1)
    view = list(View)[int(rng.choice(4, p=VIEW_WEIGHTS))]
    if view is View.WHOLE:
        return scan
    margins = rng.uniform(15, 90, (3, 2)) if view is View.ABDOMEN else rng.uniform(0, 20, (3, 2))
    if view is not View.ABDOMEN and rng.random() < 0.5:
        margins[:] = margins[0, 0]  # one margin on all sides, as a program crops
    if view is View.LIVER_CUT:
        margins[int(rng.integers(3)), int(rng.integers(2))] = -rng.uniform(5, 45)
    (a, b), (c, d), (e, f) = margins.round(1).tolist()
    return replace(scan, view=view, margins_mm=((a, b), (c, d), (e, f)))


def view_box(scan: Scan, geometry: Geometry, liver: Mask, tumour: Mask) -> Slices:
    """The voxels that the view keeps. What cuts the liver spares tumour, and takes at most :data:`MAX_CUT` of the liver's extent,
    so that the resection can still be told from what is seen. Without liver in ``(Z, Y, X) bool``: all voxels.
    """
    cuts = [slice(0, n) for n in liver.shape]
    if scan.margins_mm is not None and liver.any():
        for axis, (margins, mm) in enumerate(zip(scan.margins_mm, geometry.spacing_zyx_mm, strict=True)):
            first, last = _extent(liver, axis)
            most = MAX_CUT * (last + 1 - first)
            before, behind = (round(max(margin / mm, -most)) for margin in margins)
            low, high = first - before, last + 1 + behind
            if tumour.any():
                of_tumour = _extent(tumour, axis)
                low, high = min(low, of_tumour[0]), max(high, of_tumour[1] + 1)
            cuts[axis] = slice(max(low, 0), min(high, liver.shape[axis]))
    return (cuts[0], cuts[1], cuts[2])


def _extent(mask: Mask, axis: int) -> tuple[int, int]:
    found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(found[0]), int(found[-1])


def outside_view(scan: Scan, grid: FineGrid) -> NDArray[np.bool_] | None:
    """Voxels of a slice ``(Y, X)`` outside the circle that the scanner reconstructed; None where the whole square is."""
    if scan.padding_hu is None:
        return None
    _, y, x = grid.axes_mm
    radius = (x[-1] - x[0] + x[1] - x[0]) / 2
    return np.asarray((y[:, None] - y.mean()) ** 2 + (x[None] - x.mean()) ** 2 > radius**2)


def make_grid(patient: Patient, scan: Scan, size: CaseSize) -> tuple[FineGrid, Geometry]:
    """The voxel centres in the physical mm of the patient, and the image geometry (LPS, identity direction)."""
    limits = GRID_LIMITS[size]
    low, high = limits.in_plane_mm
    matrix = int(np.clip(limits.matrix, np.ceil(scan.fov_mm / high), np.floor(scan.fov_mm / low)))
    spacing = round(scan.fov_mm / matrix, 6)
    length = patient.z_high_mm - patient.z_low_mm
    slice_mm = float(np.clip(scan.wished_slice_mm, *limits.slice_mm))
    # Thick slices of a short range, or thin ones of a long range, would break the limits on their number.
    slice_mm = float(np.clip(slice_mm, length / limits.slices[1], length / limits.slices[0]))
    slice_mm = round(float(np.clip(slice_mm, *limits.slice_mm)), 4)
    count = int(np.clip(np.floor(length / slice_mm), *limits.slices))
    middle = (patient.z_low_mm + patient.z_high_mm) / 2
    z = middle + (np.arange(count) - (count - 1) / 2) * slice_mm
    plane = (np.arange(matrix) - (matrix - 1) / 2) * spacing
    grid = FineGrid((z, plane + scan.centre_xy_mm[1], plane + scan.centre_xy_mm[0]))
    return grid, Geometry((matrix, matrix, count), (spacing, spacing, slice_mm), scan.origin_mm)
