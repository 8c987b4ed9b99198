"""Training that goes on from a trained model: its plan for the new cases, its weights for the first epoch.

The plan must be the old model's own (grid, patch, intensity statistics, network); nnU-Net's planner would make another one from
the new cases, for which the weights mean nothing. The weights are given to the training as ``pretrained``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from flrplan.errors import ModelError
from flrplan.method import InputMasks, PlanSettings, Recipe
from flrplan.nnunet.model import ModelFolder, load_checkpoint
from flrplan.nnunet.model.architecture import check_architecture
from flrplan.nnunet.prepare.architecture_plan import TAKEN_OVER
from flrplan.nnunet.prepare.dataset import dataset_name
from flrplan.nnunet.prepare.planning import CONFIGURATION, PLANS
from flrplan.nnunet.prepare.preparation import StageWork, prepare_stage
from flrplan.workfolder import Case, Split

_READER = "SimpleITKIO"


def recipe_like(model: ModelFolder, recipe: Recipe) -> Recipe:
    """The recipe with the input settings of ``model`` and without plan settings of its own: the model's plan is used as it is.

    Of a model that learned on out-of-fold predictions there are none for new cases; it goes on with perturbed masks.
    """
    settings = model.input
    if settings.input_masks is InputMasks.PREDICTED_OOF:
        settings = replace(settings, input_masks=InputMasks.PERTURBED)
    return replace(recipe, input=settings, plan=PlanSettings())


def prepare_with_plan_of(
    model: ModelFolder,
    architecture: str,
    cases: Sequence[Case],
    work: StageWork,
    recipe: Recipe,
    split: Split,
    workers: int = 1,
) -> Path:
    """As :func:`flrplan.nnunet.prepare.preparation.prepare_stage`, with the plan of ``model``; returns the weights to start from.

    Raises: ModelError where the plan names a network that is not known, or the checkpoint is damaged; LabelError, ImageError from
    the cases.
    """
    configuration = _configuration(model)
    check_architecture(model, configuration)
    settings = PlansManager(model.plans).get_configuration(configuration).configuration
    plans = {
        **model.plans,
        "dataset_name": dataset_name(work.stage),
        "plans_name": PLANS,
        "image_reader_writer": _READER,
        "configurations": {CONFIGURATION: {**settings, "data_identifier": f"{PLANS}_{CONFIGURATION}"}},
        TAKEN_OVER: architecture,
    }
    prepare_stage(cases, work, recipe, split, workers, plans)
    return model.checkpoint(model.folds[0])


def _configuration(model: ModelFolder) -> str:
    content: dict[str, Any] = load_checkpoint(model.checkpoint(model.folds[0]))
    try:
        return str(content["init_args"]["configuration"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{model.checkpoint(model.folds[0])}: not an nnU-Net v2 checkpoint, it lacks {error}") from error
