"""In which precision a device computes, and whether its network is compiled."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

TRITON_CAPABILITY = (7, 0)
"""The oldest CUDA generation that torch.compile's code generator supports (Volta)."""


def precision_context(device: torch.device, setting: str) -> Any:
    """The autocast context of training and validation steps.

    ``setting``: ``auto`` (float16 on CUDA, float32 on a CPU); ``on`` (bfloat16, too, on a CPU that computes in it); ``bfloat16`` (on
    CUDA as well); ``off``, float32.
    torch 2.13 on a CPU gives NaN now and then as the bfloat16 weight gradient of a convolution over few voxels (seen at 2x3x3 to
    4x6x6, never in float32), so bfloat16 is only for patches that were tried, as the demo models' (48x64x64 and larger, 4 resolutions).
    """
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16 if setting == "bfloat16" else torch.float16, enabled=setting != "off")
    native = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=setting in ("on", "bfloat16") and native)


def precision_name(device: torch.device, setting: str) -> str:
    """What :func:`precision_context` computes in: ``float16``, ``bfloat16`` or ``float32``."""
    with precision_context(device, setting):
        if not torch.is_autocast_enabled(device.type):
            return "float32"
        return str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")


def scales_gradients(device: torch.device, setting: str) -> bool:
    """Whether a loss must be scaled before its gradients are taken: those of float16 reach zero long before bfloat16's do."""
    return device.type == "cuda" and precision_name(device, setting) == "float16"


def compiles(device: torch.device, setting: str) -> bool:
    """Whether the network goes through ``torch.compile``.

    ``setting``: ``on``; ``off``; ``auto``, on CUDA devices that its code generator (triton) supports, where triton is installed.
    """
    if setting != "auto":
        return setting == "on"
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= TRITON_CAPABILITY
