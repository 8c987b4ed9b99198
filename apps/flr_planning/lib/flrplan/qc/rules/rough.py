"""Ragged borders of liver and FLR: how far the border lies from its own smooth version, in mm, per slice and in 3D."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import Box, Grid, QcCase, box_of
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.rule import Rule, Threshold

SCALE_MM = 4.0
"""Standard deviation of the Gaussian after which a border counts as smooth; jags shorter than some 10 mm are gone."""
CAPSULE_MM = 6.0
"""So deep below the capsule, the border of the FLR is the cut."""


def roughness_mm(
    mask: Mask, where: Mask | None, spacing_zyx_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], float]:
    """How far a border lies from its smooth version, on average: per slice ``(Z,)`` in mm, and in 3D.

    Smooth: the mask after a Gaussian of :data:`SCALE_MM`, above one half. The mean distance is the area (in 3D the volume) between
    both borders over the length (area) of the smooth one. ``where``: only there (None: everywhere). Slices with a border of less than
    30 mm, and empty masks, are NaN.
    """
    z_mm, y_mm, x_mm = spacing_zyx_mm
    flat = [0.0, SCALE_MM / y_mm, SCALE_MM / x_mm]
    values = mask.astype(np.float32)
    smooth = ndimage.gaussian_filter(values, flat, truncate=2.5) > 0.5
    differs, border = mask ^ smooth, _edges(smooth)
    solid = ndimage.gaussian_filter(values, [SCALE_MM / s for s in spacing_zyx_mm], truncate=2.5) > 0.5
    differs_3d = mask ^ solid
    if where is not None:
        differs, differs_3d = differs & where, differs_3d & where
    kept = np.ones(mask.shape, bool) if where is None else where
    length = _count(border[0] & kept, (1, 2)) * x_mm + _count(border[1] & kept, (1, 2)) * y_mm
    area = _count(differs, (1, 2)) * y_mm * x_mm
    per_slice = np.where(length >= 30.0, area / np.maximum(length, 1e-6) * _STAIRS, np.nan)
    faces = _edges(solid)
    surface = sum(
        float(np.count_nonzero(face & kept)) * mm2
        for face, mm2 in zip(faces, (z_mm * x_mm, z_mm * y_mm, y_mm * x_mm), strict=True)
    )
    return per_slice, float(np.count_nonzero(differs_3d)) * z_mm * y_mm * x_mm / surface * _STAIRS_3D if surface > 0 else float(
        "nan"
    )


_STAIRS, _STAIRS_3D = 4 / np.pi, 1.5
"""Sides of voxels along a border, over its length or area, where it runs in every direction alike."""


def _edges(mask: Mask) -> tuple[Mask, Mask, Mask]:
    """Where the next voxel along y, x and z is on the other side of the border."""
    edges = []
    for axis in (1, 2, 0):
        edge = np.zeros(mask.shape, bool)
        cut = [slice(None)] * 3
        cut[axis] = slice(0, -1)
        edge[tuple(cut)] = np.diff(mask, axis=axis)
        edges.append(edge)
    return edges[0], edges[1], edges[2]


def _count(mask: Mask, axes: tuple[int, int]) -> NDArray[np.float64]:
    return np.asarray(np.count_nonzero(mask, axis=axes), float)


def _find_on(case: QcCase, structure: Structure, slice_mm: float, slices: float, solid_mm: float, said: str) -> list[Finding]:
    grid = case.coarse
    mask, where = grid.masks[structure], None
    if structure is Structure.LIVER:
        mask = case.main_liver[:, :: case.step, :: case.step]
    else:
        where = grid.depth_mm > CAPSULE_MM
        if not (mask & where).any() or not (where & ~mask).any():
            return []
    per_slice, solid = roughness_mm(mask, where, grid.spacing_zyx_mm)
    known = per_slice[np.isfinite(per_slice)]
    if not known.size:
        return []
    rough = per_slice > slice_mm
    share = float(rough.sum()) / known.size
    if not (share >= slices or solid > solid_mm):
        return []
    worst = int(np.nanargmax(np.where(np.isfinite(per_slice), per_slice, -1.0)))
    message = (
        f"{said}: {int(rough.sum())} of {known.size} slices deviate by more than {slice_mm:g} mm from a smooth border, the worst by "
        f"{per_slice[worst]:.1f} mm; {solid:.1f} mm in 3D"
    )
    return [case.finding(Severity.WARNING, message, structure, _slice_box(grid, structure, worst), solid, "mm", case.step)]


def _slice_box(grid: Grid, structure: Structure, k: int) -> Box | None:
    box = box_of(grid.masks[structure][k : k + 1])
    return None if box is None else (slice(k, k + 1), box[1], box[2])


def _find_liver(case: QcCase, *, slice_mm: float, slices: float, solid_mm: float) -> list[Finding]:
    return _find_on(case, Structure.LIVER, slice_mm, slices, solid_mm, "ragged border of the liver")


def _find_flr(case: QcCase, *, slice_mm: float, slices: float, solid_mm: float) -> list[Finding]:
    return _find_on(case, Structure.FLR, slice_mm, slices, solid_mm, "ragged cut between remnant and resection")


_SOURCE = "edge irregularities for liver and FLR masks, arXiv:2604.07999, section 3.1"
_FROZEN = "frozen on synthetic cases, docs/qc.md"
LIVER_RULE = Rule(
    "rough_liver",
    "Ragged liver border",
    _SOURCE,
    _find_liver,
    thresholds=(
        Threshold("slice_mm", 0.75, "mm", _FROZEN),
        Threshold("slices", 0.25, "share of the slices", _FROZEN),
        Threshold("solid_mm", 0.68, "mm", _FROZEN),
    ),
)
FLR_RULE = Rule(
    "rough_flr",
    "Ragged cut of the FLR",
    _SOURCE,
    _find_flr,
    needs=frozenset({Structure.LIVER, Structure.FLR}),
    thresholds=(
        Threshold("slice_mm", 1.0, "mm", _FROZEN),
        Threshold("slices", 0.4, "share of the slices", _FROZEN),
        Threshold("solid_mm", 1.1, "mm", _FROZEN),
    ),
)
