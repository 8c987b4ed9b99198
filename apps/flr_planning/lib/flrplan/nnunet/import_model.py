"""Takes a trained nnU-Net v2 folder for a stage: opened without running its code, checked, re-saved as ours."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from flrplan.errors import ModelError
from flrplan.io import replace_folder, write_json
from flrplan.nnunet.checkpoint import FINAL_NAME, load_checkpoint, write_checkpoint
from flrplan.nnunet.dataset import OWN_BLOCK
from flrplan.nnunet.model_folder import RUN_NAME, ModelFolder, read_json_object
from flrplan.nnunet.predictor import StagePredictor
from flrplan.nnunet.publishing import changing
from flrplan.stage_input import InputSettings
from flrplan.stages import Stage

logger = logging.getLogger(__name__)


def import_model(source: Path, stage: Stage, target: Path, label: str | None = None, force: bool = False) -> Path:
    """Copies ``plans.json``, ``dataset.json``, each fold's weights and its ``run.json`` (of a model of ours) into ``target``.

    ``target`` appears in one rename.

    Args:
        label: the label of the foreign ``dataset.json`` that is the stage's target; default: the target's own name.
    Raises: ModelError where the folder is incomplete, its channels do not fit the stage, the label is unknown, a
        checkpoint is damaged or holds objects that could run code, or ``target`` is there and ``force`` is not given.
    """
    if target.exists() and not force:
        raise ModelError(f"{target} exists already; give --force to replace it, or another --models folder")
    dataset = read_json_object(source / "dataset.json")
    plans = read_json_object(source / "plans.json")
    name = label or stage.target.value
    if name not in dataset.get("labels", {}):
        raise ModelError(
            f"{source}: dataset.json has no label {name!r}; choose with --label one of {sorted(dataset.get('labels', {}))}"
        )
    before = dataset.get(OWN_BLOCK) or {}
    if before.get("stage", stage.name) != stage.name:
        raise ModelError(f"{source} is a model of stage {before['stage']}, not of stage {stage}; import it for its own stage")
    if plans.get("image_reader_writer") == "NibabelIOWithReorient":
        logger.warning("%s was trained on arrays in RAS order; here it sees LPS order, mirrored left and back", source)
    checkpoints = sorted(source.glob(f"fold_*/{FINAL_NAME}"))
    if not checkpoints:
        raise ModelError(f"{source}: expected fold_<k>/{FINAL_NAME}, found none; give nnU-Net's trained-model folder")
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for number, path in enumerate(checkpoints):
            content = load_checkpoint(path)
            fold = beside / f"fold_{_fold_number(path, number)}"
            write_checkpoint(fold / FINAL_NAME, _plain(content, path, number))
            if (run := path.with_name(RUN_NAME)).is_file():  # a model of ours: what trained it must never evaluate it
                write_json(fold / RUN_NAME, read_json_object(run))
        own = {"stage": stage.name, "label": name, "input": before.get("input", InputSettings().to_json())}
        write_json(beside / "dataset.json", {**dataset, OWN_BLOCK: {**before, **own, "imported_from": source.name}})
        write_json(beside / "plans.json", plans)
        StagePredictor(ModelFolder.open(beside), torch.device("cpu"))  # the weights fit the network, or this raises
        with changing(target):
            replace_folder(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _plain(content: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    try:
        axes = content.get("inference_allowed_mirroring_axes")
        return {
            "network_weights": {k: v for k, v in content["network_weights"].items() if isinstance(v, torch.Tensor)},
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": str(content["init_args"]["configuration"]), "fold": _fold_number(path, number)},
            "inference_allowed_mirroring_axes": [int(a) for a in axes] if axes else None,
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not an nnU-Net v2 checkpoint, it lacks {error}") from error


def _fold_number(path: Path, number: int) -> int:
    text = path.parent.name.removeprefix("fold_")
    return int(text) if text.isdigit() else number  # fold_all becomes fold 0
