"""What a ``plans.json`` may name as a network. nnU-Net imports and CALLS whatever stands there, so names are checked first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flrplan.errors import ModelError
from flrplan.networks import table
from flrplan.nnunet.model.model_folder import ModelFolder

_NNUNETS_OWN = re.compile(r"dynamic_network_architectures\.architectures\.\w+\.\w+")
_PART = re.compile(r"torch\.nn\.(modules\.(conv|instancenorm|batchnorm|dropout|activation)\.)?[A-Z]\w+")

_WORD = re.compile(r"[\w-]*")
"""A word without dots names nothing that could be imported."""


def check_architecture(folder: ModelFolder, configuration: str) -> None:
    """Raises ModelError unless network, building blocks and their arguments are known to be harmless.

    nnU-Net 2.8 resolves ``network_class_name`` and every value listed in ``_kw_requires_import`` with ``pydoc.locate`` and
    calls them: a plans.json that names ``os.system`` would run a command. So the network is nnU-Net's own or one of
    :data:`flrplan.networks.table.TABLE`, blocks are classes of torch.nn, and all other arguments are plain values.
    """
    try:
        settings = resolved_configuration(folder.plans["configurations"], configuration)
        architecture = settings["architecture"]
        network = architecture["network_class_name"]
        arguments = dict(architecture["arch_kwargs"])
        parts = {str(key): arguments.pop(key, None) for key in architecture["_kw_requires_import"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder.path}: plans.json describes no network as nnU-Net 2.3 and later write it (missing {error}); "
            "plan and train it with a current nnU-Net"
        ) from error
    if not _is_known(network):
        raise _refusal(folder, network, "network_class_name", "no network of nnU-Net or of flrplan.networks")
    for key, value in parts.items():
        if value is not None and not (isinstance(value, str) and _PART.fullmatch(value)):
            raise _refusal(folder, value, key, "no class of torch.nn")
    for key, value in arguments.items():
        if not _is_plain(value):
            raise _refusal(folder, value, key, "no plain value (numbers, words, lists of these)")


def _is_known(network: Any) -> bool:
    own = {row.network for row in table.TABLE.values()}
    return isinstance(network, str) and (network in own or _NNUNETS_OWN.fullmatch(network) is not None)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(part) for key, part in value.items())
    return value is None or isinstance(value, bool | int | float)


def _refusal(folder: ModelFolder, found: Any, key: str, what: str) -> ModelError:
    return ModelError(
        f"{folder.path}: plans.json names {found!r} as {key}, which is {what}; it could run any code and is refused"
    )


def resolved_configuration(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration of a ``plans.json`` with what it inherits. Raises KeyError for one that is not there, or inherits from itself."""
    settings = dict(configurations[name])
    seen = {name}
    while "inherits_from" in settings:
        parent = settings.pop("inherits_from")
        if parent in seen:
            raise KeyError(f"configuration {parent} inherits from itself")
        seen.add(parent)
        settings = {**configurations[parent], **settings}
    return settings
