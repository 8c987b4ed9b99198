"""What a client can choose for one training, and how a request says it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flrplan.errors import SettingsError
from flrplan.hardware import choose_device
from flrplan.learning import Start, TrainingChoice
from flrplan.networks import ARCHITECTURES
from flrplan.server.options import chosen, device_choices, one_of
from flrplan.server.settings import AppSettings

HOST_KEYS = ("model", "gpus", "local_rank", "client_id", "bundle_path", "multi_gpu")
"""Keys that MONAI Label 0.8.5 and its clients put into every training request; not options of ours."""


def train_config(settings: AppSettings) -> dict[str, Any]:
    """The options as the viewers show them: each list is a combo box whose first value is the default.

    ``epochs`` 0 (3D Slicer shows an empty field): as many as the recipe says.
    """
    return {
        "architecture": list(dict.fromkeys([settings.architecture, *ARCHITECTURES])),
        "start": [start.value for start in Start],
        "epochs": 0,
        "device": device_choices(settings.device),
    }


def training_choice(request: Mapping[str, Any], config: Mapping[str, Any], tasks: Collection[str]) -> TrainingChoice:
    """Reads a request against :func:`train_config`; the host does not put the defaults in, so absent values take them here.

    tasks: names of all training tasks; "train all" of a client puts a block of each into every request.
    Raises: SettingsError naming the known options or values.
    """
    unknown = sorted(set(request) - {*config, *HOST_KEYS, *tasks})
    if unknown:
        raise SettingsError(f"unknown training options {', '.join(unknown)}; known are {', '.join(config)}")
    device = chosen(request, "device", config["device"][0])
    choose_device(device)
    return TrainingChoice(
        one_of(request, "architecture", config["architecture"]),
        Start(one_of(request, "start", config["start"])),
        _epochs(request.get("epochs")),
        device,
    )


def _epochs(value: object) -> int | None:
    text = str(value if value is not None else "").strip()
    if text in ("", "0"):
        return None
    if not text.isdecimal() or isinstance(value, bool):
        raise SettingsError(f"epochs must be a whole number from 1 up, or 0 for those of the recipe; got {value!r}")
    return int(text)
