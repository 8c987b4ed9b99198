"""Where networks run."""

from __future__ import annotations

import torch

from flrplan.errors import SettingsError

DEVICES = ("auto", "cpu", "cuda")


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
