"""``run.json``: what a training was, so that its result can be judged and repeated."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path
from typing import Any

import torch

import flrplan
from flrplan.hardware import memory
from flrplan.nnunet.batches import resolve_workers
from flrplan.nnunet.distributed import world_size
from flrplan.nnunet.precision import compiles, precision_name
from flrplan.nnunet.trainer import FlrTrainer

PACKAGES = ("torch", "nnunetv2", "monai", "numpy", "SimpleITK", "batchgenerators", "batchgeneratorsv2", "blosc2")
VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables of the environment that change speed or result, kept where they are set."""

_RESULT_KEYS = {"train_loss": "train_losses", "validation_loss": "val_losses", "pseudo_dice_ema": "ema_fg_dice"}


def now() -> str:
    """The time in UTC, ``2026-01-31T12:00:00+00:00``."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def result_of(trainer: FlrTrainer) -> dict[str, Any]:
    """Losses and pseudo Dice of the last epoch; of several targets that of each, too (None: no patch held it)."""
    log = trainer.logger.get_checkpoint()
    result: dict[str, Any] = {name: round(float(log[key][-1]), 4) for name, key in _RESULT_KEYS.items()}
    if by_target := trainer.pseudo_dice_by_target():
        result["pseudo_dice"] = {name: None if isnan(dice) else round(dice, 4) for name, dice in by_target.items()}
    return result


def resolved_settings(trainer: FlrTrainer) -> dict[str, Any]:
    """What the settings came to on this machine with this plan: patch, batch, precision, workers, processes."""
    plan, settings, device = trainer.configuration_manager, trainer.settings, trainer.device
    return {
        "spacing_zyx_mm": [float(s) for s in plan.spacing],
        "patch_size_zyx": [int(n) for n in plan.patch_size],
        "batch_size": int(plan.batch_size),
        "patches_at_once": trainer.pieces.size,
        "network": plan.network_arch_class_name,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "precision": precision_name(device, settings.mixed_precision),
        "compiled": compiles(device, settings.compile),
        "workers": resolve_workers(settings.workers, device, world_size()),
        "worker_failures": [failure.splitlines()[-1] for failure in trainer.worker_failures],
        "processes": world_size(),
        "iterations": settings.epochs * settings.iterations_per_epoch,
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Where it ran: device, system, versions, peak memory, the variables that matter. No host or user name."""
    return {
        "device": str(device),
        "device_name": device_name(device),
        "peak_memory_bytes": peak_memory_bytes(device),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def device_name(device: torch.device) -> str:
    """The maker's name of a GPU or processor; ``unknown`` where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory so far: of the GPU by torch, or of this process (without its workers) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return memory.peak_memory_bytes()


def versions() -> dict[str, str]:
    """The package, Python, and the libraries that decide results."""
    found = {"flrplan": flrplan.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def commit() -> str | None:
    """The git commit of this package, with ``+dirty`` where files differ from it; None outside a repository."""
    folder = Path(flrplan.__file__).parent
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # an installed copy, perhaps in an environment inside another repository
    head, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{head}+dirty" if head and changes else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def data_record(prepared: Mapping[str, Any], fold: int) -> dict[str, Any]:
    """Ids of a fold, the hash of all that was prepared for it, and the target voxels that its network is not shown."""
    folds = prepared["folds"]
    outside = prepared.get("target_voxels_outside", {})
    train_ids = folds[fold]["train"]
    return {
        "train_ids": train_ids,
        "validation_ids": folds[fold]["val"],
        "test_ids": prepared.get("test", []),
        "data_sha256": prepared.get("data_sha256"),
        "target_voxels_outside": {t: {i: counts[i] for i in train_ids if i in counts} for t, counts in outside.items()},
    }
