"""Training of one (stage, fold): inputs, plan, preprocessing, the training itself, and the published model.

Command line, MONAI Label and the benchmark call :func:`prepare_stage` and :func:`train_fold`.
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from flrplan import __version__
from flrplan.errors import ModelError, SettingsError
from flrplan.io import write_json
from flrplan.networks.table import architecture_named
from flrplan.nnunet.architecture_plan import plan_training
from flrplan.nnunet.checkpoint import FINAL_NAME, published_content, require_finite, weights_sha256, write_checkpoint
from flrplan.nnunet.dataset import convert_dataset, dataset_name
from flrplan.nnunet.environment import augmentation_workers, nnunet_folders, quiet
from flrplan.nnunet.model_folder import RUN_NAME
from flrplan.nnunet.planning import CONFIGURATION, plan_and_preprocess
from flrplan.nnunet.pretrained import start_from
from flrplan.nnunet.settings import Recipe
from flrplan.nnunet.trainer import EpochReport, FlrTrainer
from flrplan.splits import Split
from flrplan.stages import ARCHITECTURES, Stage
from flrplan.training_cases import LabelledCase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageWork:
    """Where one stage is prepared and trained: ``<work>/<stage>``; nnU-Net's folders lie in it."""

    root: Path
    stage: Stage

    @property
    def folder(self) -> Path:
        """Root of nnU-Net's three folders for this stage."""
        return self.root / self.stage.name

    @property
    def marker(self) -> Path:
        """Written last by the preparation; says what was prepared."""
        return self.folder / "prepared.json"

    @property
    def preprocessed(self) -> Path:
        """nnU-Net's preprocessed folder of this stage."""
        return self.folder / "preprocessed" / dataset_name(self.stage)


def prepare_stage(cases: Sequence[LabelledCase], work: StageWork, recipe: Recipe, split: Split, workers: int = 1) -> None:
    """Inputs, plan and preprocessed arrays of one stage; done once, and left alone if it is there with the same settings.

    Only cases of the split's folds are prepared: held-out ids never come near a training.
    Raises: SettingsError where the folder was prepared with other settings or cases; LabelError, ImageError from the cases.
    """
    if not split.folds:
        raise SettingsError("this split has no folds, so it can evaluate but not train; give one with at least 2 folds")
    allowed = {i for fold in split.folds for i in fold}
    used = sorted((c for c in cases if c.case_id in allowed), key=lambda c: c.case_id)
    missing = sorted(allowed - {c.case_id for c in used})
    if missing:
        raise SettingsError(f"the split names cases that are not there: {missing[:10]}")
    folds = [{"train": list(split.train_ids(k)), "val": list(split.validation_ids(k))} for k in range(len(split.folds))]
    settings = recipe.to_json()
    files = {case.case_id: case.file_stamps() for case in used}
    content = {"input": settings["input"], "plan": recipe.plan.shared(), "folds": folds, "files": files}
    work.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(work.folder / "prepare.lock"):  # two folds may be started at once
        _prepare(work, used, recipe, folds, content, workers)


def _prepare(
    work: StageWork,
    used: Sequence[LabelledCase],
    recipe: Recipe,
    folds: list[dict[str, list[str]]],
    content: dict[str, Any],
    workers: int,
) -> None:
    if work.marker.is_file():
        if json.loads(work.marker.read_text(encoding="utf-8")) != json.loads(json.dumps(content)):
            raise SettingsError(
                f"{work.folder} was prepared with other settings, cases, files or folds; use another --work folder or delete it"
            )
        return
    _clear_other_preparation(work, content)
    convert_dataset(used, work.stage, recipe.input, work.folder / "raw", workers)
    with nnunet_folders(work.folder):
        plan_and_preprocess(dataset_name(work.stage), recipe.plan, workers)
    write_json(work.preprocessed / "splits_final.json", folds)
    write_json(work.marker, content)


def _clear_other_preparation(work: StageWork, content: dict[str, Any]) -> None:
    """Removes what a preparation with other settings left when it was stopped; the same settings continue."""
    started = work.folder / "preparing.json"
    if not started.is_file() or json.loads(started.read_text(encoding="utf-8")) != json.loads(json.dumps(content)):
        for name in ("raw", "preprocessed"):
            shutil.rmtree(work.folder / name, ignore_errors=True)
    write_json(started, content)


def train_fold(
    work: StageWork,
    fold: int,
    recipe: Recipe,
    model_folder: Path,
    device: torch.device,
    half: bool = False,
    on_epoch: Callable[[EpochReport], None] | None = None,
    architecture: str = ARCHITECTURES[0],
    pretrained: Path | None = None,
) -> Path:
    """Trains one fold of a prepared stage (continuing an interrupted training) and publishes it into ``model_folder``.

    Returns the published checkpoint. ``half`` stores float16 weights. ``pretrained``: a checkpoint to start from, published
    STU-Net weights or one of our own, which brings its network along (:mod:`flrplan.nnunet.pretrained`).
    Raises: SettingsError for an unknown fold; ModelError where ``model_folder`` holds folds of another plan, or the pretrained
    weights do not fit.
    """
    dataset = json.loads((work.preprocessed / "dataset.json").read_text())
    plans = plan_training(work.preprocessed, architecture_named(architecture), recipe.plan, pretrained)
    folds = json.loads((work.preprocessed / "splits_final.json").read_text())
    if not 0 <= fold < len(folds):
        raise SettingsError(f"fold {fold} does not exist; this split has folds 0 to {len(folds) - 1}")
    _check_same_model(model_folder, plans, dataset)
    seed = recipe.training.seed + fold
    np.random.seed(seed)
    torch.manual_seed(seed)
    started = monotonic()
    with nnunet_folders(work.folder), augmentation_workers(recipe.training.workers), quiet():
        trainer = FlrTrainer({**plans, "continue_training": False}, CONFIGURATION, fold, dataset, device)
        trainer.device = device  # nnU-Net's constructor turns every CUDA device into the first one
        trainer.apply(recipe.training, on_epoch)
        if trainer.resume():
            np.random.seed(seed + 1000 * trainer.current_epoch)  # not the first epochs' patches once more
            torch.manual_seed(seed + 1000 * trainer.current_epoch)
            logger.info("stage %s fold %d: continues at epoch %d", work.stage, fold, trainer.current_epoch)
        started_from = start_from(trainer, pretrained)
        trainer.run_training()
    weights = trainer.plain_weights()
    target = model_folder / f"fold_{fold}"
    target.mkdir(parents=True, exist_ok=True)
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        write_json(model_folder / name, content)
    require_finite(weights, f"stage {work.stage} fold {fold}")
    published = published_content(weights, CONFIGURATION, fold, recipe.training.mirror_axes, half)
    run = {
        "stage": work.stage.name,
        "fold": fold,
        "architecture": architecture,
        "recipe": replace(recipe, training=trainer.settings).to_json(),
        "pretrained": started_from,
        "train_ids": folds[fold]["train"],
        "validation_ids": folds[fold]["val"],
        "weights_sha256": weights_sha256(published["network_weights"]),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "seconds": round(monotonic() - started, 1),
        "device": str(device),
        "result": _last_epoch(trainer),
        "versions": _versions(),
    }
    require_finite(published["network_weights"], f"stage {work.stage} fold {fold} in half precision")
    write_json(target / RUN_NAME, run)
    write_checkpoint(target / FINAL_NAME, published)
    return target / FINAL_NAME


def _check_same_model(model_folder: Path, plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        path = model_folder / name
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != content:
            raise ModelError(
                f"{path} belongs to another training (other plan, input or number of cases); choose another folder for the new model"
            )


def _last_epoch(trainer: FlrTrainer) -> dict[str, float]:
    log = trainer.logger.get_checkpoint()
    return {name: round(float(log[key][-1]), 4) for name, key in _RESULT_KEYS.items()}


_RESULT_KEYS = {"train_loss": "train_losses", "validation_loss": "val_losses", "pseudo_dice_ema": "ema_fg_dice"}


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "nnunetv2", "monai", "numpy", "SimpleITK")}
    return {"flrplan": __version__, "python": platform.python_version(), **packages}
