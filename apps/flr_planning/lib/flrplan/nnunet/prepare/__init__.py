"""From labelled cases to what a training reads: data set, plan, preprocessed arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.nnunet.prepare.planning import CONFIGURATION, PLANS
    from flrplan.nnunet.prepare.preparation import StageWork, prepare_stage, read_prepared

__all__ = [
    "CONFIGURATION",
    "PLANS",
    "StageWork",
    "prepare_stage",
    "read_prepared",
]

import_at_first_use(
    __name__,
    {
        "flrplan.nnunet.prepare.preparation": (
            "StageWork",
            "prepare_stage",
            "read_prepared",
        ),
        "flrplan.nnunet.prepare.planning": (
            "CONFIGURATION",
            "PLANS",
        ),
    },
)
