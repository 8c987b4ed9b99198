"""What a network costs: parameters, arithmetic and memory of one training step, counted or run.

FLOPs are torch's count (two per multiply-add of convolutions and matrix products; normalization and activations are left out).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.flop_counter import FlopCounterMode

from flrplan.hardware.device import peak_memory_of
from flrplan.method import PlanSettings
from flrplan.networks import Architecture
from flrplan.networks.estimate import TYPICAL_PATCH
from flrplan.networks.table import NARROW
from flrplan.nnunet.prepare.architecture_plan import architecture_plan, unet_topology
from flrplan.nnunet.prepare.planning import CONFIGURATION, PLANS

TYPICAL_SPACING_MM = (1.5, 1.5, 1.5)
"""The grid that abdominal CT is usually trained on; the real one is planned from the data."""
_ADAMW_COPIES = 5
"""float32 tensors per parameter: weight, gradient, two moments and amsgrad's maximum."""


@dataclass(frozen=True)
class NetworkCost:
    """One network at one patch, batch 1, one output, float32.

    forward_gflop, training_gflop: one patch forward; forward and backward. memory_gb: tensors kept for the
    backward pass, the weights, gradients and AdamW's moments. seconds: forward and backward, None where it was only counted; so is
    peak_gb: the most memory so far, libraries among it, without AdamW's moments, since no step is taken.
    """

    architecture: str
    size: str
    patch_zyx: tuple[int, int, int]
    batch: int
    parameters: int
    forward_gflop: float
    training_gflop: float
    memory_gb: float
    seconds: float | None
    peak_gb: float | None


def typical_plans(patch_zyx: Sequence[int] = TYPICAL_PATCH) -> dict[str, Any]:
    """What :func:`architecture_plan` needs of a prepared stage, for networks without one: the typical grid, batch 2."""
    parts = {"conv_op": "conv.Conv3d", "norm_op": "instancenorm.InstanceNorm3d"}
    arguments: dict[str, Any] = {
        **{key: f"torch.nn.modules.{name}" for key, name in parts.items()},
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    network = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {**arguments, **unet_topology(TYPICAL_SPACING_MM, patch_zyx)},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "spacing": list(TYPICAL_SPACING_MM),
        "patch_size": list(patch_zyx),
        "batch_size": 2,
        "architecture": network,
    }
    return {"plans_name": PLANS, "transpose_forward": [0, 1, 2], "configurations": {CONFIGURATION: configuration}}


def network_cost(
    architecture: Architecture,
    size: str,
    shared: dict[str, Any],
    device: torch.device | None,
    channels: int = 1,
) -> NetworkCost:
    """Builds a network as a training would, with one output, and takes one patch forward and backward.

    shared: the plans of a prepared stage, or :func:`typical_plans`. device: where it runs; None only counts (shapes without numbers).
    Raises: SettingsError for an unknown size. torch's own error where memory runs out.
    """
    plans = architecture_plan(shared, architecture, PlanSettings(network_size=size))
    configuration = plans["configurations"][CONFIGURATION]
    where = device or torch.device("meta")
    network = _network(plans, architecture, channels).to(where)
    patch = tuple(configuration["patch_size"])
    given = torch.zeros((1, channels, *patch), device=where)
    kept: dict[int, torch.UntypedStorage] = {}
    own = {p.untyped_storage()._cdata for p in network.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    started = time.monotonic()
    with FlopCounterMode(display=False) as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(given)
        loss = sum(part.square().mean() for part in (outputs if isinstance(outputs, list) else [outputs]))
    activations = sum(storage.nbytes() for storage in kept.values())
    kept.clear()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    seconds = time.monotonic() - started if device else None
    parameters = sum(p.numel() for p in network.parameters())
    return NetworkCost(
        architecture.name,
        size,
        (patch[0], patch[1], patch[2]),
        configuration["batch_size"],
        parameters,
        forward.get_total_flops() / 1e9,
        (forward.get_total_flops() + backward.get_total_flops()) / 1e9,
        (activations + 4 * _ADAMW_COPIES * parameters) / 1e9,
        seconds,
        peak_memory_of(device) / 1e9 if device else None,
    )


def weight_names(architecture: Architecture) -> list[str]:
    """Names of the weights of a narrow network of an architecture on the typical grid; other plans have more or fewer of them."""
    plans = architecture_plan(typical_plans(), architecture, PlanSettings(network_size=NARROW))
    return list(_network(plans, architecture, 1).state_dict())


def _network(plans: dict[str, Any], architecture: Architecture, channels: int) -> Any:
    manager = PlansManager(plans)
    return nnUNetTrainer.build_network_architecture(
        manager, manager.get_configuration(CONFIGURATION), channels, 1, enable_deep_supervision=architecture.deep_supervision
    )
