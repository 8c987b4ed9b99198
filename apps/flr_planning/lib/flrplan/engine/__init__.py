"""Prediction: which model serves a stage, predictors kept warm, the cascade."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.engine.cascade import Cascade, CascadeSettings, NoteStep, TakeProbability
    from flrplan.engine.models import DEMO_NAME, DEMO_NOTE, MODEL_ROOT, FoundModel, ModelStore, require_models_folder

__all__ = [
    "DEMO_NAME",
    "DEMO_NOTE",
    "MODEL_ROOT",
    "Cascade",
    "CascadeSettings",
    "FoundModel",
    "ModelStore",
    "NoteStep",
    "TakeProbability",
    "require_models_folder",
]

import_at_first_use(
    __name__,
    {
        "flrplan.engine.cascade": (
            "Cascade",
            "CascadeSettings",
            "NoteStep",
            "TakeProbability",
        ),
        "flrplan.engine.models": (
            "DEMO_NAME",
            "DEMO_NOTE",
            "MODEL_ROOT",
            "FoundModel",
            "ModelStore",
            "require_models_folder",
        ),
    },
)
