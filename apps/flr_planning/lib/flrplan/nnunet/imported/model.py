"""Takes a trained model of nnU-Net 2 for a stage: opened without running its code, checked, re-saved as ours."""

from __future__ import annotations

import logging
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nnunetv2
import torch
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from flrplan.errors import ModelError, SettingsError
from flrplan.files import write_json
from flrplan.method import InputSettings, RegionMode, Stage
from flrplan.nnunet.environment import quiet
from flrplan.nnunet.imported.labels import choose_labels
from flrplan.nnunet.imported.source import ForeignModel, opened
from flrplan.nnunet.model import ModelFolder, StagePredictor, load_checkpoint, write_checkpoint
from flrplan.nnunet.model.architecture import resolved_configuration
from flrplan.nnunet.model.model_folder import APART, COHORT_NAME, IMPORTED, OWN_BLOCK, read_json_object, target_labels
from flrplan.nnunet.train.publishing import replace_model
from flrplan.workfolder import FINAL_CHECKPOINT, RUN_NAME

logger = logging.getLogger(__name__)

_OTHER_MODALITY = re.compile(r"\b(mri?|t1\w*|t2\w*|flair|adc|dwi|pd|pet|pt|us|ultrasound|x ?ray)\b")


def import_model(
    source: Path,
    stage: Stage,
    target: Path,
    label: str | None = None,
    force: bool = False,
    input_settings: InputSettings | None = None,
    configuration: str | None = None,
    checkpoint: str = FINAL_CHECKPOINT,
) -> ModelFolder:
    """Copies ``plans.json``, ``dataset.json``, each fold's weights and its ``run.json`` (of a model of ours) into ``target``.

    It appears in one step, and is returned opened; what was there stays as the version before (:func:`flrplan.files.publish_version`).

    Args:
        source: see :func:`flrplan.nnunet.imported.source.opened`.
        label: the labels of the foreign ``dataset.json`` whose union is the stage's target (:func:`choose_labels`).
        input_settings: what the network was trained to see of the CT; needed for a foreign model of a stage with a region.
        configuration: which one, where the source holds several. checkpoint: the file of each fold that is taken.
    Raises: ModelError where the source is no such model, its channels do not fit the stage, it is not clear what its labels or its
        input are, a checkpoint is damaged or holds objects that could run code, or ``target`` is there and ``force`` is not given.
    """
    if len(stage.targets) > 1:
        raise ModelError(
            f"stage {stage} predicts {stage.target_names}, and a foreign model is imported for one target; a model of ours is copied, with "
            f"its whole folder, to {target}"
        )
    if target.exists() and not force:
        raise ModelError(f"{target} exists already; give --force to replace it, or another --models folder")
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with opened(source, configuration, checkpoint, target.parent) as model:
            try:
                _write(model, beside, stage, source.name, label, input_settings, configuration, checkpoint)
            except ModelError as error:
                raise ModelError(str(error).replace(str(beside), model.name)) from error
        return ModelFolder.open(replace_model(beside, target))
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(
    model: ForeignModel,
    beside: Path,
    stage: Stage,
    origin: str,
    label: str | None,
    asked: InputSettings | None,
    configuration: str | None,
    checkpoint: str,
) -> None:
    """Writes the model as ours into the folder ``beside``, and opens it there."""
    dataset, plans = (read_json_object(model.folder / name) for name in ("dataset.json", "plans.json"))
    before = dataset.get(OWN_BLOCK)
    before = before if isinstance(before, dict) else {}
    if before.get("stage", stage.name) != stage.name:
        raise ModelError(
            f"{model.name} is a model of stage {before['stage']}, not of stage {stage}; import it for its own stage"
        )
    dataset = _with_channels(dataset, stage, model.name)
    if label is None and "label" in before:
        label = ",".join(target_labels(before, stage.target))
    chosen = choose_labels(dataset, stage, label, model.name, model.command)
    settings = _input(stage, before, asked, model.name)
    found: dict[int, str] = {}
    trainer = ""
    for number, name in model.folds.items():
        path = model.folder / name / checkpoint
        content = load_checkpoint(path)
        plain = _plain(content, path, number)
        found[number] = plain["init_args"]["configuration"]
        trainer = str(content.get("trainer_name", "unknown"))
        write_checkpoint(beside / f"fold_{number}" / FINAL_CHECKPOINT, plain)
        if (run := path.with_name(RUN_NAME)).is_file():  # of ours: what trained it must never evaluate it
            write_json(beside / f"fold_{number}" / RUN_NAME, read_json_object(run))
    if (note := model.folder / COHORT_NAME).is_file():  # of a demo model, which it stays
        shutil.copyfile(note, beside / COHORT_NAME)
    used = _one_configuration(found, configuration, model)
    own = {"stage": stage.name, "label": list(chosen.names), APART: list(chosen.apart), "input": settings.to_json()}
    taken = {"configuration": used, "checkpoint": checkpoint, "trainer": trainer}
    folds = {str(number): fold for number, fold in model.folds.items()}
    own |= {IMPORTED: origin, "import": {**taken, "folds": folds, "left_out": model.left_out}}
    write_json(beside / "dataset.json", {**dataset, OWN_BLOCK: {**before, **own}})
    write_json(beside / "plans.json", _current_plans(plans, used, model.name))
    try:
        StagePredictor(ModelFolder.open(beside), torch.device("cpu"))  # the weights fit the network, or this raises
    except ModelError as error:
        network = f" Its trainer was {trainer}, which may build a network of its own." if trainer != "nnUNetTrainer" else ""
        raise ModelError(f"{error}.{network}" if network else str(error)) from error
    for fold, reason in model.left_out.items():
        logger.warning("%s: %s is left out: %s", model.name, fold, reason)
    if "fold_all" in model.folds.values():
        logger.warning("%s: fold_all becomes fold 0; it was trained on all cases, so it evaluates none of them", model.name)


def _with_channels(dataset: Mapping[str, Any], stage: Stage, source: str) -> dict[str, Any]:
    """The data set with ``channel_names``, which nnU-Net 2.0 may call ``modality``; the first is a CT."""
    channels = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(channels, Mapping) or not channels:
        raise ModelError(f"{source}: dataset.json has no channel_names; copy it from where the model was trained")
    expected = ("CT", *(f"mask of the {s}" for s in stage.mask_channels))
    if not dataset.get(OWN_BLOCK) and len(channels) != len(expected):
        raise ModelError(
            f"{source}: stage {stage} takes {len(expected)} channels ({', '.join(expected)}), this model takes {len(channels)} "
            f"({', '.join(map(str, channels.values()))}); import a model with that input"
        )
    first = str(channels.get("0", next(iter(channels.values()))))
    words = re.sub(r"[\W_]+", " ", first).casefold().strip()
    if _OTHER_MODALITY.search(words):
        raise ModelError(
            f"{source}: this model was trained on {first}, not on CT (channel_names in dataset.json); import a CT model"
        )
    if not re.search(r"\bct\w*\b", words):
        logger.warning(
            "%s: its first channel is called %r; it is given the CT in HU. Check that it was trained on that", source, first
        )
    return {**{k: v for k, v in dataset.items() if k != "modality"}, "channel_names": dict(channels)}


def _input(stage: Stage, before: Mapping[str, Any], asked: InputSettings | None, source: str) -> InputSettings:
    """What the network sees of the CT: as it was trained with for ours, else as the person says who knows it."""
    if before:
        try:
            own = InputSettings.from_json(before.get("input") or {})
        except (SettingsError, TypeError) as error:
            raise ModelError(f"{source}: dataset.json holds input settings that cannot be read: {error}") from error
        if asked is not None and asked != own:
            raise ModelError(f"{source} says itself what it was trained on ({own.describe(stage)}); leave --input out")
        return own
    if stage.region is None:
        if asked is not None and asked.region_mode is not RegionMode.WHOLE:
            raise ModelError(f"stage {stage} sees the whole CT, there is no mask yet that could cut it; leave --input out")
        return InputSettings()
    if asked is None:
        raise ModelError(
            f"{source} does not say what it was trained to see. Stage {stage} can give it the whole CT (--input whole: what nnU-Net "
            f"trains on, if nobody cut the images before), the CT cut to the {stage.region} (crop), with everything outside the "
            f"{stage.region} set to one value (mask, --outside-hu), or both (mask_and_crop, as the models trained here)"
        )
    return asked


def _one_configuration(by_fold: Mapping[int, str], asked: str | None, model: ForeignModel) -> str:
    """The configuration of all folds. Raises ModelError where they differ, or it is another one than asked for."""
    found = sorted(set(by_fold.values()))
    if len(found) > 1:
        raise ModelError(f"{model.name}: its folds are of different configurations, {by_fold}; import folds of one alone")
    if asked is not None and found[0] != asked:
        raise ModelError(
            f"{model.name} is of configuration {found[0]}, not {asked}; leave --configuration out, or give another source"
        )
    return found[0]


def _current_plans(plans: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    """The plans with the used configuration as nnU-Net 2.8 writes it; that of 2.0 to 2.2 is converted by nnU-Net's own reader.

    Raises: ModelError for the second stage of nnU-Net's cascade, and for what this nnU-Net does not have.
    """
    try:
        settings = resolved_configuration(plans["configurations"], name)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{source}: plans.json has no configuration {name!r} ({error}); copy it again") from error
    if settings.get("previous_stage"):
        raise ModelError(
            f"{source} is the second stage of nnU-Net's own cascade ({name}), which also needs the answer of {settings['previous_stage']}; "
            f"import the 3d_fullres model, or that of {settings['previous_stage']}"
        )
    if "architecture" not in settings:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                settings = ConfigurationManager(deepcopy(settings)).configuration
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{source}: plans.json describes no network that nnU-Net {_version()} can build ({error}); plan and train it with a current nnU-Net"
            ) from error
        network = settings["architecture"]["network_class_name"]  # the package has both in one file by now
        settings["architecture"]["network_class_name"] = network.replace(".residual_unet.", ".unet.")
    _require_known_parts(plans, settings, source)
    return {**plans, "configurations": {**plans["configurations"], name: settings}}


def _require_known_parts(plans: Mapping[str, Any], settings: dict[str, Any], source: str) -> None:
    """Raises ModelError where preprocessing needs something that this nnU-Net does not have; else it fails at the first patient."""
    manager = ConfigurationManager(settings)
    try:
        with quiet():
            parts = {
                settings["preprocessor_name"]: manager.preprocessor_class,
                settings["resampling_fn_data"]: manager.resampling_fn_data.func,
                settings["resampling_fn_probabilities"]: manager.resampling_fn_probabilities.func,
                **{scheme: _normalization(scheme) for scheme in settings["normalization_schemes"]},
            }
        needed = ("spacing", "patch_size", "use_mask_for_norm")
        lacking = [key for key in needed if key not in settings]
        lacking += [key for key in ("transpose_forward", "transpose_backward") if key not in plans]
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{source}: plans.json is not complete for nnU-Net {_version()} ({error}); copy it again") from error
    unknown = [name for name, part in parts.items() if not str(getattr(part, "__module__", "")).startswith("nnunetv2.")]
    if unknown or lacking:
        what = (
            f"names {', '.join(unknown)}, which nnU-Net {_version()} does not have"
            if unknown
            else f"lacks {', '.join(lacking)}"
        )
        raise ModelError(
            f"{source}: plans.json {what}; the model needs another program than nnU-Net's own, import one that does not"
        )


def _normalization(scheme: str) -> Any:
    folder = Path(nnunetv2.__path__[0]) / "preprocessing" / "normalization"
    return recursive_find_python_class(str(folder), scheme, current_module="nnunetv2.preprocessing.normalization")


def _version() -> str:
    return version("nnunetv2")


def _plain(content: dict[str, Any], path: Path, fold: int) -> dict[str, Any]:
    try:
        axes = content.get("inference_allowed_mirroring_axes")
        return {
            "network_weights": {k: v for k, v in content["network_weights"].items() if isinstance(v, torch.Tensor)},
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": str(content["init_args"]["configuration"]), "fold": fold},
            "inference_allowed_mirroring_axes": [int(a) for a in axes] if axes else None,
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not an nnU-Net v2 checkpoint, it lacks {error}") from error
