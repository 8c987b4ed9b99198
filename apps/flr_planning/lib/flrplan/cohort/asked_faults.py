"""One fault of one kind in the label of a case, of every kind that a rule of :mod:`flrplan.qc` names: for measuring these rules.

Each kind has a random stream of its own. Grids and fields of view can be faulty here too, and the image with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.cohort.case import SyntheticCase
from flrplan.cohort.faults import (
    FAULT_STREAM,
    PLANTERS,
    Fault,
    FaultKind,
    FaultyLabel,
    ball_in,
    box_at,
    corner_of,
    random_spots,
    true_label,
    voxels_of,
)
from flrplan.cohort.organs import Organ, Stream, stream
from flrplan.errors import SettingsError
from flrplan.image import Geometry

Planter = Callable[[np.random.Generator, FaultyLabel, SyntheticCase], None]
_TRIES = 200
_CLEAR_MM = 15.0
_NO_ISLANDS = (Organ.AIR, Organ.TABLE, Organ.SKIN)
_SINGLE_ORGANS = ((Organ.SPLEEN,), (Organ.HEART_WALL, Organ.HEART_BLOOD), (Organ.KIDNEY_CORTEX, Organ.KIDNEY_MEDULLA),
                  (Organ.STOMACH_WALL, Organ.STOMACH_CONTENT))  # fmt: skip
_READ_MM = (5.0, 15.0)
"""Larger spacings in plane and between slices are refused by every reader of CTs (:mod:`flrplan.image.hounsfield`)."""
_LEAST_ORGAN_ML = 60.0


def plant_fault(case: SyntheticCase, kind: FaultKind, seed: int, index: int) -> FaultyLabel:
    """The label of a case with a fault of this kind, and no other; without any where the case has no room for it.

    It depends on (seed, index, size, kind) alone.
    """
    rng = stream(seed, index, Stream.LESIONS, FAULT_STREAM + 1 + list(FaultKind).index(kind))
    label = true_label(case)
    _ALL[kind](rng, label, case)
    return label


def plant_asked_faults(case: SyntheticCase, seed: int, index: int, share: float, kinds: Sequence[str]) -> FaultyLabel:
    """The label of a case with one of these kinds of fault, in turn by index, in this share of all cases; else the truth.

    Raises: SettingsError for an unknown kind.
    """
    parsed = parse_kinds(kinds)
    faulty = stream(seed, index, Stream.LESIONS, FAULT_STREAM).random() < share
    return plant_fault(case, parsed[index % len(parsed)], seed, index) if faulty else true_label(case)


def parse_kinds(names: Sequence[str]) -> tuple[FaultKind, ...]:
    """Kinds of fault by their names in lower case, ``all`` for every one. Raises: SettingsError naming the known ones."""
    known = {kind.name.lower(): kind for kind in FaultKind}
    wrong = sorted({*names} - {*known, "all"})
    if wrong:
        raise SettingsError(f"unknown kinds of fault {', '.join(wrong)}; known are all, {', '.join(known)}")
    return tuple(FaultKind) if "all" in names else tuple(known[name] for name in names)


def _ragged_cut(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    spacing = label.geometry.spacing_zyx_mm
    swing_mm = float(rng.uniform(3.0, 5.0))
    whole = ndimage.find_objects(label.liver.view(np.uint8))[0]
    liver, flr = label.liver[whole], label.flr[whole]
    if flr.all() or not flr.any():
        return
    depth = ndimage.distance_transform_edt(flr, sampling=spacing) - ndimage.distance_transform_edt(~flr, sampling=spacing)
    jags = ndimage.gaussian_filter(rng.standard_normal(liver.shape), [0.0, *(3.0 / s for s in spacing[1:])])
    jags *= swing_mm / max(float(jags.std()), 1e-6)
    after = np.where(liver & ~label.crlm[whole] & (np.abs(depth) <= 2 * swing_mm), depth + jags > 0, flr)
    _replace(label, FaultKind.RAGGED_CUT, Structure.FLR, label.flr, whole, after)


def _island(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    far = ndimage.distance_transform_edt(~label.liver, sampling=label.geometry.spacing_zyx_mm) > _CLEAR_MM
    body = far & ~np.isin(case.organs_zyx, _NO_ISLANDS)
    for spot in random_spots(rng, body, int(rng.integers(1, 4))):
        radius_mm = float(rng.uniform(6, 12))
        box = box_at(spot, voxels_of(label.geometry, radius_mm), label.liver.shape)
        island = ball_in(box, spot, radius_mm, label.geometry) & body[box]
        _replace(label, FaultKind.ISLAND, Structure.LIVER, label.liver, box, label.liver[box] | island)


def _flr_outside(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    rim = label.flr & ~ndimage.binary_erosion(label.liver)
    for spot in random_spots(rng, rim, _TRIES):
        radius_mm = float(rng.uniform(8, 18))
        box = box_at(spot, voxels_of(label.geometry, radius_mm), label.liver.shape)
        beyond = ball_in(box, spot, radius_mm, label.geometry) & ~label.liver[box]
        if np.count_nonzero(beyond) * label.geometry.voxel_volume_ml >= 1.0:
            _replace(label, FaultKind.FLR_OUTSIDE, Structure.FLR, label.flr, box, label.flr[box] | beyond)
            return


def _unlike(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    """A resection that was drawn against another remnant: a gap of some mm is left along the cut."""
    lrs = label.liver & ~label.flr
    gap_mm = float(rng.uniform(4, 8))
    label.lrs = lrs & (ndimage.distance_transform_edt(~label.flr, sampling=label.geometry.spacing_zyx_mm) > gap_mm)
    label.record(FaultKind.UNLIKE, Structure.LRS, (0, 0, 0), lrs, label.lrs)


def _pieces(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    """Balls of remnant inside the resection."""
    spacing = label.geometry.spacing_zyx_mm
    wanted = int(rng.integers(1, 4))
    for spot in random_spots(rng, label.liver & ~label.flr & ~label.crlm, _TRIES):
        radius_mm = float(rng.uniform(7, 11))
        box = box_at(spot, voxels_of(label.geometry, radius_mm) + voxels_of(label.geometry, 3.0), label.flr.shape)
        ball = ball_in(box, spot, radius_mm, label.geometry)
        clear = ndimage.binary_dilation(ball, np.ones((3, 3, 3))) | (
            ndimage.distance_transform_edt(~ball, sampling=spacing) <= 3.0
        )
        if (clear & (label.flr[box] | ~label.liver[box])).any():
            continue
        _replace(label, FaultKind.PIECES, Structure.FLR, label.flr, box, label.flr[box] | ball)
        if len(label.faults) == wanted:
            return


def _shell(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    """The outermost 2 to 3.5 mm of the remnant on one side go to the resection; at least one voxel."""
    spacing = label.geometry.spacing_zyx_mm
    depth = ndimage.distance_transform_edt(label.liver, sampling=spacing)
    thick_mm = max(float(rng.uniform(2.0, 3.5)), min(spacing) + 0.01)
    direction = rng.standard_normal(3)
    at = np.stack(np.nonzero(label.flr), 1) * np.asarray(spacing)
    if not len(at):
        return
    along = (at - at.mean(0)) @ (direction / np.linalg.norm(direction))
    side = np.zeros(label.flr.shape, bool)
    side[label.flr] = along > np.quantile(along, rng.uniform(0.2, 0.6))
    box = ndimage.find_objects(label.flr.view(np.uint8))[0]
    gone = side & (depth <= thick_mm) & ~label.crlm
    _replace(label, FaultKind.SHELL, Structure.FLR, label.flr, box, (label.flr & ~gone)[box])


def _cut_off(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    """The scan ends within the liver: above, below, or on its right."""
    axis, end = ((0, True), (0, False), (2, False))[int(rng.integers(3))]
    hit = np.flatnonzero(label.liver.any(axis=tuple(a for a in range(3) if a != axis)))
    lost = max(round(float(rng.uniform(0.1, 0.3)) * hit.size), 1)
    kept = slice(0, int(hit[-1]) + 1 - lost) if end else slice(int(hit[0]) + lost, label.liver.shape[axis])
    view = tuple(kept if a == axis else slice(0, n) for a, n in enumerate(label.liver.shape))
    before = label.liver.copy()
    label.view = (view[0], view[1], view[2])
    inside = np.zeros(before.shape, bool)
    inside[label.view] = True
    label.record(FaultKind.CUT_OFF, Structure.LIVER, (0, 0, 0), before, before & inside)
    label.liver, label.crlm, label.flr = (mask[label.view].copy() for mask in (label.liver, label.crlm, label.flr))
    label.geometry = label.image_geometry = label.geometry.crop(label.view)


def _spacing(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    """Image and label both say half, or twice, the true spacing; half where nobody would read the double."""
    x, y, z = label.geometry.spacing_mm
    factor = 2.0 if rng.random() < 0.5 and 2 * max(x, y) < _READ_MM[0] and 2 * z < _READ_MM[1] else 0.5
    label.geometry = label.image_geometry = replace(label.geometry, spacing_mm=(x * factor, y * factor, z * factor))
    _whole_grid(label, FaultKind.SPACING)


def _organ(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    least = _LEAST_ORGAN_ML / label.geometry.voxel_volume_ml
    for number in rng.permutation(len(_SINGLE_ORGANS)):
        organ = np.isin(case.organs_zyx, _SINGLE_ORGANS[number])
        if np.count_nonzero(organ) >= least:
            _in_place_of_liver(label, FaultKind.ORGAN, organ)
            return


def _vessels(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    _in_place_of_liver(
        label,
        FaultKind.VESSELS,
        (case.vessels_zyx > 0) | np.isin(case.organs_zyx, (Organ.CAVA, Organ.PORTAL_TRUNK, Organ.AORTA)),
    )


def _other_grid(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
    """Moved, of another slice spacing, or without its last slice."""
    geometry, kind = label.geometry, int(rng.integers(3))
    x, y, z = geometry.size_xyz
    if kind == 0:
        moved = np.asarray(geometry.origin_mm) + rng.uniform(3, 20, 3) * rng.choice((-1, 1), 3)
        label.geometry = replace(geometry, origin_mm=(float(moved[0]), float(moved[1]), float(moved[2])))
    elif kind == 1:
        wide, high, slices = geometry.spacing_mm
        label.geometry = replace(geometry, spacing_mm=(wide, high, slices * float(rng.choice((0.64, 1.25)))))
    else:
        label.geometry = geometry.crop((slice(0, z - 1), slice(0, y), slice(0, x)))
        label.liver, label.crlm, label.flr = (mask[:-1].copy() for mask in (label.liver, label.crlm, label.flr))
    _whole_grid(label, FaultKind.OTHER_GRID)


def _flipped(kind: FaultKind, axis: int) -> Planter:
    def plant(rng: np.random.Generator, label: FaultyLabel, case: SyntheticCase) -> None:
        before = label.liver
        label.liver, label.crlm, label.flr = (np.flip(m, axis).copy() for m in (label.liver, label.crlm, label.flr))
        label.record(kind, Structure.LIVER, (0, 0, 0), before, label.liver)

    return plant


def _in_place_of_liver(label: FaultyLabel, kind: FaultKind, mask: Mask) -> None:
    before = label.liver
    label.liver, label.crlm, label.flr = mask, np.zeros(mask.shape, bool), mask.copy()
    label.record(kind, Structure.LIVER, (0, 0, 0), before, mask)


def _replace(
    label: FaultyLabel,
    kind: FaultKind,
    structure: Structure,
    mask: Mask,
    box: tuple[slice, slice, slice],
    after: NDArray[np.bool_],
) -> None:
    before = mask[box].copy()
    mask[box] = after
    label.record(kind, structure, corner_of(box), before, mask[box])


def _whole_grid(label: FaultyLabel, kind: FaultKind) -> None:
    """Notes a fault of the grid, in which no voxel of the label differs."""
    geometry: Geometry = label.geometry
    z, y, x = geometry.shape_zyx
    middle = geometry.world_mm(np.array([[(x - 1) / 2, (y - 1) / 2, (z - 1) / 2]]))[0]
    centre = (float(middle[0]), float(middle[1]), float(middle[2]))
    label.faults.append(Fault(kind, Structure.LIVER, ((0, 0, 0), (z - 1, y - 1, x - 1)), centre, 0, 0))


_ALL: dict[FaultKind, Planter] = {
    **PLANTERS,
    FaultKind.RAGGED_CUT: _ragged_cut,
    FaultKind.ISLAND: _island,
    FaultKind.FLR_OUTSIDE: _flr_outside,
    FaultKind.UNLIKE: _unlike,
    FaultKind.PIECES: _pieces,
    FaultKind.SHELL: _shell,
    FaultKind.CUT_OFF: _cut_off,
    FaultKind.SPACING: _spacing,
    FaultKind.ORGAN: _organ,
    FaultKind.VESSELS: _vessels,
    FaultKind.OTHER_GRID: _other_grid,
    FaultKind.LEFT_RIGHT: _flipped(FaultKind.LEFT_RIGHT, 2),
    FaultKind.UP_DOWN: _flipped(FaultKind.UP_DOWN, 0),
}
