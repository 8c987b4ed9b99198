"""Starts a training from weights in a file: official STU-Net checkpoints, or one of our own. No code of the file is executed.

Known forms: nnU-Net v1 ``.model`` (weights under ``state_dict``, names perhaps with ``module.``), nnU-Net v2 ``.pth`` (under
``network_weights``), which is also what we publish, and a plain dictionary of tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from flrplan.errors import ModelError, SettingsError
from flrplan.files import write_json
from flrplan.networks import Architecture, ChannelMode
from flrplan.networks.published_weights import load_weights, require_names, require_size
from flrplan.nnunet.model import load_checkpoint
from flrplan.nnunet.model.checkpoint import file_sha256
from flrplan.nnunet.model.model_folder import INHERITED, read_json_object, trained_ids
from flrplan.nnunet.prepare.architecture_plan import brings_network, planned_architecture
from flrplan.nnunet.prepare.network_cost import weight_names
from flrplan.nnunet.train.provenance import TRAINED_ON, require_unseen
from flrplan.nnunet.train.trainer import FlrTrainer

logger = logging.getLogger(__name__)

RECORD_NAME = "pretrained.json"
"""Beside the training state: which file a training started from, and what was loaded."""
_BLOCKS = ("network_weights", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint, without the prefixes that data parallelism and compiling add.

    Raises: ModelError for the plans file that lies beside a checkpoint, for a damaged or truncated file, and for one without weights.
    """
    if path.name.endswith(".pkl"):
        raise ModelError(
            f"{path} is the plans file of a checkpoint, it holds no weights; give the file beside it, {path.name.removesuffix('.pkl')}"
        )
    content = load_checkpoint(path)
    block = next((content[key] for key in _BLOCKS if isinstance(content.get(key), Mapping)), content)
    weights = {_plain_name(str(name)): value for name, value in block.items() if isinstance(value, torch.Tensor)}
    if not weights:
        raise ModelError(
            f"{path}: expected tensors under {' or '.join(_BLOCKS)}, found {', '.join(sorted(map(str, content))[:5]) or 'nothing'}; "
            "give an nnU-Net checkpoint (.model of version 1, .pth of version 2)"
        )
    return weights


def require_weights_of(architecture: Architecture, size: str, path: Path) -> None:
    """What can be told of a file before the network is planned; :func:`start_from` tells the rest.

    size: of the network to be trained, unless the file brings its own network along.
    Raises: ModelError as :func:`read_weights`, for weights of another architecture, and of another size where that can be told.
    """
    weights = read_weights(path)
    require_names(weight_names(architecture), weights, architecture, str(path))
    if not brings_network(path):
        require_size(size, weights, architecture, str(path))


def learned_from(path: Path) -> frozenset[str]:
    """Ids that the weights of a file learned from, also in the models that they began as; empty where nothing records it.

    A published checkpoint has its ``run.json`` beside it; a training state says its own cases and has the record of its start beside it.
    Raises: ModelError where a record or the file is damaged.
    """
    state = load_checkpoint(path).get(TRAINED_ON)
    own = state.get("train_ids", ()) if isinstance(state, Mapping) else ()
    return trained_ids(path) | {*own, *(_record(path.with_name(RECORD_NAME)) or {}).get(INHERITED, ())}


def start_from(trainer: FlrTrainer, path: Path | None, validation: Collection[str] = ()) -> dict[str, Any] | None:
    """Loads pretrained weights into the network of a training that has not begun, and records it; returns the record.

    A training that continues keeps its own weights; the record of its start comes back.
    validation: ids that the weights must not have seen, beside those that are held out.
    Raises: ModelError as :func:`read_weights` and where weights do not fit; SettingsError where a training that continues
    started from another file, or the weights have seen a case that they must not.
    """
    record_path = Path(trainer.output_folder) / RECORD_NAME
    before = _record(record_path)
    continues = trainer.current_epoch > 0
    if before is not None and continues:
        require_unseen(before.get(INHERITED, ()), str(before["source"]), trainer.held_out, validation)
    if path is None:
        if not continues:
            record_path.unlink(missing_ok=True)
        return before if continues else None
    weights = read_weights(path)
    seen = learned_from(path).union(trainer.inherited_ids)
    require_unseen(seen, str(path), trainer.held_out, validation)
    digest = file_sha256(path)
    if continues:
        if before is None or before["sha256"] != digest:
            raise SettingsError(
                f"{trainer.output_folder} continues a training that started from {before['source'] if before else 'random weights'}, "
                f"not from {path}; use another --work folder, or delete that one to start anew"
            )
        return {**before, INHERITED: sorted({*before.get(INHERITED, ()), *seen})}
    if not trainer.was_initialized:
        trainer.initialize()
    module = trainer.network.module if trainer.is_ddp else trainer.network
    report = load_weights(
        getattr(module, "_orig_mod", module),
        weights,
        planned_architecture(trainer.plans_manager.plans),
        trainer.num_input_channels,
        str(path),
        ChannelMode(trainer.settings.pretrained_channels),
        None
        if brings_network(path)
        else trainer.configuration_manager.spacing,  # only published weights saw a grid of their own
    )
    for line in report.lines():
        logger.info("%s", line)
    for warning in report.warnings:
        logger.warning("%s", warning)
    record = {**report.to_json(), "source": path.name, "sha256": digest, INHERITED: sorted(seen)}
    if trainer.local_rank == 0:
        write_json(record_path, record)
    return record


def _record(path: Path) -> dict[str, Any] | None:
    return read_json_object(path) if path.is_file() else None


def _plain_name(name: str) -> str:
    for prefix in _PREFIXES * 2:
        name = name.removeprefix(prefix)
    return name
