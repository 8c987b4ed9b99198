"""Label faults as annotators meet them, planted where they are known: voids, ragged borders, wrong, missed and swollen lesions.

:func:`plant_faults` draws from the kinds that the refinement of TCIA Colorectal-Liver-Metastases found and mended (arXiv:2604.07999,
Fig. 1 to 3); :func:`flrplan.cohort.asked_faults.plant_fault` plants any one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import PLANNED, Mask, NestingReport, Structure, structure_mask, to_compartments
from flrplan.cohort.case import SyntheticCase
from flrplan.cohort.organs import Organ, Stream, stream
from flrplan.image import Geometry

FAULT_STREAM = 1000
_SECOND_SHARE = 0.35
_TRIES = 60
_WRONG_PLACES = ((Organ.LUNG, Organ.SPLEEN, Organ.VISCERAL_FAT), (Organ.SPLEEN, Organ.LUNG, Organ.VISCERAL_FAT))


class FaultKind(StrEnum):
    """What is wrong with a label."""

    VOID = "patch-like void in the liver"
    RAGGED = "ragged liver border"
    OUTSIDE = "CRLM outside the liver"
    PUNCTATE = "tiny punctate focus"
    OVERSEGMENTED = "over-segmented lesion"
    MISSED = "missed lesion"
    RAGGED_CUT = "ragged cut"
    ISLAND = "stray island of liver"
    FLR_OUTSIDE = "FLR outside the liver"
    UNLIKE = "liver unlike FLR and resection"
    PIECES = "remnant in pieces"
    SHELL = "resection as a shell along the capsule"
    CUT_OFF = "liver cut by the field of view"
    SPACING = "wrong spacing"
    ORGAN = "another organ for the liver"
    VESSELS = "vessels for the liver"
    OTHER_GRID = "label on another grid"
    LEFT_RIGHT = "left and right swapped"
    UP_DOWN = "up and down swapped"


OF_LESIONS = (FaultKind.OUTSIDE, FaultKind.PUNCTATE, FaultKind.OVERSEGMENTED, FaultKind.MISSED)
OF_LIVER = (FaultKind.VOID, FaultKind.RAGGED)


@dataclass(frozen=True)
class Fault:
    """One fault: ``box_zyx`` is the first and the last voxel that differ, ``centre_mm`` their middle in LPS.

    In a liver fault the FLR follows the liver.
    """

    kind: FaultKind
    structure: Structure
    box_zyx: tuple[tuple[int, int, int], tuple[int, int, int]]
    centre_mm: tuple[float, float, float]
    voxels_added: int
    voxels_removed: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": self.kind.value,
            "structure": self.structure.value,
            "box_zyx": [list(corner) for corner in self.box_zyx],
            "centre_mm": [round(c, 2) for c in self.centre_mm],
            "voxels_added": self.voxels_added,
            "voxels_removed": self.voxels_removed,
        }


@dataclass
class FaultyLabel:
    """Binary masks ``(Z, Y, X) bool`` with their faults; where there are none, they are the truth.

    lrs: where the label states it, and unlike liver - FLR. view: what of the case's grid is scanned and labelled; None: all of it.
    image_geometry: the grid that the image says it lies on; None: the case's own.
    """

    liver: Mask
    crlm: Mask
    flr: Mask
    geometry: Geometry
    faults: list[Fault] = field(default_factory=list)
    lrs: Mask | None = None
    view: tuple[slice, slice, slice] | None = None
    image_geometry: Geometry | None = None

    def planning_map(self) -> tuple[NDArray[np.uint8], NestingReport]:
        """The planning map, and what it cannot hold: CRLM outside the liver."""
        return to_compartments(self.liver, self.crlm, self.flr)

    def record(self, kind: FaultKind, structure: Structure, corner: tuple[int, ...], before: Mask, after: Mask) -> None:
        """Notes a fault in a box that starts at ``corner``; nothing where nothing changed."""
        differs = np.nonzero(before ^ after)
        if differs[0].size == 0:
            return
        low = tuple(int(d.min()) + c for d, c in zip(differs, corner, strict=True))
        high = tuple(int(d.max()) + c for d, c in zip(differs, corner, strict=True))
        middle = self.geometry.world_mm((np.array(low) + np.array(high))[::-1] / 2)
        self.faults.append(
            Fault(
                kind, structure, ((low[0], low[1], low[2]), (high[0], high[1], high[2])),
                (float(middle[0]), float(middle[1]), float(middle[2])),
                int(np.count_nonzero(after & ~before)), int(np.count_nonzero(before & ~after)),
            )
        )  # fmt: skip


def true_label(case: SyntheticCase) -> FaultyLabel:
    """The label of a case without faults, in arrays of its own."""
    liver, crlm, flr = (structure_mask(case.planning_zyx, s) for s in PLANNED)
    return FaultyLabel(liver, crlm, flr, case.geometry)


def plant_faults(case: SyntheticCase, seed: int, index: int, share: float) -> FaultyLabel:
    """The label of a case, faulty in this share of all cases; depends on (seed, index, size) alone.

    A faulty case has faults of one kind, one in three has a second kind: of the lesions, if the first is one of the liver, and
    the other way round. So the voxels of the faults of one structure add up to what differs from the truth.
    """
    rng = stream(seed, index, Stream.LESIONS, FAULT_STREAM)
    label = true_label(case)
    if rng.random() >= share:
        return label
    of_lesions = [OF_LESIONS[i] for i in rng.permutation(len(OF_LESIONS))]
    of_liver = [OF_LIVER[i] for i in rng.permutation(len(OF_LIVER))]
    lesions_first = rng.random() < 0.6
    both = rng.random() < _SECOND_SHARE
    # Lesions before the liver: faults of the liver keep clear of them.
    for wanted, kinds in ((lesions_first or both, of_lesions), (not lesions_first or both, of_liver)):
        for kind in kinds if wanted else ():
            count = len(label.faults)
            PLANTERS[kind](rng, label, case)
            if len(label.faults) > count:
                break
    return label


def voxels_of(geometry: Geometry, mm: float | NDArray[np.float64]) -> NDArray[np.int64]:
    """Lengths in mm as voxels ``(3,)`` along z, y, x, at least one."""
    return np.asarray(np.maximum(np.rint(np.asarray(mm) / geometry.spacing_zyx_mm), 1), np.int64)


def random_spots(rng: np.random.Generator, mask: Mask, count: int) -> NDArray[np.int64]:
    """Random voxels of a mask ``(N, 3)``, at most ``count``."""
    found = np.flatnonzero(mask)
    chosen = rng.choice(found, min(count, found.size), replace=False) if found.size else found
    return np.stack(np.unravel_index(chosen, mask.shape), 1)


def box_at(spot: NDArray[np.int64], half: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """The box that reaches ``half`` voxels around a voxel, within the array."""
    a, b, c = (slice(max(int(s - h), 0), min(int(s + h) + 1, n)) for s, h, n in zip(spot, half, shape, strict=True))
    return (a, b, c)


def corner_of(box: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    """The first voxel of a box."""
    return (box[0].start, box[1].start, box[2].start)


def ball_in(box: tuple[slice, slice, slice], spot: NDArray[np.int64], radius_mm: float, geometry: Geometry) -> Mask:
    """What of a box lies within a ball around a voxel."""
    z, y, x = ((np.arange(cut.start, cut.stop) - s) * mm for cut, s, mm in zip(box, spot, geometry.spacing_zyx_mm, strict=True))
    return np.asarray(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius_mm**2)


def _voids(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    wanted = int(rng.integers(1, 5))
    taken = np.zeros(label.liver.shape, bool)
    for spot in random_spots(rng, label.liver & ~label.crlm, _TRIES):
        half = voxels_of(label.geometry, np.array([rng.uniform(2, 8), *rng.uniform(6, 20, 2)]))
        box = box_at(spot, half, label.liver.shape)
        if taken[box].any():
            continue
        taken[box] = True
        # A patch: blocks that overlap in the middle, in every slice the same.
        patch = np.zeros(label.liver[box].shape[1:], bool)
        for _ in range(3):
            low, high = (rng.integers(0, n // 2 + 1) for n in patch.shape), (rng.integers(n // 2, n) + 1 for n in patch.shape)
            y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
            patch[y, x] = True
        gone = np.broadcast_to(patch, label.liver[box].shape) & label.liver[box] & ~label.crlm[box]
        before = label.liver[box].copy()
        label.liver[box] &= ~gone
        label.flr[box] &= ~gone
        label.record(FaultKind.VOID, Structure.LIVER, corner_of(box), before, label.liver[box])
        if sum(f.kind is FaultKind.VOID for f in label.faults) == wanted:
            return


def _ragged(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    rows, columns = np.nonzero(label.liver.any((1, 2)))[0], np.nonzero(label.liver.any(0))
    count = max(int(rows.size * rng.uniform(0.3, 0.7)), 1)
    first = int(rows[0]) + int(rng.integers(rows.size - count + 1))
    margin = voxels_of(label.geometry, 8.0)
    low = [max(int(c.min()) - int(m), 0) for c, m in zip(columns, margin[1:], strict=True)]
    high = [int(c.max()) + int(m) + 1 for c, m in zip(columns, margin[1:], strict=True)]
    box = (slice(first, first + count), slice(low[0], high[0]), slice(low[1], high[1]))
    spacing = label.geometry.spacing_zyx_mm[1:]
    swing_mm = float(rng.uniform(2.5, 5.0))
    before, flr = label.liver[box].copy(), label.flr[box]
    for row in range(count):
        liver = before[row]
        if not liver.any() or liver.all():
            continue
        outside, nearest = ndimage.distance_transform_edt(~liver, sampling=spacing, return_indices=True)
        depth = ndimage.distance_transform_edt(liver, sampling=spacing) - outside
        jags = ndimage.gaussian_filter(rng.standard_normal(liver.shape), [3.0 / s for s in spacing])
        jags *= swing_mm / max(float(jags.std()), 1e-6)
        after = np.where((np.abs(depth) <= 2 * swing_mm) & ~label.crlm[box][row], depth + jags > 0, liver)
        label.liver[box][row] = after
        flr[row] = flr[row][tuple(nearest)] & after
    label.record(FaultKind.RAGGED, Structure.LIVER, corner_of(box), before, label.liver[box])


def _outside(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    for organ in _WRONG_PLACES[int(rng.random() < 0.25)]:
        for spot in random_spots(rng, case.organs_zyx == organ, _TRIES):
            radius_mm = float(rng.uniform(4, 13))
            box = box_at(spot, voxels_of(label.geometry, radius_mm), label.crlm.shape)
            ball = ball_in(box, spot, radius_mm, label.geometry) & ~label.liver[box]
            if np.count_nonzero(ball & (case.organs_zyx[box] == organ)) < 0.8 * np.count_nonzero(ball):
                continue
            before = label.crlm[box].copy()
            label.crlm[box] |= ball
            label.record(FaultKind.OUTSIDE, Structure.CRLM, corner_of(box), before, label.crlm[box])
            return


def _punctate(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    wanted = int(rng.integers(3, 13))
    for spot in random_spots(rng, label.liver & ~label.crlm, _TRIES):
        radius_mm = float(rng.uniform(0.8, 2.2))
        box = box_at(spot, voxels_of(label.geometry, radius_mm) + 1, label.crlm.shape)
        if label.crlm[box].any():  # a focus of its own touches no other
            continue
        before = label.crlm[box].copy()
        label.crlm[box] |= ball_in(box, spot, radius_mm, label.geometry) & label.liver[box]
        label.record(FaultKind.PUNCTATE, Structure.CRLM, corner_of(box), before, label.crlm[box])
        if sum(f.kind is FaultKind.PUNCTATE for f in label.faults) == wanted:
            return


def _lesion_boxes(label: FaultyLabel) -> Iterator[tuple[tuple[slice, slice, slice], Mask]]:
    """Every lesion that touches no other: its box, and which voxels of the box are its own."""
    whole = ndimage.find_objects(label.crlm.view(np.uint8))[0]
    pieces, _ = ndimage.label(label.crlm[whole], np.ones((3, 3, 3)))
    for number, found in enumerate(ndimage.find_objects(pieces)):
        a, b, c = (slice(cut.start + w.start, cut.stop + w.start) for cut, w in zip(found, whole, strict=True))
        yield (a, b, c), pieces[found] == number + 1


def _oversegmented(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    lesions = list(_lesion_boxes(label))
    for number in rng.permutation(len(lesions))[: int(rng.integers(1, 4))]:
        tight, lesion = lesions[number]
        grow_mm = float(rng.uniform(3, 8))
        margin = voxels_of(label.geometry, grow_mm) + 1
        a, b, c = (
            slice(max(cut.start - int(m), 0), min(cut.stop + int(m), n))
            for cut, m, n in zip(tight, margin, label.crlm.shape, strict=True)
        )
        box = (a, b, c)
        around = [(t.start - w.start, w.stop - t.stop) for t, w in zip(tight, box, strict=True)]
        distance = ndimage.distance_transform_edt(~np.pad(lesion, around), sampling=label.geometry.spacing_zyx_mm)
        before = label.crlm[box].copy()
        label.crlm[box] |= (distance <= grow_mm) & label.liver[box]
        label.record(FaultKind.OVERSEGMENTED, Structure.CRLM, corner_of(box), before, label.crlm[box])


def _missed(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    lesions = list(_lesion_boxes(label))
    if len(lesions) < 2:  # a label without any lesion is another matter
        return
    box, lesion = lesions[int(rng.integers(len(lesions)))]
    before = label.crlm[box].copy()
    label.crlm[box] &= ~lesion
    label.record(FaultKind.MISSED, Structure.CRLM, corner_of(box), before, label.crlm[box])


PLANTERS: dict[FaultKind, Callable[[np.random.Generator, FaultyLabel, SyntheticCase], None]] = {
    FaultKind.VOID: _voids,
    FaultKind.RAGGED: _ragged,
    FaultKind.OUTSIDE: _outside,
    FaultKind.PUNCTATE: _punctate,
    FaultKind.OVERSEGMENTED: _oversegmented,
    FaultKind.MISSED: _missed,
}
