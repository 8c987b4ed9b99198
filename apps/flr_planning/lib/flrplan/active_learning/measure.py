"""What strategies go by, measured of one case: its image, the label that it came with, and what the models say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from flrplan.active_learning.voters import Vote, Voters
from flrplan.anatomy import PLANNED, Mask, PlanningLabel, Structure
from flrplan.engine import Cascade
from flrplan.image import CT
from flrplan.method import CASCADE, FLR_E2E, MASK_FROM, Probability, Source, Stage
from flrplan.planning import Plan
from flrplan.planning.evidence import evidence_of
from flrplan.qc import QcCase, Severity, check_case
from flrplan.workfolder import ModelIdentity

SPECK_ML = 1.0
"""Smaller structures are measured against this volume: folds that differ about one speck do not disagree wholly."""
UNREADABLE = 4.0
"""``qc`` of a label that cannot be read, above every other."""
_VOXELS = 2_000_000
"""Of an image whose HU are looked at, about."""


def measure_image(ct: CT) -> dict[str, float]:
    """What the image alone tells: how it was scanned, and what it shows, as a few numbers. All are finite.

    extents and slice distance in mm; quartiles of the HU of soft tissue (-150 to 250); shares (0..1) of air, fat and bone.
    """
    step = max(round((ct.array_zyx.size / _VOXELS) ** (1 / 3)), 1)
    hu = np.asarray(ct.array_zyx[::step, ::step, ::step], np.float32)
    soft = hu[(hu > -150) & (hu < 250)]
    low, middle, high = np.percentile(soft, (25, 50, 75)) if soft.size else (0.0, 0.0, 0.0)
    shape, spacing = ct.geometry.shape_zyx, ct.geometry.spacing_zyx_mm
    found = {
        "extent_z_mm": shape[0] * spacing[0],
        "extent_y_mm": shape[1] * spacing[1],
        "slice_mm": max(spacing),
        "soft_hu_25": low,
        "soft_hu_50": middle,
        "soft_hu_75": high,
        "air": np.mean(hu < -300),
        "fat": np.mean((hu > -150) & (hu < -30)),
        "bone": np.mean(hu > 250),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def measure_label(label: PlanningLabel, ct: CT) -> dict[str, Any]:
    """What label QC finds: ``qc`` (:attr:`flrplan.qc.registry.Checked.score`), counts by severity, and the messages, the worst first."""
    checked = check_case(QcCase(ct.name, ct.geometry, dict(label.masks), ct))
    counts = {f"{severity}s": checked.count(severity) for severity in Severity}
    return {"qc": round(checked.score, 4), **counts, "messages": [f.message for f in checked.findings]}


def measure_by_models(
    ct: CT,
    cascade: Cascade,
    voters: Voters,
    given: Mapping[Structure, Mask] | None = None,
    stages: Sequence[Stage] = CASCADE,
) -> tuple[dict[str, Any], dict[str, ModelIdentity]]:
    """What the models say of a case, and which models those were.

    ``disagreement``: of each predicted structure, :func:`disagreement` of the voters' masks. ``flr_fractions``: FLR (0..1) of the plan of
    each voter. Both are empty where one model stands alone. ``prediction``: volumes in ml, FLR (0..1) and the median HU of the liver.

    given, stages: as :meth:`flrplan.engine.cascade.Cascade.run` takes them, which also raises what this does.
    """
    folds: dict[Structure, tuple[Probability, ...]] = {}
    plan, flr = _plan(cascade, ct, given, stages, folds if voters.vote is Vote.FOLDS else None)
    plans = [plan]
    models = dict(plan.result.models)
    if voters.vote is Vote.ARCHITECTURES:
        for name in voters.architectures[1:]:
            plans.append(_plan(Cascade(cascade.store, replace(cascade.settings, architecture=name)), ct, given, stages)[0])
            models |= {f"{stage} {name}": model for stage, model in plans[-1].result.models.items()}
    elif voters.vote is Vote.END_TO_END:
        inputs = {s: plan.masks[s] for s in (Structure.LIVER, Structure.CRLM)}
        plans.append(_plan(cascade, ct, inputs, (FLR_E2E,))[0])
        models |= plans[-1].result.models
    raw = plan.result if plan.raw is None else plan.raw
    evidence = None if flr is None else evidence_of(raw, plan.masks[Structure.FLR], flr, folds.get(Structure.FLR, ()))
    votes = {s: [p >= MASK_FROM for p in of_folds] for s, of_folds in folds.items()}
    fractions = [] if evidence is None else [*evidence.fold_fractions]
    if len(plans) > 1:
        predicted = [s for s in PLANNED if all(p.sources.get(s) is Source.PREDICTED for p in plans)]
        votes = {s: [p.masks[s] for p in plans] for s in predicted}
        fractions = [p.volumes.flr_fraction for p in plans]
    found: dict[str, Any] = {
        "between": voters.words,
        "disagreement": {str(s): round(disagreement(m, ct.geometry.voxel_volume_ml), 4) for s, m in votes.items()},
        "flr_fractions": [round(float(f), 4) for f in fractions if np.isfinite(f)] if len(fractions) > 1 else [],
    }
    if evidence is not None:
        names = ("parenchyma_ml", "crlm_ml", "flr_fraction", "liver_hu")
        found["prediction"] = {name: round(float(getattr(evidence, name)), 4) for name in names}
    return found, models


def _plan(
    cascade: Cascade,
    ct: CT,
    given: Mapping[Structure, Mask] | None,
    stages: Sequence[Stage],
    folds: dict[Structure, tuple[Probability, ...]] | None = None,
) -> tuple[Plan, Probability | None]:
    """A coherent plan and the probability of its FLR; ``folds`` is filled with that of each fold, of each structure."""
    found: dict[Structure, Probability] = {}
    keep = None if folds is None else {s: partial(folds.__setitem__, s) for s in PLANNED}
    result = cascade.run(ct, given, stages, on_probability=found.__setitem__, on_folds=keep)
    flr = found.get(Structure.FLR)
    return Plan.coherent(result, flr), flr


def disagreement(masks: Sequence[Mask], voxel_ml: float) -> float:
    """How far masks ``(Z, Y, X) bool`` of one structure differ: the mean over their pairs of 1 - Dice, 0 (the same) to 1; 0 where all are empty.

    A ratio of volumes: a large image or a large liver has no more of it. Two that hold less than :data:`SPECK_ML` each are measured
    against that.
    """
    sizes = [np.count_nonzero(mask) * voxel_ml for mask in masks]
    found = [
        np.count_nonzero(masks[a] ^ masks[b]) * voxel_ml / max(sizes[a] + sizes[b], 2 * SPECK_ML)
        for a, b in combinations(range(len(masks)), 2)
    ]
    return float(np.mean(found)) if found else 0.0
