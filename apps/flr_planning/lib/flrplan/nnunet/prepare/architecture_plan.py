"""The plan of one architecture, derived from the plan that its stage was prepared with.

Spacing, resampling, normalization and preprocessed arrays stay those of the stage; network, patch and batch are the architecture's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from flrplan.errors import SettingsError
from flrplan.files import write_json
from flrplan.method import PlanSettings
from flrplan.networks import BASE, Architecture, architecture_named
from flrplan.networks.patch import fit_patch, fit_strides
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.model.architecture import check_architecture
from flrplan.nnunet.model.model_folder import OWN_BLOCK
from flrplan.nnunet.prepare.planning import CONFIGURATION, PLANS, preset_configuration
from flrplan.workfolder import FINAL_CHECKPOINT, read_record, require_same

logger = logging.getLogger(__name__)

TAKEN_OVER = "flrplan_taken_over"
"""Key of a plan that is a trained model's own and is used as it is; its value is the architecture."""
PLAN_TAKEN_OVER = "that of the model it started from"
"""Stands for the plan's settings in the records of such a training: those of the recipe were not used."""
_BLOCKS = (1, 3, 4, *([6] * 10))
"""Residual blocks per resolution in nnU-Net's presets (``ResEncUNetPlanner``)."""
_SMALLEST_EDGE = 4
"""nnU-Net pools a side while at least this many voxels remain."""


def plans_name(name: str, settings: PlanSettings) -> str:
    """nnU-Net's identifier of the plan, and the name of its file: ``nnUNetPlans_<architecture or variant>``, with the size if not base."""
    size = "" if settings.network_size == BASE else f"_{settings.network_size}"
    return f"{PLANS}_{name}{size}"


def planned_architecture(plans: Mapping[str, Any]) -> Architecture:
    """The architecture that a plan names; a plan without our block is nnU-Net's own. Raises SettingsError for an unknown one."""
    return architecture_named(plans.get(OWN_BLOCK, {}).get("architecture", "nnunet"))


def architecture_plan(
    shared: Mapping[str, Any],
    architecture: Architecture,
    settings: PlanSettings,
    variant: str | None = None,
    preset: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The plans (as JSON holds them) of one architecture, from the plans that ``shared`` preparation made.

    variant: the name of a variant of it, for its plan; None: the architecture's. preset: patch, batch and network of one of nnU-Net's
    presets (:func:`flrplan.nnunet.prepare.planning.preset_configuration`), where the architecture has them and the settings say no patch.
    The patch is made valid for the network, with a note in the log where that changes it.
    Raises: SettingsError for an unknown size, or settings that only nnU-Net's U-Net has.
    """
    plans: dict[str, Any] = json.loads(json.dumps(shared))
    size = architecture.size(settings.network_size)
    if settings.features is not None and (not architecture.planned_by_nnunet or architecture.presets):
        raise SettingsError(f"features are those of nnU-Net's U-Net; {architecture.name} has network_size instead")
    configuration = plans["configurations"][CONFIGURATION]
    configuration.update(json.loads(json.dumps(preset or {})))
    patch: Sequence[int] = configuration["patch_size"]
    if settings.patch_size_zyx is not None:
        patch = [settings.patch_size_zyx[axis] for axis in plans["transpose_forward"]]
    arguments = configuration["architecture"]["arch_kwargs"]
    if settings.patch_size_zyx is not None and settings.features is None:
        arguments.update(unet_topology(configuration["spacing"], patch))
    if architecture.presets:
        configuration["architecture"]["network_class_name"] = architecture.network
        _make_residual(arguments, size)
        strides = arguments["strides"]
    elif architecture.planned_by_nnunet:
        arguments.update(_features(arguments, size, settings))
        strides = arguments["strides"]
    else:
        rule = architecture.patch
        strides = fit_strides(arguments["strides"], patch, rule.resolutions) if rule.resolutions else []
        network = {**json.loads(json.dumps(size)), **({"strides": strides} if strides else {})}
        block = {"network_class_name": architecture.network, "arch_kwargs": network, "_kw_requires_import": []}
        configuration["architecture"] = block
    divisors = [prod(s[axis] for s in strides) * architecture.patch.divisor for axis in range(3)]
    limit = architecture.patch.voxels if settings.patch_size_zyx is None else None
    fitted = list(fit_patch(patch, divisors, limit))
    if fitted != list(patch):
        logger.info(
            "%s: patch %s instead of the planned %s (sides divide by %s)", architecture.name, fitted, list(patch), divisors
        )
    configuration["patch_size"] = fitted
    configuration["batch_size"] = settings.batch_size or configuration["batch_size"]
    plans["plans_name"] = plans_name(variant or architecture.name, settings)
    plans[OWN_BLOCK] = {"architecture": architecture.name, "network_size": settings.network_size}
    return plans


def plan_training(
    preprocessed: Path,
    architecture: Architecture,
    settings: PlanSettings,
    start: Path | None = None,
    variant: str | None = None,
) -> dict[str, Any]:
    """The plans of one architecture in a prepared folder, kept there as ``nnUNetPlans_<architecture or variant>.json``.

    A plan that was taken over from a trained model is returned as it is.
    start: the checkpoint that the training starts from. A model of ours brings its network, patch and batch along, whatever the new
    data would be planned with; that plan's name ends in ``_continued``.
    Raises: SettingsError where a plan of that name with other settings is there: its trainings would be mixed with new ones.
    ModelError where the model of ``start`` is incomplete or names code.
    """
    shared: dict[str, Any] = json.loads((preprocessed / f"{PLANS}.json").read_text(encoding="utf-8"))
    if TAKEN_OVER in shared:
        if shared[TAKEN_OVER] != architecture.name:
            raise SettingsError(
                f"{preprocessed} was prepared with the plan of a {shared[TAKEN_OVER]} model, not for {architecture.name}; use another "
                "--work folder"
            )
        own = {name: value for name, value in shared.items() if name != TAKEN_OVER}
        return {OWN_BLOCK: {"architecture": architecture.name, "network_size": BASE}, **own}
    architecture.size(settings.network_size)
    planner = architecture.presets.get(settings.network_size) if settings.patch_size_zyx is None else None
    preset = preset_configuration(preprocessed, shared, planner) if planner else None
    plans = architecture_plan(shared, architecture, settings, variant, preset)
    if start is not None and brings_network(start):
        _take_network(plans, ModelFolder.open(start.parents[1]), architecture)
    path = preprocessed / f"{plans['plans_name']}.json"
    if path.is_file():
        remedy = "use another --work folder, or delete that plan and its folder under results/"
        require_same(read_record(path), plans, f"{path}: the plan there", remedy)
    else:
        write_json(path, plans)
    return plans


def brings_network(start: Path) -> bool:
    """Whether a checkpoint to start from is that of a published model of ours, whose plan has its network."""
    return start.name == FINAL_CHECKPOINT and (start.parents[1] / "plans.json").is_file()


def _take_network(plans: dict[str, Any], model: ModelFolder, architecture: Architecture) -> None:
    """Puts network, patch and batch of a trained model into a plan of the same architecture; others are left to the loader."""
    if planned_architecture(model.plans).name != architecture.name or CONFIGURATION not in model.plans["configurations"]:
        return
    check_architecture(model, CONFIGURATION)
    configuration, trained = plans["configurations"][CONFIGURATION], model.plans["configurations"][CONFIGURATION]
    if not np.allclose(configuration["spacing"], trained["spacing"], rtol=0.1):
        logger.warning(
            "%s was trained at a spacing of %s mm, the new data are prepared at %s; set spacing_zyx_mm to keep the old one",
            model.path,
            trained["spacing"],
            configuration["spacing"],
        )
    for key in ("architecture", "patch_size", "batch_size"):
        configuration[key] = trained[key]
    plans["plans_name"] += "_continued"
    plans[OWN_BLOCK] = model.plans.get(OWN_BLOCK, plans[OWN_BLOCK])


def unet_topology(spacing: Sequence[float], patch: Sequence[int]) -> dict[str, Any]:
    """nnU-Net's own kernels and strides for a given patch; widths double from 32 to at most 320, as its planner has them."""
    _, strides, kernels, _, _ = get_pool_and_conv_props(spacing, patch, _SMALLEST_EDGE, 999999)
    count = len(strides)
    return {
        "n_stages": count,
        "strides": [list(map(int, s)) for s in strides],
        "kernel_sizes": [list(map(int, k)) for k in kernels],
        "features_per_stage": [min(320, 32 * 2**i) for i in range(count)],
        "n_conv_per_stage": [2] * count,
        "n_conv_per_stage_decoder": [2] * (count - 1),
    }


def _make_residual(arguments: dict[str, Any], size: Mapping[str, Any]) -> None:
    """Turns the arguments of nnU-Net's plain U-Net into those of its residual encoder, with the blocks of its presets; narrowed to a size."""
    count = arguments["n_stages"]
    arguments.pop("n_conv_per_stage", None)
    arguments["n_blocks_per_stage"] = list(size.get("n_blocks_per_stage", _BLOCKS)[:count])
    arguments["n_conv_per_stage_decoder"] = [1] * (count - 1)
    arguments["features_per_stage"] = list(size.get("features_per_stage", arguments["features_per_stage"])[:count])


def _features(arguments: Mapping[str, Any], size: Mapping[str, Any], settings: PlanSettings) -> dict[str, Any]:
    """nnU-Net's U-Net narrowed to a size of the table, or rebuilt from a list of features."""
    count = arguments["n_stages"] if settings.features is None else len(settings.features)
    decoder = {"n_conv_per_stage_decoder": [settings.convs_decoder] * (count - 1)}
    if settings.features is None:
        widths = size.get("features_per_stage")
        if widths is not None:
            widths = [widths[min(i, len(widths) - 1)] for i in range(count)]
        return {**decoder, "features_per_stage": widths or arguments["features_per_stage"]}
    return {
        **decoder,
        "n_stages": count,
        "features_per_stage": list(settings.features),
        "kernel_sizes": [[3, 3, 3]] * count,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (count - 1),
        "n_conv_per_stage": [2] * count,
    }
