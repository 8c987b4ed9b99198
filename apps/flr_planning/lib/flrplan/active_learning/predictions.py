"""What the models say of a case, and how far those who vote disagree about it. Loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from flrplan.active_learning.measure import disagreement
from flrplan.active_learning.voters import Vote, Voters
from flrplan.anatomy import PLANNED, Mask, Structure
from flrplan.engine import Cascade
from flrplan.image import CT
from flrplan.method import CASCADE, FLR_E2E, MASK_FROM, Probability, Source, Stage
from flrplan.planning import Plan
from flrplan.planning.evidence import evidence_of
from flrplan.workfolder import ModelIdentity


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
