"""What a ``plans.json`` may name as a network. nnU-Net imports and CALLS whatever stands there, so names are checked first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flrplan.errors import ModelError
from flrplan.nnunet.model_folder import ModelFolder

_NETWORK = re.compile(r"(dynamic_network_architectures\.architectures|flrplan\.networks)\.\w+\.\w+")
_PART = re.compile(r"torch\.nn\.(modules\.(conv|instancenorm|batchnorm|dropout|activation)\.)?[A-Z]\w+")


def check_architecture(folder: ModelFolder, configuration: str) -> None:
    """Raises ModelError unless network and building blocks are classes of the known libraries.

    nnU-Net 2.8 resolves ``network_class_name`` and every value listed in ``_kw_requires_import`` with ``pydoc.locate`` and
    calls them: a plans.json that names ``os.system`` would run a command.
    """
    try:
        settings = _resolved(folder.plans["configurations"], configuration)
        architecture = settings["architecture"]
        names = {"network_class_name": architecture["network_class_name"]}
        wanted = {"network_class_name": _NETWORK}
        for key in architecture["_kw_requires_import"]:
            value = architecture["arch_kwargs"].get(key)
            if value is not None:
                names[key], wanted[key] = value, _PART
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder.path}: plans.json describes no network as nnU-Net 2.3 and later write it (missing {error}); "
            "plan and train it with a current nnU-Net"
        ) from error
    for key, name in names.items():
        if not isinstance(name, str) or not wanted[key].fullmatch(name):
            raise ModelError(
                f"{folder.path}: plans.json names {name!r} as {key}, which is no class of torch.nn or "
                "dynamic_network_architectures; it could run any code and is refused"
            )


def _resolved(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    settings = dict(configurations[name])
    seen = {name}
    while "inherits_from" in settings:
        parent = settings.pop("inherits_from")
        if parent in seen:
            raise KeyError(f"configuration {parent} inherits from itself")
        seen.add(parent)
        settings = {**configurations[parent], **settings}
    return settings
