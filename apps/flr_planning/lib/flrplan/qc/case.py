"""A label with, or without, its CT: what every rule of :mod:`flrplan.qc` looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.errors import GridError
from flrplan.image import CT, Canonical, Geometry
from flrplan.qc.aorta import aorta_hu
from flrplan.qc.finding import Finding, Severity, Voxel
from flrplan.qc.image import LiverLook, liver_look

Box = tuple[slice, slice, slice]
MARGIN_MM = 25.0
"""How far around the masks rules look."""
COARSE_MM = 1.4
"""Shapes are measured on every second (third, ...) voxel in plane, as long as these are no farther apart than about this."""
STRAY_SHARE = 0.05
"""Share of the liver from which on a piece may be part of it, and below which it is an island."""
NEIGHBOURS = np.ones((3, 3, 3), np.int8)
"""Voxels that touch at a corner are one piece."""


@dataclass(frozen=True)
class Piece:
    """A connected piece of a mask: its number in the label array, its box there, and its volume."""

    number: int
    box: Box
    voxels: int
    ml: float


@dataclass(frozen=True)
class Pieces:
    """The pieces of a mask, largest first. labels: ``(Z, Y, X) int32`` on the canonical crop."""

    labels: NDArray[np.int32]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """Masks, and the HU where there is a CT, of one part of a case at one sampling, in canonical axis order."""

    masks: Mapping[Structure, Mask]
    hu: NDArray[Any] | None
    spacing_zyx_mm: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000.0

    @cached_property
    def look(self) -> LiverLook | None:
        """How the liver looks; None without a CT, or where too little of it is there to tell."""
        return (
            None if self.hu is None else liver_look(self.hu, self.depth_mm, self.masks.get(Structure.CRLM), self.spacing_zyx_mm)
        )

    @cached_property
    def away_mm(self) -> NDArray[np.float32]:
        """How far each voxel outside the liver lies from it; 0 inside. The liver has at least one voxel."""
        return np.asarray(
            ndimage.distance_transform_edt(~self.masks[Structure.LIVER], sampling=self.spacing_zyx_mm), np.float32
        )

    @cached_property
    def depth_mm(self) -> NDArray[np.float32]:
        """How deep each voxel of the liver lies below its surface; 0 outside."""
        return np.asarray(ndimage.distance_transform_edt(self.masks[Structure.LIVER], sampling=self.spacing_zyx_mm), np.float32)


@dataclass(frozen=True, eq=False)
class QcCase:
    """The masks ``(Z, Y, X) bool`` that a label states, on one grid. A structure that is not in ``masks`` is absent, which is not empty.

    ct: on the same grid; None where there is none. off_grid: grids of files that were left out because they lie on another one.
    found: what rules have found already, kept by :func:`flrplan.qc.registry.check_case`.
    Raises: GridError for a mask or a CT of another shape.
    """

    name: str
    geometry: Geometry
    masks: Mapping[Structure, Mask]
    ct: CT | None = None
    off_grid: Mapping[str, Geometry] = field(default_factory=dict)
    found: dict[Any, list[Finding]] = field(default_factory=dict, init=False, repr=False)
    _pieces: dict[Structure, Pieces] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        shapes = {f"the {s}": m.shape for s, m in self.masks.items()}
        if self.ct is not None:
            shapes["the CT"] = self.ct.array_zyx.shape
        for what, shape in shapes.items():
            if shape != self.geometry.shape_zyx:
                raise GridError(f"case {self.name}: {what} has shape {shape}, the grid {self.geometry.shape_zyx}")

    def forget(self) -> None:
        """Frees the arrays that were made of the masks and the CT; they are made again where something asks. What was found is kept."""
        for name in ("whole", "crop", "coarse", "main_liver"):
            self.__dict__.pop(name, None)
        self._pieces.clear()

    @cached_property
    def canonical(self) -> Canonical:
        """From the label's own axis order to superior, posterior, left."""
        return Canonical.of(self.geometry)

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Canonical."""
        return self.canonical.target.spacing_zyx_mm

    @cached_property
    def whole(self) -> Grid:
        """Masks and HU of the whole image, canonical views."""
        masks = {s: self.canonical.forward(m) for s, m in self.masks.items()}
        return Grid(masks, None if self.ct is None else self.canonical.forward(self.ct.array_zyx), self.spacing_zyx_mm)

    @cached_property
    def aorta_hu(self) -> float | None:
        """HU of the aorta beside the liver; None without a CT or a liver, and where it is not seen."""
        hu, liver = self.whole.hu, self.whole.masks.get(Structure.LIVER)
        return None if hu is None or liver is None else aorta_hu(hu, liver, self.spacing_zyx_mm)

    @cached_property
    def box(self) -> Box:
        """Where the masks lie, with a margin, in the canonical grid; empty masks: a single voxel."""
        cuts = []
        for axis, spacing in enumerate(self.spacing_zyx_mm):
            others = tuple(a for a in range(3) if a != axis)
            hit = np.zeros(self.canonical.target.shape_zyx[axis], bool)
            for mask in self.whole.masks.values():
                hit |= mask.any(axis=others)
            found, margin = np.flatnonzero(hit), int(np.ceil(MARGIN_MM / spacing))
            first, last = (int(found[0]), int(found[-1])) if found.size else (0, 0)
            cuts.append(slice(max(first - margin, 0), min(last + 1 + margin, hit.size)) if found.size else slice(0, 1))
        return cuts[0], cuts[1], cuts[2]

    @cached_property
    def crop(self) -> Grid:
        """The part in :attr:`box`, contiguous."""
        hu = self.whole.hu
        masks = {s: np.ascontiguousarray(m[self.box]) for s, m in self.whole.masks.items()}
        return Grid(masks, None if hu is None else np.ascontiguousarray(hu[self.box]), self.spacing_zyx_mm)

    @cached_property
    def step(self) -> int:
        """:attr:`coarse` takes every second (third, ...) voxel in plane: this is the 2 (3, ...)."""
        return max(round(COARSE_MM / max(self.spacing_zyx_mm[1:])), 1)

    @cached_property
    def coarse(self) -> Grid:
        """The crop at about :data:`COARSE_MM` in plane."""
        k = self.step
        z, y, x = self.spacing_zyx_mm
        hu = self.crop.hu
        masks = {s: np.ascontiguousarray(m[:, ::k, ::k]) for s, m in self.crop.masks.items()}
        return Grid(masks, None if hu is None else np.ascontiguousarray(hu[:, ::k, ::k]).astype(np.float32), (z, y * k, x * k))

    def at_edge(self, piece: Piece) -> bool:
        """True for a piece of :attr:`crop` that touches the image's border, beyond which it may hang together with another."""
        shape = self.canonical.target.shape_zyx
        return any(
            (own.start + cut.start == 0) or (own.start + cut.stop == n)
            for own, cut, n in zip(self.box, piece.box, shape, strict=True)
        )

    def pieces(self, structure: Structure) -> Pieces:
        """The connected pieces of a structure on :attr:`crop`, largest first; found once."""
        if structure not in self._pieces:
            self._pieces[structure] = pieces_of(self.crop.masks[structure], self.crop.voxel_ml)
        return self._pieces[structure]

    @cached_property
    def main_liver(self) -> Mask:
        """The liver ``(Z, Y, X) bool`` on :attr:`crop` without stray pieces: those below :data:`STRAY_SHARE` of it, unless all are."""
        found = self.pieces(Structure.LIVER)
        least = STRAY_SHARE * sum(p.ml for p in found.pieces)
        return np.isin(found.labels, [p.number for i, p in enumerate(found.pieces) if not i or p.ml >= least])

    def place(self, box: Box | None, step: int = 1) -> tuple[tuple[Voxel, Voxel], tuple[float, float, float]] | None:
        """First and last voxel in the label's own array order, and their middle in mm (LPS), of a box of :attr:`crop` (``step`` 1) or
        :attr:`coarse`; None for None.
        """
        if box is None:
            return None
        steps = (1, step, step)
        low = [own.start + cut.start * k for own, cut, k in zip(self.box, box, steps, strict=True)]
        high = [own.start + (cut.stop - 1) * k for own, cut, k in zip(self.box, box, steps, strict=True)]
        shape = self.canonical.target.shape_zyx
        native: list[tuple[int, int]] = [(0, 0)] * 3
        for canonical_axis, own_axis in enumerate(self.canonical.axes_zyx):
            a, b, n = low[canonical_axis], high[canonical_axis], shape[canonical_axis]
            native[own_axis] = (n - 1 - b, n - 1 - a) if self.canonical.flip_zyx[canonical_axis] else (a, b)
        first, last = ((native[0][i], native[1][i], native[2][i]) for i in (0, 1))
        middle = self.geometry.world_mm((np.array([first]) + np.array([last]))[:, ::-1] / 2)[0]
        return (first, last), (float(middle[0]), float(middle[1]), float(middle[2]))

    def canonical_box(self, box_zyx: tuple[Voxel, Voxel]) -> Box:
        """The box of a finding in canonical order, of the whole image."""
        cuts = []
        for axis, own in enumerate(self.canonical.axes_zyx):
            first, last, n = box_zyx[0][own], box_zyx[1][own], self.geometry.shape_zyx[own]
            cuts.append(slice(n - 1 - last, n - first) if self.canonical.flip_zyx[axis] else slice(first, last + 1))
        return cuts[0], cuts[1], cuts[2]

    def finding(
        self,
        severity: Severity,
        message: str,
        structure: Structure | None = None,
        box: Box | None = None,
        size: float | None = None,
        unit: str = "",
        step: int = 1,
    ) -> Finding:
        """A finding about this case; rule and source are filled in by :func:`flrplan.qc.registry.check_case`."""
        placed = self.place(box, step)
        where, centre = placed if placed is not None else (None, None)
        return Finding(self.name, "", severity, message, structure, where, centre, size, unit)


def pieces_of(mask: Mask, voxel_ml: float) -> Pieces:
    """The connected pieces of a mask ``(Z, Y, X) bool``, largest first; none of an empty one."""
    labels, count = ndimage.label(mask, NEIGHBOURS)
    if not count:
        return Pieces(labels, ())
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    found = [Piece(i + 1, boxes[i], int(voxels[i]), float(voxels[i]) * voxel_ml) for i in np.argsort(-voxels, kind="stable")]
    return Pieces(labels, tuple(found))


def box_of(mask: Mask) -> Box | None:
    """The bounding box of a mask; None of an empty one."""
    cuts = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not hit.size:
            return None
        cuts.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return cuts[0], cuts[1], cuts[2]
