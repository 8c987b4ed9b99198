"""One training of one fold, and its publication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.nnunet.train.trainer import EpochReport, FlrTrainer
    from flrplan.nnunet.train.training_run import train_fold

__all__ = [
    "EpochReport",
    "FlrTrainer",
    "train_fold",
]

import_at_first_use(
    __name__,
    {
        "flrplan.nnunet.train.training_run": ("train_fold",),
        "flrplan.nnunet.train.trainer": (
            "EpochReport",
            "FlrTrainer",
        ),
    },
)
