"""Retraining on the labels that annotators submit: which cases, the hold-out, training, comparison, publishing.
Beside it :mod:`distillation`, which makes one network of an ensemble.

Knows nothing of MONAI Label. Read in this order: :mod:`annotations` (labels as cases), :mod:`holdout` (the part that never trains),
:mod:`stage_training` (one training), :mod:`comparison` (new against current), :mod:`progress` (what a viewer shows meanwhile).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.learning.annotations import AnnotatedImage, Annotations, read_annotations, require_enough_of
    from flrplan.learning.distillation import DistillationRequest, distil
    from flrplan.learning.progress import Progress, TaskProgress, read_stats
    from flrplan.learning.settings import RetrainingSettings, Start, TrainingChoice
    from flrplan.learning.stage_training import RetrainingFolder, StageTraining

__all__ = [
    "AnnotatedImage",
    "Annotations",
    "DistillationRequest",
    "Progress",
    "RetrainingFolder",
    "RetrainingSettings",
    "StageTraining",
    "Start",
    "TaskProgress",
    "TrainingChoice",
    "distil",
    "read_annotations",
    "read_stats",
    "require_enough_of",
]

import_at_first_use(
    __name__,
    {
        "flrplan.learning.annotations": (
            "AnnotatedImage",
            "Annotations",
            "read_annotations",
            "require_enough_of",
        ),
        "flrplan.learning.distillation": ("DistillationRequest", "distil"),
        "flrplan.learning.settings": (
            "RetrainingSettings",
            "Start",
            "TrainingChoice",
        ),
        "flrplan.learning.stage_training": (
            "RetrainingFolder",
            "StageTraining",
        ),
        "flrplan.learning.progress": (
            "Progress",
            "TaskProgress",
            "read_stats",
        ),
    },
)
