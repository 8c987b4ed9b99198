"""Provenance of a training: what it was, what it was made of, and what its weights have learned from.

``run.json`` beside a published checkpoint says all of it, so that the result can be judged and repeated; a training state names its data.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import flrplan
from flrplan.errors import ModelError, SettingsError
from flrplan.hardware.device import peak_memory_of
from flrplan.method import Variant
from flrplan.networks import SCRATCH
from flrplan.nnunet.model.checkpoint import file_sha256
from flrplan.nnunet.train.batches import resolve_workers
from flrplan.nnunet.train.distributed import world_size
from flrplan.nnunet.train.precision import compiles, precision_name
from flrplan.workfolder import FINAL_CHECKPOINT, RunRecord, Split, require_same

if TYPE_CHECKING:
    from flrplan.nnunet.train.trainer import FlrTrainer

TRAINED_ON = "trained_on"
"""Key of a training state."""
TEACHER = "teacher_sha256"
"""Key of a training state and of ``run.json``: the weights of each fold of the model that was distilled."""
PACKAGES = ("torch", "nnunetv2", "monai", "numpy", "SimpleITK", "batchgenerators", "batchgeneratorsv2", "blosc2")
VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables of the environment that change speed or result, kept where they are set."""

_RESULT_KEYS = {"train_loss": "train_losses", "validation_loss": "val_losses", "pseudo_dice_ema": "ema_fg_dice"}


@dataclass(frozen=True)
class TrainedOn:
    """The prepared data of one fold; teacher_sha256: of the weights that taught it in place of the labels."""

    data_sha256: str | None
    train_ids: Sequence[str]
    validation_ids: Sequence[str]
    teacher_sha256: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, the ids sorted."""
        return {
            "data_sha256": self.data_sha256,
            "train_ids": sorted(self.train_ids),
            "validation_ids": sorted(self.validation_ids),
            **({} if self.teacher_sha256 is None else {TEACHER: self.teacher_sha256}),
        }

    def require_same(self, state: Mapping[str, Any], path: Path) -> None:
        """Raises SettingsError unless a training state says that it was made on these data and this fold."""
        remedy = "use another --work folder, or delete that file to start anew"
        require_same(state.get(TRAINED_ON) or {}, self.to_json(), f"{path}: the training there", remedy)


def require_same_training(
    folder: Path, split: Split, fold: int, start: str | None = None, variant: Variant | None = None
) -> bool:
    """True where ``folder`` (``.../fold_<k>``) holds the published model of this training, False where there is none yet.

    start: a file of weights, ``scratch``, or None: whatever it started from. variant: what it is a model of; None: an architecture.
    Raises: ModelError where it holds a model of another split or variant, or one that started from something else.
    """
    if not (folder / FINAL_CHECKPOINT).is_file():
        return False
    run = RunRecord.read(folder, ModelError)
    now: dict[str, Any] = {"train_ids": list(split.train_ids(fold)), "validation_ids": list(split.validation_ids(fold))}
    what = f"{folder}: the model there"
    before: dict[str, Any] = {
        "train_ids": list(run.train_ids or ()),
        "validation_ids": list(run.validation_ids or ()),
        "variant": run.variant,
    }
    if start is not None:
        now["start"] = "random weights" if start == SCRATCH else file_sha256(Path(start))
        before["start"] = run.pretrained.get("sha256") if run.pretrained else "random weights"
        what += f" (started from {(run.pretrained or {}).get('source', 'random weights')})"
    remedy = "give a variant another name, use another --models folder, or delete it"
    require_same(before, {**now, "variant": variant.to_json() if variant else None}, what, remedy, ModelError)
    return True


def require_unseen(seen: Collection[str], source: str, held_out: Collection[str], validation: Collection[str] = ()) -> None:
    """Raises SettingsError where weights trained on a held-out case, or on one that validates the fold.

    seen: ids that trained the weights of ``source``, its predecessors included.
    """
    for ids, role in ((held_out, "which the split calls test"), (validation, "which validate this fold")):
        known = sorted(set(seen) & set(ids))
        if known:
            raise SettingsError(
                f"{source} was trained on {known[:5]}, {role}: a model that starts from it could not be judged on them. Start from a "
                "model of the same split and fold, or anew"
            )


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
        "patches_at_once": trainer.accumulation.size,
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
        "peak_memory_bytes": peak_memory_of(device),
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
