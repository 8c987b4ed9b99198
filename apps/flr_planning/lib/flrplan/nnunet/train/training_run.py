"""Training of one (stage, fold) on prepared data, and the published model; :func:`flrplan.api.train.train` is the way in."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from filelock import FileLock, Timeout

from flrplan.errors import LabelError, TrainingError
from flrplan.files import current_version, require_room
from flrplan.method import Recipe, Variant
from flrplan.networks import ARCHITECTURES, architecture_named
from flrplan.nnunet.environment import nnunet_folders, quiet
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.model.model_folder import INHERITED
from flrplan.nnunet.prepare import CONFIGURATION, StageWork, prepare_stage, read_prepared
from flrplan.nnunet.prepare.architecture_plan import PLAN_TAKEN_OVER, TAKEN_OVER, plan_training
from flrplan.nnunet.train.batches import seed_everything
from flrplan.nnunet.train.distillation import DistillingTrainer, Teacher
from flrplan.nnunet.train.distributed import rank, wait_for_all
from flrplan.nnunet.train.pretrained import start_from
from flrplan.nnunet.train.provenance import (
    TEACHER,
    TrainedOn,
    commit,
    data_record,
    machine,
    now,
    resolved_settings,
    result_of,
    versions,
)
from flrplan.nnunet.train.publishing import ModelPlace, publish_fold
from flrplan.nnunet.train.trainer import EpochReport, FlrTrainer
from flrplan.workfolder import FINAL_CHECKPOINT, SPLITS_NAME, require_fold

__all__ = ["StageWork", "prepare_stage", "train_fold"]

logger = logging.getLogger(__name__)

_STATES_KEPT = 2
"""A training state is written beside the one before it."""


def train_fold(
    work: StageWork,
    fold: int,
    recipe: Recipe,
    model_folder: Path,
    device: torch.device,
    *,
    half: bool = False,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_iteration: Callable[[int, int], None] | None = None,
    held_out: Collection[str] = (),
    architecture: str = ARCHITECTURES[0],
    pretrained: Path | None = None,
    validation_seen: bool = False,
    variant: Variant | None = None,
    teacher: ModelFolder | None = None,
    published: Mapping[str, Any] | None = None,
) -> Path:
    """Trains one fold of a prepared stage (continuing an interrupted training) and publishes it into ``model_folder``.

    Returns the published checkpoint. ``half`` stores float16 weights. ``held_out``: ids that must not train, beside those that
    the split of the preparation holds out. ``pretrained``: a checkpoint to start from, published STU-Net weights or one of our own,
    which brings its network along (:mod:`flrplan.nnunet.train.pretrained`). ``validation_seen``: it may have learned from this fold's
    validation cases, and the caller says so in its record. ``variant``: what ``recipe`` is a variant for; its plan and training state
    have its name, and the record says what it is. ``teacher``: a model whose folds are learned in place of the labels, on any cases
    (:mod:`flrplan.nnunet.train.distillation`). ``published``: what ``published.json`` says of the model. In several processes (:mod:`flrplan.nnunet.train.distributed`) rank 0 publishes.
    Raises: SettingsError for an unknown fold, a held-out id in it, or weights that have seen one; LabelError where no training case
    holds a target; ModelError where ``model_folder`` holds folds of another plan, at the start or at the end, or the pretrained
    weights do not fit; TrainingError where memory or batches fail, or the same fold is being trained already; OutputError where the
    disk is full.
    """
    prepared = read_prepared(work)
    dataset = json.loads((work.preprocessed / "dataset.json").read_text())
    name = variant.name if variant else None
    plans = plan_training(work.preprocessed, architecture_named(architecture), recipe.plan, pretrained, name)
    forbidden = {*held_out, *prepared.get("test", [])}
    train_ids, validation_ids = require_fold(json.loads((work.preprocessed / SPLITS_NAME).read_text()), fold, forbidden)
    _require_target(work, fold, train_ids, prepared.get("target_voxels", {}))
    place = ModelPlace.found(model_folder, plans, dataset)
    taken_over = {"plan": PLAN_TAKEN_OVER} if TAKEN_OVER in prepared["plan"] else {}
    started, clock = now(), monotonic()
    seed_everything(recipe.training.seed, fold)
    with nnunet_folders(work.folder), quiet(), _fast_convolutions(device):
        taught = None if teacher is None else Teacher.open(teacher)
        taught_by = None if taught is None else taught.sha256
        trainer = _new_trainer(plans, fold, dataset, device, taught)
        data = TrainedOn(prepared.get("data_sha256"), train_ids, validation_ids, taught_by)
        trainer.apply(recipe.training, on_epoch, forbidden, data, on_iteration)
        with _only_training(Path(trainer.output_folder)) if rank() == 0 else nullcontext():
            try:
                started_from = _train(trainer, work, pretrained, () if validation_seen else validation_ids)
            finally:
                trainer.close()
            if rank() == 0:
                record = {
                    "stage": work.stage.name,
                    "fold": fold,
                    "architecture": architecture,
                    **({"variant": variant.to_json()} if variant else {}),
                    **({TEACHER: taught_by} if taught_by else {}),
                    "recipe": {**replace(recipe, training=trainer.settings).to_json(), **taken_over},
                    "pretrained": {k: v for k, v in started_from.items() if k != INHERITED} if started_from else None,
                    INHERITED: started_from.get(INHERITED, []) if started_from else [],
                    "resolved": resolved_settings(trainer),
                    **data_record(prepared, fold),
                    "parameters": sum(p.numel() for p in trainer.network.parameters()),
                    "started": started,
                    "finished": now(),
                    "seconds": round(monotonic() - clock, 1),
                    "trained_seconds": round(trainer.trained_seconds, 1),
                    "resumed_at": trainer.resumed_at,
                    "device": str(device),
                    "environment": machine(device),
                    "result": result_of(trainer),
                    "versions": versions(),
                    "commit": commit(),
                }
                publish_fold(trainer, record, place, half, published)
    wait_for_all()
    return current_version(model_folder) / f"fold_{fold}" / FINAL_CHECKPOINT


def _new_trainer(
    plans: dict[str, Any], fold: int, dataset: dict[str, Any], device: torch.device, teacher: Teacher | None
) -> FlrTrainer:
    with warnings.catch_warnings():
        # nnU-Net's constructor takes every process of several for one on a GPU.
        warnings.filterwarnings("ignore", message=".*GradScaler is enabled, but CUDA is not available")
        kind = FlrTrainer if teacher is None else DistillingTrainer
        trainer = kind({**plans, "continue_training": False}, CONFIGURATION, fold, dataset, device)
    trainer.device = device  # the constructor turns every CUDA device into the first one
    if isinstance(trainer, DistillingTrainer) and teacher is not None:
        trainer.learn_from(teacher)
    return trainer


def _train(trainer: FlrTrainer, work: StageWork, pretrained: Path | None, validation: Collection[str]) -> dict[str, Any] | None:
    if trainer.resume():
        logger.info("stage %s fold %d: continues at epoch %d", work.stage, trainer.fold, trainer.current_epoch)
    elif not trainer.was_initialized:
        trainer.initialize()
    state_bytes = sum(p.numel() * p.element_size() for p in trainer.network.parameters()) * 4  # weights, AdamW's three moments
    require_room(Path(trainer.output_folder), state_bytes * _STATES_KEPT, "keeping the training state")
    started_from = start_from(trainer, pretrained, validation)
    trainer.run_training()
    return started_from


def _require_target(work: StageWork, fold: int, train_ids: Collection[str], voxels: Mapping[str, Mapping[str, int]]) -> None:
    for target, counts in voxels.items():
        if counts and not any(counts.get(case_id) for case_id in train_ids):
            raise LabelError(
                f"stage {work.stage} fold {fold}: the target {target} is empty in all {len(train_ids)} training cases; "
                "nothing can be learned. Use fewer folds or label more cases"
            )


@contextmanager
def _only_training(folder: Path) -> Iterator[None]:
    """Holds the fold's own lock; a killed process lets go of it. Raises: TrainingError where another one holds it."""
    lock = FileLock(folder / "training.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"{folder} is being trained by another process; wait for it, or use another --work folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _fast_convolutions(device: torch.device) -> Iterator[None]:
    """Lets cuDNN choose the fastest of its algorithms, as nnU-Net does; the patch size never changes."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
