"""Saved probabilities: which file is whose, whether it is that of the scored mask, and what they say: FROC, calibration, thresholds.

Their form is that of :mod:`flrplan.method.probabilities`: ``<architecture>/<column>/<case>.nii.gz``, uint8, on the CT's grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Structure
from flrplan.errors import LabelError, SettingsError
from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.inputs import CaseFiles, Found, Predictions, files_by_case
from flrplan.evaluation.statistics import RESAMPLES, SEED, can_resample, describe
from flrplan.files import entries
from flrplan.image import Geometry, natural_key, read_label_map, require_same_grid
from flrplan.metrics.calibration import (
    BINS,
    SWEEP_THRESHOLDS,
    Bytes,
    Reliability,
    VoxelCounts,
    above,
    calibration_outcomes,
    dice_sweep,
)
from flrplan.metrics.empty import value_of
from flrplan.metrics.froc import (
    CANDIDATE_THRESHOLD,
    FALSE_POSITIVES_PER_CASE,
    HIT_IOU,
    Candidates,
    froc_candidates,
    froc_curve,
    sensitivity_at,
)
from flrplan.metrics.region import Region

MISMATCH_SHARE = 0.01
MISMATCH_VOXELS = 10
"""Probabilities are another mask's if p > 0.5 and the mask differ in more than 1 % of the voxels of both together, and in more than 10.
The same logits differ nowhere but where p is 0.5 to within rounding."""


@dataclass(frozen=True, eq=False)
class ProbabilityRow:
    """What the probabilities of one prediction say, small whatever the size of the image.

    truth_is_empty: then the Dice of a sweep says nothing, and the row is left out of it.
    dice: at each of :data:`SWEEP_THRESHOLDS`. brier, ece, reliability: inside the region that the network saw; NaN and empty bins where
    that is unknown or empty. candidates: of the CRLM, else None.
    """

    case: str
    fold: int | None
    architecture: str
    column_name: str
    truth_is_empty: bool
    dice: tuple[float, ...]
    brier: float
    ece: float
    reliability: Reliability
    candidates: Candidates | None

    @property
    def part(self) -> Part:
        """Cross-validation or held-out test."""
        return Part.TEST if self.fold is None else Part.CV


def find_probabilities(folder: Path) -> Predictions:
    """Files by (architecture, column) and case. Raises SettingsError for an unknown column and a folder without any file."""
    found: Predictions = {}
    for architecture in (p for p in entries(folder) if p.is_dir()):
        for column in (p for p in entries(architecture) if p.is_dir()):
            if column.name not in COLUMNS:
                raise SettingsError(f"{column}: unknown column {column.name!r}; known are {', '.join(COLUMNS)}")
            found[architecture.name, column.name] = files_by_case(column)
    if not any(found.values()):
        raise SettingsError(f"{folder}: no probabilities; expected <architecture>/<column>/<case>.nii.gz")
    return found


def with_probabilities(found: Found, probabilities: Predictions) -> Found:
    """The same cases with their probabilities; what lacks, or belongs to no prediction, is named and no error."""
    cases = [
        replace(
            case,
            probabilities={k: probabilities[k][case.case] for k in case.predictions if case.case in probabilities.get(k, {})},
        )
        for case in found.cases
    ]
    said = []
    predicted = list(dict.fromkeys(key for case in cases for key in case.predictions))
    for key in sorted({*predicted, *probabilities}):
        own = [case for case in cases if key in case.predictions]
        without = [case.case for case in own if key not in case.probabilities]
        unused = sorted(set(probabilities.get(key, {})) - {case.case for case in own}, key=natural_key)
        if without:
            which = ", ".join(without) if len(without) < len(own) else "any case"
            said.append(f"{'/'.join(key)}: no probabilities of {which}")
        if unused:
            said.append(f"{'/'.join(key)}: probabilities without a prediction, not used: {', '.join(unused)}")
    return replace(found, cases=tuple(cases), unscored_probabilities=tuple(said))


def read_probabilities(path: Path, mask: Region, geometry: Geometry, geometry_name: str) -> Bytes:
    """Bytes ``(Z, Y, X) uint8`` of round(255 p) that fit the binary prediction ``mask``.

    Raises: LabelError for another type, or where p > 0.5 is another mask (:data:`MISMATCH_SHARE`); GridError; ImageError.
    """
    values, grid = read_label_map(path)
    require_same_grid(geometry, grid, geometry_name, str(path))
    if values.dtype != np.uint8:
        raise LabelError(f"{path}: probabilities are stored as uint8, round(255 p); found {values.dtype}; predict them again")
    own = Region.of(above(values, 0.5), mask.spacing_zyx_mm)
    shared = own.voxels_shared_with(mask)
    union = own.voxels + mask.voxels - shared
    differ = union - shared
    if differ > max(MISMATCH_SHARE * union, MISMATCH_VOXELS):
        raise LabelError(
            f"{path}: p > 0.5 (values from 128) holds {own.voxels} voxels, the binary prediction {mask.voxels}, and {differ} of {union} "
            "differ; they are not of the same prediction. Predict both again"
        )
    return values


def probability_row(
    files: CaseFiles, key: tuple[str, str], values: Bytes, truth: Region, instances: Sequence[Region], region: Region | None
) -> ProbabilityRow:
    """The row of one prediction.

    Args: instances: lesions of the truth, used for the CRLM. region: the liver that the stage was given; None where it is not known,
        which leaves the calibration undefined. Stages that see the whole CT do not need it.
    """
    column = COLUMNS[key[1]]
    everywhere = VoxelCounts.of(values, truth)
    inside = everywhere if column.stage.region is None else VoxelCounts.of(values, truth, region or _nowhere(truth))
    calibration = calibration_outcomes(inside)
    return ProbabilityRow(
        files.case,
        files.fold,
        *key,
        truth_is_empty=truth.is_empty,
        dice=dice_sweep(everywhere),
        brier=value_of(calibration["brier"]),
        ece=value_of(calibration["ece"]),
        reliability=Reliability.of(inside),
        candidates=froc_candidates(values, truth, instances) if column.target is Structure.CRLM else None,
    )


def _nowhere(like: Region) -> Region:
    return replace(like, crop_zyx=np.zeros((0, 0, 0), np.bool_), start_zyx=(0, 0, 0), voxels=0)


def summarise_probabilities(rows: Sequence[ProbabilityRow]) -> dict[str, Any]:
    """``{part: {architecture: {column: {...}}}}``; empty without rows.

    ``n``; ``brier`` and ``ece`` over cases as every metric; ``reliability``: bins of all voxels together; ``sweep``: mean Dice over the
    ``n`` cases whose truth is not empty, None without any; ``froc``: CRLM only, all cases together, None without a lesion.
    """
    grouped: dict[tuple[Part, str, str], list[ProbabilityRow]] = {}
    for row in rows:
        grouped.setdefault((row.part, row.architecture, row.column_name), []).append(row)
    tree: dict[str, Any] = {}
    for (part, architecture, column), own in grouped.items():
        groups = [row.fold if row.fold is not None else 0 for row in own]
        cell: dict[str, Any] = {
            name: describe([getattr(row, name) for row in own], groups, part is Part.CV) for name in ("brier", "ece")
        }
        cell |= {"n": len(own), "reliability": _reliability(own), "sweep": _sweep(own)}
        if own[0].candidates is not None:
            cell["froc"] = _froc([row.candidates for row in own if row.candidates is not None], np.array(groups))
        tree.setdefault(part.value, {}).setdefault(architecture, {})[column] = cell
    return tree


def _reliability(rows: Sequence[ProbabilityRow]) -> list[dict[str, float | int]]:
    """The bins that hold voxels."""
    total = sum((row.reliability for row in rows[1:]), rows[0].reliability)
    return [
        {
            "from": k / BINS,
            "to": (k + 1) / BINS,
            "voxels": int(total.voxels[k]),
            "mean_probability": float(total.probability_sum[k] / total.voxels[k]),
            "observed": float(total.true[k] / total.voxels[k]),
        }
        for k in np.flatnonzero(total.voxels).tolist()
    ]


def _sweep(rows: Sequence[ProbabilityRow]) -> dict[str, Any] | None:
    scored = np.array([row.dice for row in rows if not row.truth_is_empty])
    if not len(scored):
        return None
    means = scored.mean(axis=0)
    best = int(means.argmax())
    return {
        "n": len(scored),
        "thresholds": list(SWEEP_THRESHOLDS),
        "dice": [float(v) for v in means],
        "best_threshold": SWEEP_THRESHOLDS[best],
        "best_dice": float(means[best]),
        "dice_at_half": float(means[SWEEP_THRESHOLDS.index(0.5)]),
    }


def _froc(cases: Sequence[Candidates], groups: NDArray[np.int64]) -> dict[str, Any] | None:
    lesions = sum(case.lesions for case in cases)
    if not lesions:
        return None
    curve = froc_curve(cases)
    return {
        "cases": len(cases),
        "lesions": lesions,
        "candidates": sum(len(case.scored) for case in cases),
        "candidate_threshold": CANDIDATE_THRESHOLD,
        "hit_iou": HIT_IOU,
        "sensitivity_at": {f"{fp:g}": sensitivity_at(curve, fp) for fp in FALSE_POSITIVES_PER_CASE},
        "sensitivity_ci95": sensitivity_intervals(cases, groups),
        "points": [
            {"threshold": p.threshold, "false_positives_per_case": p.false_positives_per_case, "sensitivity": p.sensitivity}
            for p in curve
        ],
    }


def sensitivity_intervals(cases: Sequence[Candidates], groups: NDArray[np.int64]) -> dict[str, list[float] | None]:
    """Percentile bootstrap intervals (95 %) of the sensitivity at each of :data:`FALSE_POSITIVES_PER_CASE`.

    Cases are drawn inside their group (fold), with all their lesions and candidates. None with too few cases, as everywhere. Draws
    without a lesion, of which the sensitivity is undefined, are left out.
    """
    if not can_resample(groups):
        return {f"{fp:g}": None for fp in FALSE_POSITIVES_PER_CASE}
    pooled = sorted(((score, k, hit) for k, case in enumerate(cases) for score, hit in case.scored), reverse=True)
    score = np.array([row[0] for row in pooled], float)
    case_of = np.array([row[1] for row in pooled], int)
    hit = np.array([row[2] for row in pooled], bool)
    ends = np.flatnonzero(np.diff(score, append=-1.0))  # candidates of one score come in together
    rng, times = np.random.default_rng(SEED), np.zeros((RESAMPLES, len(cases)))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        times[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), RESAMPLES)
    lesions = times @ np.array([case.lesions for case in cases])
    found: dict[float, list[float]] = {fp: [] for fp in FALSE_POSITIVES_PER_CASE}
    for weights, total in zip(times, lesions, strict=True):
        if not total:
            continue
        drawn = weights[case_of]
        hits, false = np.cumsum(drawn * hit)[ends], np.cumsum(drawn * ~hit)[ends]
        for fp, values in found.items():
            values.append(float(hits[false <= fp * len(cases)].max(initial=0.0) / total))
    return {f"{fp:g}": [float(v) for v in np.percentile(values, [2.5, 97.5])] for fp, values in found.items()}


def cells_of(tree: Mapping[str, Any]) -> list[tuple[str, str, str, Mapping[str, Any]]]:
    """Part, architecture, column and cell of each entry of :func:`summarise_probabilities`."""
    return [(part, a, c, cell) for part, by_a in tree.items() for a, by_c in by_a.items() for c, cell in by_c.items()]
