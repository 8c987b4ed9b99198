"""How much two label sets of the same cases differ: original against refined, first against second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from flrplan.anatomy import Structure
from flrplan.errors import LabelError, SettingsError
from flrplan.evaluation.inputs import find_label_set
from flrplan.image import require_same_grid
from flrplan.metrics.lesions import components
from flrplan.metrics.overlap import overlap_outcomes
from flrplan.metrics.region import Region
from flrplan.workfolder import TRUTH, TruthFiles, map_cases


@dataclass(frozen=True)
class Change:
    """One structure of one case. ``dice`` is NaN where both are empty, ``change_percent`` where the first is.

    added, removed: voxels in the second only, in the first only. first_pieces, second_pieces: connected pieces (26).
    removed_pieces: pieces of the first that share no voxel with the second; added_pieces: the other way round.
    removed_ml, largest_removed_mm: volume of the removed pieces, and the sphere diameter of the largest (NaN without any).
    """

    case: str
    structure: Structure
    dice: float
    first_ml: float
    second_ml: float
    change_ml: float
    change_percent: float
    added_voxels: int
    removed_voxels: int
    first_pieces: int
    second_pieces: int
    removed_pieces: int
    added_pieces: int
    removed_ml: float
    largest_removed_mm: float


@dataclass(frozen=True)
class CasePair:
    """The labels of one case in both sets."""

    case: str
    first: TruthFiles
    second: TruthFiles


def pair_cases(first: Path, second: Path, allow_missing: bool = False) -> tuple[list[CasePair], list[str]]:
    """The cases of both sets sorted by id, and a sentence per case that only one has.

    Raises: LabelError for such a case unless ``allow_missing``; SettingsError where no case is in both.
    """
    one, two = find_label_set(first), find_label_set(second)
    gaps = [f"{case} is only in {first if case in one else second}" for case in sorted(set(one) ^ set(two))]
    if gaps and not allow_missing:
        raise LabelError(
            "the two label sets are not of the same cases:\n  " + "\n  ".join(gaps[:50]) + "\n"
            "Complete them, or compare what both have with --allow-missing; the table then says what is missing."
        )
    both = sorted(set(one) & set(two))
    if not both:
        raise SettingsError(f"no case is in both {first} and {second}")
    return [CasePair(case, one[case], two[case]) for case in both], gaps


def compare_case(pair: CasePair) -> list[Change]:
    """Liver, CRLM and FLR of one case. Raises GridError, LabelError or ImageError naming the file."""
    first, geometry = pair.first.read(TRUTH, pair.case)
    second, other = pair.second.read(TRUTH, pair.case)
    require_same_grid(geometry, other, str(pair.first.first), str(pair.second.first))
    spacing = geometry.spacing_zyx_mm
    return [_change(pair.case, s, Region.of(first[s], spacing), Region.of(second[s], spacing)) for s in TRUTH]


def compare_all(pairs: list[CasePair], workers: int = 1, progress: bool = True) -> list[Change]:
    """Every structure of every case, in the order of the cases."""
    return [
        c
        for changes in map_cases(compare_case, pairs, workers, "comparing", name=attrgetter("case"), progress=progress)
        for c in changes
    ]


def _change(case: str, structure: Structure, first: Region, second: Region) -> Change:
    shared = first.voxels_shared_with(second)
    dice = overlap_outcomes(first, second)["dice"]
    removed, first_pieces = _alone(first, second)
    added, second_pieces = _alone(second, first)
    voxel_ml = float(np.prod(first.spacing_zyx_mm)) / 1000.0
    change_ml = second.volume_ml - first.volume_ml
    return Change(
        case=case,
        structure=structure,
        dice=float(dice) if isinstance(dice, float) else math.nan,
        first_ml=first.volume_ml,
        second_ml=second.volume_ml,
        change_ml=change_ml,
        change_percent=100.0 * change_ml / first.volume_ml if first.voxels else math.nan,
        added_voxels=second.voxels - shared,
        removed_voxels=first.voxels - shared,
        first_pieces=first_pieces,
        second_pieces=second_pieces,
        removed_pieces=len(removed),
        added_pieces=len(added),
        removed_ml=sum(removed) * voxel_ml,
        largest_removed_mm=float(np.cbrt(6.0 * max(removed) * voxel_ml * 1000.0 / np.pi)) if removed else math.nan,
    )


def _alone(one: Region, other: Region) -> tuple[list[int], int]:
    """Voxels of each piece of ``one`` that shares no voxel with ``other``, and the number of all its pieces."""
    labels, sizes = components(one)
    touched = np.zeros(len(sizes) + 1, np.bool_)
    boxes = one.shared_box(other)
    if boxes is not None:
        touched[np.unique(labels[boxes[0]][other.crop_zyx[boxes[1]]])] = True
    return [int(n) for n, hit in zip(sizes, touched[1:], strict=True) if not hit], len(sizes)
