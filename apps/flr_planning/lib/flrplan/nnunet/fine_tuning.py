"""Training that goes on from a trained model: its plan for the new cases, its weights for the first epoch.

The plan must be the old model's own (grid, patch, intensity statistics, network); nnU-Net's planner would make another one from
the new cases, for which the weights mean nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from flrplan.errors import ModelError
from flrplan.io import write_json
from flrplan.nnunet.architecture import check_architecture
from flrplan.nnunet.checkpoint import load_checkpoint
from flrplan.nnunet.dataset import convert_dataset, dataset_name
from flrplan.nnunet.environment import augmentation_workers, nnunet_folders, quiet
from flrplan.nnunet.model_folder import RUN_NAME, ModelFolder, read_json_object
from flrplan.nnunet.planning import CONFIGURATION, PLANS
from flrplan.nnunet.settings import PlanSettings, Recipe
from flrplan.nnunet.trainer import EpochReport, FlrTrainer
from flrplan.nnunet.training_run import StageWork, train_fold
from flrplan.splits import Split
from flrplan.training_cases import LabelledCase

logger = logging.getLogger(__name__)

PLAN_TAKEN_OVER = "that of the model it started from"
"""Stands for the plan's settings in the records of such a training: those of the recipe were not used."""

_READER = "SimpleITKIO"
_LEAST_TAKEN_OVER = 0.5


@dataclass(frozen=True)
class TakenOver:
    """Parameters that began with the old model's values, of all; ``anew``: names of tensors that did not fit (new heads)."""

    parameters: int
    of: int
    anew: tuple[str, ...]


def recipe_like(model: ModelFolder, recipe: Recipe) -> Recipe:
    """The recipe with the input settings of ``model``, and with plan settings that change nothing in the plan it was trained with."""
    configuration = model.plans["configurations"].get(_configuration(model), {})
    convolutions = configuration.get("architecture", {}).get("arch_kwargs", {}).get("n_conv_per_stage_decoder") or [2]
    decoder = convolutions if isinstance(convolutions, int) else convolutions[0]
    return replace(recipe, input=model.input, plan=PlanSettings(convs_decoder=int(decoder)))


def prepare_with_plan_of(
    model: ModelFolder, cases: Sequence[LabelledCase], work: StageWork, recipe: Recipe, split: Split, workers: int = 1
) -> None:
    """As :func:`flrplan.nnunet.training_run.prepare_stage`, in an empty work folder, with the plan of ``model``.

    Raises: ModelError where the plan names a network that is not known; LabelError, ImageError from the cases.
    """
    configuration = _configuration(model)
    check_architecture(model, configuration)
    used = [c for c in cases if any(c.case_id in fold for fold in split.folds)]
    convert_dataset(used, work.stage, recipe.input, work.folder / "raw", workers)
    settings = PlansManager(model.plans).get_configuration(configuration).configuration
    plans = {
        **model.plans,
        "dataset_name": dataset_name(work.stage),
        "plans_name": PLANS,
        "image_reader_writer": _READER,
        "configurations": {CONFIGURATION: {**settings, "data_identifier": f"{PLANS}_{CONFIGURATION}"}},
    }
    raw = read_json_object(work.folder / "raw" / dataset_name(work.stage) / "dataset.json")
    folds = [{"train": list(split.train_ids(k)), "val": list(split.validation_ids(k))} for k in range(len(split.folds))]
    for name, content in (
        (f"{PLANS}.json", plans),
        ("dataset.json", raw),
        ("dataset_fingerprint.json", {"plan_of": model.path.name}),  # nnU-Net copies this file; it was needed for planning only
        ("splits_final.json", folds),
    ):
        write_json(work.preprocessed / name, content)
    with nnunet_folders(work.folder), quiet(), augmentation_workers(1):
        number = convert_dataset_name_to_id(dataset_name(work.stage))
        preprocess_dataset(number, PLANS, (CONFIGURATION,), (workers,), show_progress_bar=False)


def train_from(
    model: ModelFolder | None,
    work: StageWork,
    fold: int,
    recipe: Recipe,
    target: Path,
    device: torch.device,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> TakenOver | None:
    """Trains one fold into ``target``, from the weights of ``model`` (its first fold), or from random ones (None).

    The one place that knows how weights get into a training. Raises: ModelError where most of the network does not fit.
    """
    taken = None if model is None else _place_weights(model, work, fold, recipe, device)
    published = train_fold(work, fold, recipe, target, device, on_epoch=on_epoch)
    if model is not None and taken is not None:
        path = published.with_name(RUN_NAME)
        run = read_json_object(path)
        write_json(path, {**run, "recipe": {**run["recipe"], "plan": PLAN_TAKEN_OVER}, "taken_over": asdict(taken)})
    return taken


def _place_weights(model: ModelFolder, work: StageWork, fold: int, recipe: Recipe, device: torch.device) -> TakenOver:
    """Writes a training state before the first epoch, which :func:`train_fold` continues."""
    weights = load_checkpoint(model.checkpoint(model.folds[0]))["network_weights"]
    plans, dataset = (read_json_object(work.preprocessed / name) for name in (f"{PLANS}.json", "dataset.json"))
    with nnunet_folders(work.folder), augmentation_workers(recipe.training.workers), quiet():
        trainer = FlrTrainer({**plans, "continue_training": False}, CONFIGURATION, fold, dataset, device)
        trainer.device = device
        trainer.apply(recipe.training)
        trainer.initialize()
        own = trainer.plain_weights()
        fitting = {n: w for n, w in weights.items() if n in own and own[n].shape == w.shape}
        with torch.no_grad():
            for name, values in fitting.items():
                own[name].copy_(values)  # shares its memory with the network
        taken = _counted(own, fitting)
        if taken.parameters < _LEAST_TAKEN_OVER * taken.of:
            raise ModelError(
                f"{model.path}: only {taken.parameters} of {taken.of} parameters fit the network of its own plans.json; the "
                "folder is mixed up. Start anew instead of from the current model"
            )
        trainer.current_epoch = -1
        trainer.save_checkpoint(str(trainer.training_state))
    logger.info("stage %s: %d of %d parameters start from %s", work.stage, taken.parameters, taken.of, model.path)
    if taken.anew:
        logger.info("stage %s: these start anew: %s", work.stage, ", ".join(taken.anew))
    return taken


def _counted(own: dict[str, torch.Tensor], fitting: dict[str, Any]) -> TakenOver:
    sizes: dict[int, tuple[str, int, bool]] = {}
    for name, tensor in own.items():  # nnU-Net's U-Net lists its encoder under three names
        sizes.setdefault(tensor.data_ptr(), (name, tensor.numel(), name in fitting))
    rows = list(sizes.values())
    return TakenOver(sum(n for _, n, ok in rows if ok), sum(n for _, n, _ in rows), tuple(n for n, _, ok in rows if not ok))


def _configuration(model: ModelFolder) -> str:
    content = load_checkpoint(model.checkpoint(model.folds[0]))
    try:
        return str(content["init_args"]["configuration"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{model.checkpoint(model.folds[0])}: not an nnU-Net v2 checkpoint, it lacks {error}") from error
