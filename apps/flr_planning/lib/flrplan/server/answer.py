"""The ``params`` of an infer answer: what the label file holds, the volumes, and how they came about. Plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan import __version__
from flrplan.anatomy import PLANNED, Mask, Structure
from flrplan.engine.models import FINE_TUNED_NOTE
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan, Volumes
from flrplan.server.label_table import label_colors
from flrplan.server.options import InferOptions

DEMO_NOTICE = "Computed by demo models, which were trained on synthetic cases only: not for patients."
FINE_TUNED_NOTICE = f"Computed by models {FINE_TUNED_NOTE}."
_Numbers = dict[str, float | None]


def answer(
    plan: Plan,
    label_zyx: NDArray[np.uint8],
    names: Mapping[str, int],
    options: InferOptions,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """``params`` of one call; ``seconds`` is the wall time of the steps around the cascade, which brings its own.

    ``label_zyx`` is what the label file holds, its values named by ``names``; ``labels_present`` are those with voxels.
    ``volumes`` are in ml, ``flr_fraction`` in 0..1; what this task did not segment, or is undefined, is None. ``raw_volumes`` are those
    of the network's own remnant, where ``plan`` is coherent and another. ``interval`` says how sure the remnant is, in words under ``text``.
    ``assessment`` is the remnant against the patient's size and the thresholds of the stated liver, as in ``plan.json``, in words under
    ``text``; None unless liver, CRLM and FLR are there.
    """
    result = plan.result
    volumes, raw_volumes, warnings = _volumes(plan)
    return {
        "label_names": dict(names),
        "labels_present": present(label_zyx, names),
        "label_colors": label_colors(names),
        "plan": options.plan.value,
        "volumes": volumes,
        "raw_volumes": raw_volumes,
        "interval": None if plan.interval is None else plan.interval.to_json(),
        "assessment": _assessment(plan),
        "inputs": options.inputs.value,
        "given": _from(result, Source.GIVEN),
        "predicted": _from(result, Source.PREDICTED),
        "architecture": options.architecture,
        **models_said(result),
        "seconds": {**result.seconds, **{step: round(s, 3) for step, s in seconds.items()}},
        "warnings": list(warnings),
        "software": f"flrplan {__version__}",
    }


def _assessment(plan: Plan) -> dict[str, Any] | None:
    if not all(structure in plan.masks for structure in PLANNED):
        return None
    said = plan.assessment.to_json()
    patient = {name: value for name, value in said["patient"].items() if name not in ("id", "scan_date")}
    return {**said, "patient": patient, "text": plan.assessment.describe()}


def models_said(result: CascadeResult) -> dict[str, Any]:
    """Which models took part, and what must be said of them."""
    return {
        "models": {stage: model.to_json() for stage, model in result.models.items()},
        "demo_models": result.demo,
        **_notice(result),
    }


def _notice(result: CascadeResult) -> dict[str, str]:
    if result.demo:
        return {"notice": DEMO_NOTICE}
    return {"notice": FINE_TUNED_NOTICE} if any(m.fine_tuned_from_demo for m in result.models.values()) else {}


def _volumes(plan: Plan) -> tuple[_Numbers, _Numbers | None, Sequence[str]]:
    """Volumes, those of the raw masks, and warnings: of the plan, where all its structures are there, else of each mask."""
    result = plan.result
    if all(structure in result.masks for structure in PLANNED):
        return plan.volumes.to_json(), None if plan.raw_volumes is None else plan.raw_volumes.to_json(), plan.warnings
    return volumes_of_masks(result.masks, result.ct.geometry.voxel_volume_ml), None, result.warnings


def volumes_of_masks(masks: Mapping[Structure, Mask], voxel_volume_ml: float) -> dict[str, float | None]:
    """``volumes`` of masks that are no whole plan: each in ml, the rest None."""
    volumes: _Numbers = dict.fromkeys(f.name for f in fields(Volumes))
    return {**volumes, **{f"{s}_ml": round(float(np.count_nonzero(m)) * voxel_volume_ml, 6) for s, m in masks.items()}}


def present(label_zyx: NDArray[np.uint8], names: Mapping[str, int]) -> list[str]:
    """The names whose values occur in a label map, by value."""
    counts = np.bincount(label_zyx.ravel(), minlength=max(names.values()) + 1)
    return [name for name, index in sorted(names.items(), key=lambda item: item[1]) if counts[index]]


def _from(result: CascadeResult, source: Source) -> list[str]:
    return [structure.value for structure, found in result.sources.items() if found is source]
