"""Checkpoints: what is published, what continues a training, and how either is opened without executing code.

``torch.load(weights_only=False)`` runs whatever code a file holds; nothing here does that. Foreign nnU-Net checkpoints carry
numpy scalars beside their tensors, which an allow-list lets through.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flrplan.errors import ModelError
from flrplan.files import replacing, require_room, sha256_of_file
from flrplan.workfolder import FINAL_CHECKPOINT

logger = logging.getLogger(__name__)

TRAINING_NAME = "training_state.pth"
"""Continues a training: weights, optimizer, epoch, log. Never published."""

_SAFE_GLOBALS = [
    np.core.multiarray.scalar,  # type: ignore[attr-defined]  # numpy's stubs leave it out
    np.dtype,
    np.ndarray,
    np.core.multiarray._reconstruct,  # type: ignore[attr-defined]
    *(getattr(np.dtypes, name) for name in ("Float16DType", "Float32DType", "Float64DType", "Int32DType", "Int64DType")),
    torch.device,
    # the names under which numpy 2 saves the same two
    (np.core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np.core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),  # type: ignore[attr-defined]
]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, opened with ``weights_only=True``.

    Raises: ModelError where the file is missing, damaged, no checkpoint, or holds objects that could execute code.
    """
    if path.is_dir():
        raise ModelError(
            f"{path} is a folder, expected a checkpoint; give the file in it, fold_0/{FINAL_CHECKPOINT} of a model folder"
        )
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; copy the whole model folder, or train that fold") from None
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: expected tensors and plain values; it is damaged, or holds objects that could run code "
            f"({_refused(error)}). "
            "Get it from its source again, or re-save it there with network_weights only"
        ) from error
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        if _is_other_zip(path):
            raise ModelError(
                f"{path} is a zip, not a checkpoint; unpack it and give a checkpoint in it, or take the whole model up with: "
                f"flrplan models import {path} --stage STAGE"
            ) from error
        raise ModelError(f"{path} is damaged or not a PyTorch checkpoint ({error}); copy it again or retrain") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: expected a dictionary with network_weights, found {type(content).__name__}")
    return dict(content)


def _is_other_zip(path: Path) -> bool:
    """Whether a file is a zip that torch did not write (its own hold a ``data.pkl``)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def _refused(error: Exception) -> str:
    """The object that was refused, without torch's advice to open the file unsafely."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found.group(1) if found else "not a weights-only file"


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes beside, flushes to disk, then renames: the file is whole or it is the previous one.

    Raises: OutputError where the disk is full (naming the room that is needed) or the folder cannot be written.
    """
    tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in _tensors(content)}
    require_room(path.parent, sum(tensors.values()), f"the checkpoint {path.name}")
    with replacing(path) as beside:
        torch.save(dict(content), beside)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)


def require_finite(weights: Mapping[str, torch.Tensor], what: str) -> None:
    """Raises ModelError where a weight is NaN or infinite (also one that float16 cannot hold)."""
    bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ModelError(
            f"{what}: {len(bad)} weights are NaN or infinite, {bad[0]} for example; the training diverged, lower its rate"
        )


def published_content(
    weights: Mapping[str, torch.Tensor], configuration: str, fold: int, mirror_axes: tuple[int, ...], half: bool
) -> dict[str, Any]:
    """What a published checkpoint holds: weights (float16 if ``half``) and what nnU-Net's predictor needs, nothing else.

    ``trainer_name`` is nnU-Net's own trainer, so that its commands find the class without importing ours; the network
    itself is named in ``plans.json``. No mirroring in training means none at test time (None for nnU-Net).
    """
    return {
        "network_weights": _compact(weights, half),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": configuration, "fold": fold},
        "inference_allowed_mirroring_axes": list(mirror_axes) if mirror_axes else None,
    }


def _compact(weights: Mapping[str, torch.Tensor], half: bool) -> dict[str, torch.Tensor]:
    """CPU copies; tensors that share memory still do (nnU-Net's U-Net lists its encoder under three names)."""
    converted: dict[tuple[int, torch.Size], torch.Tensor] = {}
    result = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in converted:
            dtype = torch.float16 if half and tensor.is_floating_point() else tensor.dtype
            converted[key] = tensor.detach().to("cpu", dtype, copy=True)
        result[name] = converted[key]
    return result


def weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """Hex SHA-256 over names, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else tensor.numpy().tobytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; ``run.json`` has that of the weights under ``pretrained``. Raises: ModelError where it is missing."""
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise ModelError(f"{path}: expected a file of weights, but it cannot be read: {error.strerror}") from error
