"""The best fixed plane: one normal for all patients, chosen on training cases alone, as a model is trained on them.

A first pass reads the truth of the cross-validation's cases and keeps some voxels of each liver. For a case of a fold, the other
folds choose; for a held-out case, all folds. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Structure
from flrplan.evaluation.inputs import CaseFiles
from flrplan.evaluation.reading import UNREADABLE
from flrplan.evaluation.trivial_plans import Plane
from flrplan.image import Geometry
from flrplan.metrics import Region
from flrplan.workfolder import TRUTH

SAMPLES = 1024
"""Voxels of each liver that choose, evenly spaced in raster order."""

DIRECTIONS = 200
"""Normals that are tried, spread evenly over the sphere: some 14 degrees apart."""


@dataclass(frozen=True, eq=False)
class LiverSample:
    """Some voxels of one liver of a fold. points_lps_mm: ``(N, 3)``. in_flr: ``(N,) bool``. flr_fraction: of the whole liver, 0..1."""

    case: str
    fold: int
    points_lps_mm: NDArray[np.float64]
    in_flr: NDArray[np.bool_]
    flr_fraction: float


def sample_case(files: CaseFiles) -> LiverSample | None:
    """The sample of a case of a fold; None for a held-out case, an empty liver or a label that cannot be read (told while scoring)."""
    if files.fold is None:
        return None
    try:
        masks, geometry = files.label.read(TRUTH, files.case)
    except UNREADABLE:
        return None
    liver, flr = (Region.of(masks[s], geometry.spacing_zyx_mm) for s in (Structure.LIVER, Structure.FLR))
    return None if liver.is_empty else LiverSample(files.case, files.fold, *sample_liver(liver, flr, geometry))


def sample_liver(liver: Region, flr: Region, geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.bool_], float]:
    """Points, which of them lie in the FLR, and the FLR fraction of a liver, which must not be empty."""
    inside = flr.on_crop_of(liver)
    voxels = np.flatnonzero(liver.crop_zyx)
    chosen = voxels[np.linspace(0, len(voxels) - 1, min(SAMPLES, len(voxels))).astype(np.int64)]
    index_zyx = np.stack(np.unravel_index(chosen, liver.crop_zyx.shape), axis=1) + np.array(liver.start_zyx)
    fraction = np.count_nonzero(inside & liver.crop_zyx) / liver.voxels
    return geometry.world_mm(index_zyx[:, ::-1].astype(float)), inside.ravel()[chosen], float(fraction)


def directions() -> NDArray[np.float64]:
    """``(DIRECTIONS, 3)`` unit vectors on a Fibonacci spiral (Gonzalez 2010, Math Geosci 42:49)."""
    k = np.arange(DIRECTIONS)
    z = 1.0 - (2 * k + 1) / DIRECTIONS
    angle = k * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.sqrt(1.0 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def fit_plane(samples: Sequence[LiverSample]) -> Plane | None:
    """The normal with the highest mean Dice at the mean FLR fraction of the samples; None without samples."""
    if not samples:
        return None
    normals = directions()
    fraction = float(np.mean([s.flr_fraction for s in samples]))
    dice = np.mean([_dice(s, normals, fraction) for s in samples], axis=0)
    best = int(dice.argmax())
    x, y, z = normals[best].tolist()
    return Plane((x, y, z), fraction, len(samples), float(dice[best]))


def _dice(sample: LiverSample, normals: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    """``(normals,)``: Dice of the remnant beyond each plane, on the sample."""
    count = round(fraction * len(sample.in_flr))
    if count == 0:
        return np.zeros(len(normals))
    heights = normals @ sample.points_lps_mm.T
    at = len(sample.in_flr) - count
    keep = heights >= np.partition(heights, at, axis=1)[:, at : at + 1]
    return np.asarray(2.0 * (keep @ sample.in_flr.astype(float)) / (keep.sum(axis=1) + sample.in_flr.sum()))


def fit_planes(samples: Sequence[LiverSample]) -> dict[int | None, Plane]:
    """The plane of each fold, chosen by the others, and of the held-out cases (None), by all. A fold without others has none."""
    folds = sorted({s.fold for s in samples})
    planes = {fold: fit_plane([s for s in samples if s.fold != fold]) for fold in (*folds, None)}
    return {fold: plane for fold, plane in planes.items() if plane is not None}


def planes_json(planes: Mapping[int | None, Plane]) -> dict[str, Any]:
    """The planes for ``summary.json``, by fold, and of the held-out cases."""
    return {
        "test" if fold is None else f"fold_{fold}": {
            "normal_lps": list(plane.normal_lps),
            "flr_fraction": plane.flr_fraction,
            "training_cases": plane.cases,
            "dice_on_samples": plane.dice,
        }
        for fold, plane in planes.items()
    }
