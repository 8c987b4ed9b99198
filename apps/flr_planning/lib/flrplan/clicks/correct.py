"""The masks of a plan after clicks and strokes.

A mark acts where the label contradicts it: a voxel marked as inside adds what belongs to it, one marked as outside takes away; one that the
label already agrees with only bounds the others. So the same marks sent again change nothing more, and nothing changes far from a mark.

What belongs to a mark is found by a random walker with priors (Grady 2005, doi 10.1109/CVPR.2005.239; :mod:`flrplan.planning.coherent`) in
a box around it. Its prior is how alike the CT is to what was marked, and for a metastasis the network's probability where there is one. A
cut between remnant and resection is no border that a CT shows: it is bent to pass the mark, as far as the mark lies beyond it.

All is done in canonical axis order, so the same click gives the same mask however the CT was stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from scipy.special import expit, logit

from flrplan.anatomy import Mask, Structure
from flrplan.clicks.marks import MOST_MARKS, Marks, Voxels
from flrplan.errors import LabelError
from flrplan.files.checked import Number, checked
from flrplan.image import Canonical, Geometry
from flrplan.method import Probability
from flrplan.planning.coherent import TOUCHING, Values, block_means, random_walker

_Positive = Annotated[Number, Field(ge=0.1, le=200)]


@checked
class ClickSettings:
    """How marks act.

    grid_mm: the box around a mark is solved on voxels of about this size.
    smoothing_mm: what is narrower than about this is no shape of a metastasis or of a liver's border.
    reach_mm: half of the box around a click on a metastasis, and how far from the liver or the cut a mark may lie that moves them.
    network: how much the network's probability counts beside the CT, in nats a nat.
    middle: a mark outside of a metastasis takes the whole piece where its depth in it is at least this part of the greatest.
    least_hu: noise that is taken to be there at least; below it, differences of the CT say nothing.
    """

    grid_mm: _Positive = 1.5
    smoothing_mm: _Positive = 2.0
    reach_mm: _Positive = 45.0
    network: Annotated[Number, Field(ge=0, le=10)] = 0.5
    middle: Annotated[Number, Field(ge=0, le=1)] = 0.7
    least_hu: _Positive = 5.0


CLICKS = ClickSettings()
_SEED_MM = 2.0
"""A mark is taken to be right this far around it."""
_SURE = 1e3
"""Weight of a voxel that a mark decides."""
_STANDS_OUT = 0.2
"""A place that is likelier to be a metastasis than the tissue around by less than this is not told from it."""
_STROKE_MM = 5.0
"""Marks nearer than this to each other are one stroke."""


@dataclass(frozen=True, eq=False)
class Correction:
    """Masks ``(Z, Y, X) bool``, nested as in a planning map; and what a person should know of marks that did nothing."""

    masks: Mapping[Structure, Mask]
    notes: tuple[str, ...]


def correct(
    masks: Mapping[Structure, Mask],
    hu: NDArray[Any],
    geometry: Geometry,
    marks: Mapping[Structure, Marks],
    probability: Probability | None = None,
    settings: ClickSettings = CLICKS,
) -> Correction:
    """The masks of liver, CRLM and FLR after marks; all may be empty but the liver.

    Args:
        masks: liver, CRLM and FLR, the latter two within the first. hu: ``(Z, Y, X)`` on ``geometry``.
        marks: by structure: liver, CRLM, FLR. The liver's are taken first, then the cut's, then the metastases'.
        probability: of the CRLM by a network, ``(Z, Y, X) uint8``; None: the CT alone decides.

    Raises: LabelError where the marks are too many, none of them can be used, or nothing would remain of the liver.
    """
    axes = Canonical.of(geometry)
    likely = None if probability is None else axes.forward(probability)
    plan = _Plan({s: axes.forward(mask) for s, mask in masks.items()}, axes.forward(hu), axes, likely, settings)
    found = plan.after({s: Marks(axes.voxels_forward(m.inside), axes.voxels_forward(m.outside)) for s, m in marks.items()})
    return Correction({s: axes.backward(mask) for s, mask in found.masks.items()}, found.notes)


class _Plan:
    """The masks while marks are taken, all in the canonical order of ``axes``."""

    def __init__(
        self,
        masks: Mapping[Structure, Mask],
        hu: NDArray[Any],
        axes: Canonical,
        probability: Probability | None,
        settings: ClickSettings,
    ) -> None:
        self.liver = masks[Structure.LIVER].copy()
        self.crlm = masks[Structure.CRLM] & self.liver
        self.flr = masks[Structure.FLR] & self.liver
        self.hu, self.geometry, self.probability, self.settings = hu, axes.target, probability, settings
        self._axes = axes
        self.notes: list[str] = []
        self.sided: list[tuple[Voxels, bool]] = []
        self.touched: list[Voxels] = []

    def after(self, marks: Mapping[Structure, Marks]) -> Correction:
        """Takes all marks."""
        given = sum(len(v) for m in marks.values() for v in (m.inside, m.outside))
        used = 0
        for structure, add, take in (
            (Structure.LIVER, self._more_liver, self._less_liver),
            (Structure.FLR, lambda v, m: self._move_cut(v, True), lambda v, m: self._move_cut(v, False)),
            (Structure.CRLM, self._more_crlm, self._less_crlm),
        ):
            own = marks.get(structure, Marks())
            for inside, act in ((False, take), (True, add)):
                for stroke in self._strokes(own.inside if inside else own.outside, self._mask(structure), inside):
                    wrong = self._wrong(stroke, self._mask(structure), inside)  # an earlier mark may have settled it
                    if len(wrong):
                        used += act(wrong, own)
        if given and not used and self.notes:
            raise LabelError("; ".join(self.notes))
        if not self.liver.any():
            raise LabelError("nothing would remain of the liver; mark a voxel as liver, too, or delete the mark")
        self._keep_lesions_whole()
        return Correction({Structure.LIVER: self.liver, Structure.CRLM: self.crlm, Structure.FLR: self.flr}, tuple(self.notes))

    def _mask(self, structure: Structure) -> Mask:
        return {Structure.LIVER: self.liver, Structure.CRLM: self.crlm, Structure.FLR: self.flr}[structure]

    @staticmethod
    def _wrong(voxels: Voxels, mask: Mask, inside: bool) -> Voxels:
        return np.asarray(voxels[mask[tuple(voxels.T)] != inside])

    def _strokes(self, voxels: Voxels, mask: Mask, inside: bool) -> list[Voxels]:
        """The marks that the mask contradicts, near ones together."""
        wrong = self._wrong(voxels, mask, inside)
        if not len(wrong):
            return []
        cells = (wrong * (np.array(self.geometry.spacing_zyx_mm) / _STROKE_MM)).astype(np.intp)
        cells -= cells.min(axis=0)
        grid = np.zeros(cells.max(axis=0) + 1, np.bool_)
        grid[tuple(cells.T)] = True
        parts, count = ndimage.label(grid, TOUCHING)
        if count > MOST_MARKS:
            raise LabelError(
                f"{count} marks contradict the label, more than the {MOST_MARKS} that are taken at once; use fewer, in the middle of what "
                "is wrong, or draw with the brush"
            )
        number = parts[tuple(cells.T)]
        return [wrong[number == n] for n in range(1, count + 1)]

    def _place(self, voxels: Voxels) -> str:
        z, y, x = (int(n) for n in self._axes.voxels_backward(voxels)[0])
        return f"the mark at {[x, y, z]}"

    # -- metastases

    def _more_crlm(self, stroke: Voxels, marks: Marks) -> bool:
        within = stroke[self.liver[tuple(stroke.T)]]
        if not len(within):
            self.notes.append(
                f"{self._place(stroke)} lies outside the liver, and a metastasis of this plan lies in it: nothing was added; if the liver is "
                "missing there, mark it as liver first"
            )
            return False
        box = _Box(self, within, self.settings.reach_mm)
        x, part, near = box.hu_within(self.liver), box.means(self.liver), box.distance(within)
        around = near <= _SEED_MM + box.edge_mm.max() / 2
        tissue = (part > 0.5) & (box.means(self.crlm) < 0.2) & ~around
        usual, noise = _usual(x[tissue], self.settings.least_hu)
        own = float(np.median(x[around & (part > 0)]))
        alike = _clipped(((x - usual) ** 2 - (x - own) ** 2) / (2 * noise**2))
        if self.probability is not None:
            likely = logit(np.clip(box.means(self.probability) / 255, 0.02, 0.98))
            alike = alike + self.settings.network * (likely - min(float(likely[around].max()), 0.0))
        radius = _radius(expit(alike), near, part > 0.5, tissue, self.settings.reach_mm)
        if not radius:
            self.notes.append(
                f"{self._place(within)} looks like the liver around it, so only its place was marked; draw the rest"
            )
            radius = _SEED_MM
        if (known := box.depth(box.means(self.crlm) > 0.5, within)) is not None:
            radius = min(radius, max(known, _SEED_MM))  # a neighbour that is there already is no part of it
        lean = np.clip(4 * (1.3 - near / radius), -8, 1)
        domain = np.where(near <= 2 * radius + _SEED_MM, part, 0)
        found = box.piece(box.walk(domain, expit(alike + lean), within, marks.outside), within) & self.liver[box.slices]
        self.crlm[box.slices] |= found
        self.touched.append(within)
        return True

    def _less_crlm(self, stroke: Voxels, marks: Marks) -> bool:
        """The whole piece, where the mark is in its middle and no mark says that it is a metastasis; else what lies around the mark."""
        box = _Box(self, np.argwhere(self.crlm), 0.0)
        parts, _ = ndimage.label(self.crlm[box.slices], TOUCHING)
        own = tuple(box.local(stroke).T)
        piece = np.isin(parts, np.unique(parts[own]))
        cut = ndimage.find_objects(piece.view(np.uint8))[0]
        depth = ndimage.distance_transform_edt(np.pad(piece[cut], 1), sampling=self.geometry.spacing_zyx_mm)[1:-1, 1:-1, 1:-1]
        deepest = depth[tuple((box.local(stroke) - [c.start for c in cut]).T)].max()
        kept = box.within(marks.inside)
        if piece[tuple(kept.T)].any() or deepest < self.settings.middle * depth.max():
            return self._move_border(self.crlm, stroke, marks, add=False)
        self.crlm[box.slices] &= ~piece
        return True

    # -- the liver

    def _more_liver(self, stroke: Voxels, marks: Marks) -> bool:
        return self._move_border(self.liver, stroke, marks, add=True)

    def _less_liver(self, stroke: Voxels, marks: Marks) -> bool:
        return self._move_border(self.liver, stroke, marks, add=False)

    def _move_border(self, mask: Mask, stroke: Voxels, marks: Marks, add: bool) -> bool:
        """Adds what is like the mask's inside, or takes away what is like the stroke, about as far as the stroke lies beyond the border."""
        box = _Box(self, stroke, self.settings.reach_mm)
        within = box.means(mask) > 0.5
        far = box.depth(within if add else ~within, stroke)
        if far is None:
            there = mask.any() if add else not mask.all()
            self.notes.append(
                f"{self._place(stroke)} lies more than {self.settings.reach_mm:g} mm from the border; mark nearer to it"
                if there
                else f"{self._place(stroke)} moves nothing: there is no border; draw one with the brush"
            )
            return False
        near, reach = box.distance(stroke), 1.5 * far + 2 * _SEED_MM
        usual, noise = _usual(box.hu[within], self.settings.least_hu)
        if add:
            alike = 2 - (box.hu - usual) ** 2 / (2 * noise**2)
        else:
            own = float(np.median(box.hu[near <= _SEED_MM + box.edge_mm.max() / 2]))
            alike = ((box.hu - usual) ** 2 - (box.hu - own) ** 2) / (2 * noise**2)
        lean = 4 * (0.7 - near / reach)
        domain = (within != add) & (near <= reach)
        s = box.walk(domain.astype(np.float32), expit(_clipped(alike) + lean), stroke, marks.outside if add else marks.inside)
        changed = box.piece(s, stroke) & (mask[box.slices] != add)
        if mask is self.liver and add:
            nearest = ndimage.distance_transform_edt(
                ~self.liver[box.slices], sampling=self.geometry.spacing_zyx_mm, return_distances=False, return_indices=True
            )
            self.flr[box.slices] |= changed & self.flr[box.slices][tuple(nearest)]
        if add:
            mask[box.slices] |= changed
        for nested in () if add else (self.liver, self.crlm, self.flr) if mask is self.liver else (mask,):
            nested[box.slices] &= ~changed
        return True

    # -- the cut

    def _move_cut(self, stroke: Voxels, to_remnant: bool) -> bool:
        within = stroke[self.liver[tuple(stroke.T)]]
        if not len(within):
            self.notes.append(f"{self._place(stroke)} lies outside the liver, so no cut can pass there; mark it as liver first")
            return False
        self.sided.append((within, to_remnant))
        box = _Box(self, within, self.settings.reach_mm)
        liver, remnant = box.means(self.liver) > 0.5, box.means(self.flr) > 0.5
        side = liver & (remnant == to_remnant)
        far = box.depth(side, within)
        if far is None:
            all_other = not (self.flr if to_remnant else self.liver & ~self.flr).any()
            self.notes.append(
                f"{self._place(within)} bends nothing: there is no cut, the whole liver is {'resected' if to_remnant else 'remnant'}; draw a "
                "cut with the brush"
                if all_other
                else f"{self._place(within)} lies more than {self.settings.reach_mm:g} mm from the cut; mark nearer to it"
            )
            return False
        beyond = ndimage.distance_transform_edt(~side, sampling=box.edge_mm)
        width = max(far, 2 * _STROKE_MM)
        bump = (far + _SEED_MM) * np.exp(-0.5 * (box.distance(within) / width) ** 2)
        changed = box.piece(np.where(bump > 1, expit(bump - beyond), 0.0), within)
        changed &= self.liver[box.slices] & (self.flr[box.slices] != to_remnant)
        self.flr[box.slices] ^= changed
        self.touched.append(np.argwhere(changed & self.crlm[box.slices]) + [cut.start for cut in box.slices])
        return True

    def _keep_lesions_whole(self) -> None:
        """Metastases that marks touched lie on one side of the cut: the marked one, else the one that holds more of it."""
        touched = [v for v in (*self.touched, *(v for v, _ in self.sided)) if len(v)]
        if not touched or not self.crlm.any():
            return
        box = _Box(self, np.argwhere(self.crlm), 0.0)
        lesions, count = ndimage.label(self.crlm[box.slices], TOUCHING)
        flr = self.flr[box.slices]
        sizes = np.bincount(lesions.ravel(), minlength=count + 1)
        left = np.bincount(lesions[flr], minlength=count + 1)
        to_remnant = 2 * left > sizes

        def numbers(voxels: Voxels) -> NDArray[Any]:
            found = np.unique(lesions[tuple(box.within(voxels).T)])
            return np.asarray(found[found > 0])

        chosen = np.unique(np.concatenate([numbers(v) for v in touched]))
        for voxels, side in self.sided:
            to_remnant[numbers(voxels)] = side
        moved = np.isin(lesions, chosen)
        flr[moved] = to_remnant[lesions[moved]]


class _Box:
    """The surroundings of some voxels, on blocks of voxels about as long as wide."""

    def __init__(self, plan: _Plan, voxels: Voxels, margin_mm: float) -> None:
        spacing = np.array(plan.geometry.spacing_zyx_mm)
        margin = np.ceil(margin_mm / spacing).astype(np.intp)
        low = np.maximum(voxels.min(axis=0) - margin, 0)
        high = np.minimum(voxels.max(axis=0) + margin + 1, plan.hu.shape)
        self._plan = plan
        self.slices = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        self.blocks = tuple(max(1, round(plan.settings.grid_mm / s)) for s in spacing)
        self.edge_mm: NDArray[np.float64] = spacing * self.blocks

    def means(self, array: NDArray[Any]) -> Values:
        """Means of an array over the blocks of this box."""
        return block_means(array[self.slices], self.blocks)

    @cached_property
    def hu(self) -> Values:
        """The CT in this box."""
        return self.means(self._plan.hu)

    def hu_within(self, mask: Mask) -> Values:
        """The CT in this box of the mask's voxels alone; 0 where there are none."""
        part = self.means(mask)
        of_mask = block_means(np.where(mask[self.slices], self._plan.hu[self.slices], 0), self.blocks)
        return np.asarray(of_mask / np.maximum(part, np.float32(1e-6)))

    def local(self, voxels: Voxels) -> Voxels:
        """The same voxels, counted in this box."""
        return voxels - [cut.start for cut in self.slices]

    def within(self, voxels: Voxels) -> Voxels:
        """Those of the voxels that lie in this box, counted in it."""
        own = self.local(voxels)
        return np.asarray(own[np.all((own >= 0) & (own < [cut.stop - cut.start for cut in self.slices]), axis=1)])

    def marked(self, voxels: Voxels) -> Mask:
        """The blocks with these voxels; those beside the box are left out."""
        found = np.zeros(self.hu.shape, np.bool_)
        found[tuple((self.within(voxels) // self.blocks).T)] = True
        return found

    def distance(self, voxels: Voxels) -> NDArray[np.float64]:
        """Of each block to the nearest of these voxels [mm]."""
        return np.asarray(ndimage.distance_transform_edt(~self.marked(voxels), sampling=self.edge_mm))

    def depth(self, side: Mask, voxels: Voxels) -> float | None:
        """How far these voxels lie from ``side`` at most [mm]; None where that is not in this box."""
        if not side.any():
            return None
        found = float(ndimage.distance_transform_edt(~side, sampling=self.edge_mm)[self.marked(voxels)].max())
        return found if found <= self._plan.settings.reach_mm else None

    def walk(self, part: Values, p: NDArray[Any], inside: Voxels, outside: Voxels) -> NDArray[Any]:
        """The random walker's probability on the blocks, 0 where ``part`` is; marks decide their surroundings."""
        weight = part.astype(np.float32)
        p = p.astype(np.float32)
        for voxels, value in ((outside, 0), (inside, 1)):
            if self.marked(voxels).any():
                seed = self.distance(voxels) <= _SEED_MM / 2
                p[seed], weight[seed] = value, _SURE
        solved = part > 0
        s = np.zeros(part.shape)
        if solved.any():
            s[solved] = random_walker(part, p, weight, self._plan.settings.smoothing_mm / self.edge_mm)
        return s

    def piece(self, s: NDArray[Any], voxels: Voxels) -> Mask:
        """Of what is above one half, the pieces with these voxels, on the voxels of this box; the voxels themselves always."""
        fine = ndimage.zoom(s, self.blocks, order=1, mode="nearest", grid_mode=True)
        found = fine[tuple(slice(cut.stop - cut.start) for cut in self.slices)] > 0.5
        own = self.local(voxels)
        found[tuple(own.T)] = True
        parts, _ = ndimage.label(found, TOUCHING)
        return np.isin(parts, np.unique(parts[tuple(own.T)]))


def _radius(p: NDArray[Any], near: NDArray[Any], liver: Mask, tissue: Mask, most: float) -> float:
    """How far from a mark [mm] what is like it reaches on the average: where ``p`` has fallen half-way to that of the tissue around.

    0 where the mark does not stand out from it.
    """
    here, around = float(p[near == 0].mean()), float(np.median(p[tissue])) if tissue.any() else 0.0
    if here - around < _STANDS_OUT:
        return 0.0
    shells = np.ceil(near[liver & (near > 0)] / _SEED_MM).astype(np.intp)
    count = np.bincount(shells, minlength=3)
    mean = np.bincount(shells, p[liver & (near > 0)], minlength=3) / np.maximum(count, 1)
    fallen = np.flatnonzero((mean < (here + around) / 2)[2:])
    return float(min(most, _SEED_MM * (fallen[0] + 2 if fallen.size else most)))


def _usual(values: NDArray[Any], least: float) -> tuple[float, float]:
    """Median and robust standard deviation, at least ``least``; 0 and ``least`` of nothing."""
    if not values.size:
        return 0.0, least
    middle = float(np.median(values))
    return middle, max(least, 1.4826 * float(np.median(np.abs(values - middle))))


def _clipped(values: NDArray[Any]) -> NDArray[Any]:
    return np.clip(values, -4, 4)
