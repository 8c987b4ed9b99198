"""flrplan: from a CT to the future liver remnant (FLR) in colorectal liver metastases (CRLM). For research use only.

Example::

    import flrplan

    plan = flrplan.plan("patient.nii.gz")
    plan.volumes.flr_fraction          # 0..1

Verbs: :func:`read_ct`, :func:`plan`, :func:`train`, :func:`predict`, :func:`evaluate`, :func:`write_cohort`. Arrays are ``(Z, Y, X)`` in
the CT's own axis order, grids are LPS and mm, volumes ml, fractions 0..1. Every error that is meant for the user is a :class:`FlrError`.
Names are imported at first use, so ``import flrplan`` costs nothing and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.anatomy import Compartment, Structure
    from flrplan.api.plan import plan
    from flrplan.api.predict import PredictionRequest, predict
    from flrplan.api.train import TrainingRequest, train
    from flrplan.cohort import CaseSize, CohortSettings, write_cohort
    from flrplan.engine.cascade import Cascade, CascadeSettings
    from flrplan.engine.models import ModelStore
    from flrplan.errors import FlrError
    from flrplan.evaluation.run import evaluate
    from flrplan.evaluation.settings import EvaluationSettings
    from flrplan.image import CT, Geometry, read_ct, read_mask
    from flrplan.method.recipe import Recipe
    from flrplan.method.stages import STAGES, Stage
    from flrplan.planning.plan import Plan
    from flrplan.planning.volumetry import Volumes
    from flrplan.workfolder.split import Split, read_split

__version__ = "0.2.0"

__all__ = [
    "CT",
    "STAGES",
    "Cascade",
    "CascadeSettings",
    "CaseSize",
    "CohortSettings",
    "Compartment",
    "EvaluationSettings",
    "FlrError",
    "Geometry",
    "ModelStore",
    "Plan",
    "PredictionRequest",
    "Recipe",
    "Split",
    "Stage",
    "Structure",
    "TrainingRequest",
    "Volumes",
    "evaluate",
    "plan",
    "predict",
    "read_ct",
    "read_mask",
    "read_split",
    "train",
    "write_cohort",
]

import_at_first_use(
    __name__,
    {
        "flrplan.api.plan": ("plan",),
        "flrplan.api.predict": ("PredictionRequest", "predict"),
        "flrplan.api.train": ("TrainingRequest", "train"),
        "flrplan.engine.cascade": ("Cascade", "CascadeSettings"),
        "flrplan.cohort": ("CaseSize", "CohortSettings", "write_cohort"),
        "flrplan.errors": ("FlrError",),
        "flrplan.evaluation.run": ("evaluate",),
        "flrplan.evaluation.settings": ("EvaluationSettings",),
        "flrplan.image": ("CT", "Geometry", "read_ct", "read_mask"),
        "flrplan.anatomy": ("Compartment", "Structure"),
        "flrplan.engine.models": ("ModelStore",),
        "flrplan.method.recipe": ("Recipe",),
        "flrplan.planning.plan": ("Plan",),
        "flrplan.planning.volumetry": ("Volumes",),
        "flrplan.workfolder.split": ("Split", "read_split"),
        "flrplan.method.stages": ("STAGES", "Stage"),
    },
)
