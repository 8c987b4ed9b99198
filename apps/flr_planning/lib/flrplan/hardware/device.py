"""Where networks run, and how much memory they take there."""

from __future__ import annotations

import torch

from flrplan.errors import FlrError, SettingsError
from flrplan.hardware.memory import peak_memory_bytes

DEVICES = ("auto", "cpu", "cuda")

_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "alloc_failed",
    "unable to find an engine",
    "unable to find a valid cudnn algorithm",
)
"""What torch, cuBLAS and cuDNN say, in lower case."""


def choose_device(name: str) -> torch.device:
    """``auto``: the first CUDA device if there is one, else the CPU. Also ``cuda:1`` and so on.

    Raises: SettingsError for an unknown name, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"unknown device {name!r}; known are {', '.join(DEVICES)} and cuda:<number>") from None
    if device.type not in DEVICES:
        raise SettingsError(f"unknown device {name!r}; known are {', '.join(DEVICES)} and cuda:<number>")
    if device.type == "cpu":
        return torch.device("cpu")  # nnU-Net compares with exactly this and would compile for "cpu:0"
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(
            f"device {name} was asked for, but {torch.cuda.device_count()} CUDA devices are there; use auto or cpu"
        )
    return device


def peak_memory_of(device: torch.device) -> int:
    """Most memory so far: of the GPU by torch, or of this process (without its workers) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory_bytes()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU; not one of ours, which says what to do already.

    cuDNN that finds no way to compute a convolution has, as a rule, no memory for any.
    """
    if isinstance(error, FlrError):
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _OUT_OF_MEMORY)
