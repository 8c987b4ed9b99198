"""A trained model: its folder, its checkpoints, the networks that it may name, and its predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.nnunet.model.checkpoint import load_checkpoint, write_checkpoint
    from flrplan.nnunet.model.model_folder import ModelFolder
    from flrplan.nnunet.model.predictor import StagePredictor

__all__ = [
    "ModelFolder",
    "StagePredictor",
    "load_checkpoint",
    "write_checkpoint",
]

import_at_first_use(
    __name__,
    {
        "flrplan.nnunet.model.model_folder": ("ModelFolder",),
        "flrplan.nnunet.model.predictor": ("StagePredictor",),
        "flrplan.nnunet.model.checkpoint": (
            "load_checkpoint",
            "write_checkpoint",
        ),
    },
)
