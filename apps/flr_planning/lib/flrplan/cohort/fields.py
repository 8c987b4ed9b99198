"""Smooth fields on a coarse grid: where they live, random ones, and how they are brought onto a fine grid.

Every organ is the set where a field is positive; a field is roughly the depth below the surface in mm. Fields are smooth,
so they are evaluated on a 4 mm grid and interpolated: that is what makes the cohort fast, and the anatomy the same at
every size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flrplan.image.smooth_noise import AxisArray, FloatArray, smooth_noise

Slices = tuple[slice, slice, slice]

COARSE_MM = 4.0
"""Spacing of the coarse grid; thinner things than about this are offsets of one field, not fields of their own."""


@dataclass(frozen=True)
class Field:
    """``values`` ``(Z, Y, X) float32`` on a box of a coarse grid given by three axes in mm; outside it is negative."""

    values: FloatArray
    axes_mm: tuple[AxisArray, AxisArray, AxisArray]


@dataclass(frozen=True)
class Frame:
    """Bent and scaled body coordinates in mm on a box of the coarse grid; all arrays ``(Z, Y, X) float32``.

    x to the patient's left from the midline (to the right where ``mirrored``), y to the back from the middle of the body, z to the head from the hilum
    of the liver.
    """

    x: FloatArray
    y: FloatArray
    z: FloatArray
    axes_mm: tuple[AxisArray, AxisArray, AxisArray]
    scale_xyz: tuple[float, float, float]
    mirrored: bool = False

    def crop(self, low_xyz: tuple[float, float, float], high_xyz: tuple[float, float, float], margin: float = 24.0) -> Frame:
        """The box that holds these body coordinates, widened by ``margin`` for the bending; it may be empty."""
        if self.mirrored:
            low_xyz, high_xyz = (-high_xyz[0], *low_xyz[1:]), (-low_xyz[0], *high_xyz[1:])
        box: list[slice] = []
        for axis, low, high, scale in zip(self.axes_mm, low_xyz[::-1], high_xyz[::-1], self.scale_xyz[::-1], strict=True):
            start = int(np.searchsorted(axis, (low - margin) * scale))
            box.append(slice(start, max(start, int(np.searchsorted(axis, (high + margin) * scale)))))
        cut = (box[0], box[1], box[2])
        axes = (self.axes_mm[0][cut[0]], self.axes_mm[1][cut[1]], self.axes_mm[2][cut[2]])
        return Frame(self.x[cut], self.y[cut], self.z[cut], axes, self.scale_xyz, self.mirrored)

    def field(self, values: FloatArray) -> Field:
        """A field on this box."""
        return Field(np.asarray(values, np.float32), self.axes_mm)


def make_frame(
    rng: np.random.Generator,
    low_xyz_mm: tuple[float, float, float],
    high_xyz_mm: tuple[float, float, float],
    scale_xyz: tuple[float, float, float],
    bend_mm: tuple[float, float],
    mirrored: bool = False,
) -> Frame:
    """The body coordinates of one patient over a box of physical mm: scaled, then bent at two scales (75 and 30 mm).

    ``mirrored`` exchanges left and right of the body; the axes in physical mm stay as they are.
    """
    axes = tuple(
        np.arange(np.floor(lo / COARSE_MM) - 2, np.ceil(hi / COARSE_MM) + 3) * COARSE_MM
        for lo, hi in zip(low_xyz_mm[::-1], high_xyz_mm[::-1], strict=True)
    )
    zyx = (axes[0], axes[1], axes[2])
    coords: list[FloatArray] = []
    for dim, scale in zip((2, 1, 0), scale_xyz, strict=True):
        view = [1, 1, 1]
        view[dim] = -1
        bend = bend_mm[0] * smooth_noise(rng, zyx, 75.0) + bend_mm[1] * smooth_noise(rng, zyx, 30.0)
        coords.append((zyx[dim].reshape(view) / scale + bend).astype(np.float32))
    return Frame(-coords[0] if mirrored else coords[0], coords[1], coords[2], zyx, scale_xyz, mirrored)


def _cubic_matrix(coarse_mm: AxisArray, fine_mm: AxisArray) -> FloatArray:
    """Catmull-Rom weights ``(len(fine), len(coarse))``; beyond the ends the edge value holds."""
    last = coarse_mm.size - 1
    t = np.clip((fine_mm - coarse_mm[0]) / COARSE_MM, 0, last)
    base = np.minimum(np.floor(t).astype(int), max(last - 1, 0))
    f = t - base
    weights = (
        -0.5 * f**3 + f**2 - 0.5 * f,
        1.5 * f**3 - 2.5 * f**2 + 1,
        -1.5 * f**3 + 2 * f**2 + 0.5 * f,
        0.5 * f**3 - 0.5 * f**2,
    )
    matrix = np.zeros((fine_mm.size, coarse_mm.size), np.float32)
    rows = np.arange(fine_mm.size)
    for k, weight in enumerate(weights):
        np.add.at(matrix, (rows, np.clip(base + k - 1, 0, last)), weight)
    return matrix


@dataclass(frozen=True)
class FineGrid:
    """The voxel centres of the scan, three axes ``z, y, x`` in the physical mm of the coarse grid."""

    axes_mm: tuple[AxisArray, AxisArray, AxisArray]
    slab: int = 12

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Shape of arrays on this grid."""
        return (self.axes_mm[0].size, self.axes_mm[1].size, self.axes_mm[2].size)

    def box(self, low_zyx_mm: tuple[float, float, float], high_zyx_mm: tuple[float, float, float]) -> Slices:
        """Index box of the voxels between two corners."""
        cuts = [
            slice(int(np.searchsorted(a, lo)), int(np.searchsorted(a, hi, side="right")))
            for a, lo, hi in zip(self.axes_mm, low_zyx_mm, high_zyx_mm, strict=True)
        ]
        return (cuts[0], cuts[1], cuts[2])

    def slabs(self, field: Field, whole: bool = False) -> Iterator[tuple[Slices, FloatArray]]:
        """The field on this grid, slab after slab of few slices: (index box, values ``(z, y, x) float32``).

        Only boxes where the field may be positive come, unless ``whole``.
        """
        if field.values.size == 0:
            return
        values, axes = (field.values, field.axes_mm) if whole else _trim(field)
        if values.size == 0:
            return
        box = self.box((axes[0][0], axes[1][0], axes[2][0]), (axes[0][-1], axes[1][-1], axes[2][-1]))
        mz, my, mx = (_cubic_matrix(c, a[cut]) for c, a, cut in zip(axes, self.axes_mm, box, strict=True))
        if 0 in (mz.shape[0], my.shape[0], mx.shape[0]):
            return
        for start in range(0, mz.shape[0], self.slab):
            rows = mz[start : start + self.slab]
            used = np.nonzero(rows.any(0))[0]
            part = slice(int(used[0]), int(used[-1]) + 1)
            planes = np.tensordot(rows[:, part], values[part], (1, 0))
            fine = np.matmul(np.matmul(my, planes), mx.T)
            first = box[0].start + start
            yield (slice(first, first + rows.shape[0]), box[1], box[2]), fine


def _trim(field: Field) -> tuple[FloatArray, tuple[AxisArray, AxisArray, AxisArray]]:
    """The field cut to where it is positive, with two more coarse voxels on each side."""
    inside = field.values > 0
    cuts: list[slice] = []
    for axis in range(3):
        hit = np.nonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))[0]
        if hit.size == 0:
            return np.zeros((0, 0, 0), np.float32), field.axes_mm
        cuts.append(slice(max(int(hit[0]) - 2, 0), int(hit[-1]) + 3))
    axes = (field.axes_mm[0][cuts[0]], field.axes_mm[1][cuts[1]], field.axes_mm[2][cuts[2]])
    return field.values[cuts[0], cuts[1], cuts[2]], axes
