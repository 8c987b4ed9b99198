"""The part of the trainer that is saved and comes back: weights, optimizer, epoch and log, as tensors and plain values."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from flrplan.errors import SettingsError
from flrplan.method import TrainingSettings
from flrplan.nnunet.checkpoint import TRAINING_NAME, load_checkpoint, write_checkpoint
from flrplan.nnunet.trained_on import KEY, TrainedOn

MAY_CHANGE = ("epochs", "save_every", "workers", "mixed_precision", "compile")
"""Settings that may differ when a training continues (epochs: not below those it has had); the others would mix two trainings."""


class TrainerState(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net is untyped
    """Saving and continuing; ``settings`` and ``trained_on`` are set by :class:`flrplan.nnunet.trainer.FlrTrainer`."""

    is_ddp: bool
    settings: TrainingSettings
    trained_on: TrainedOn | None
    network: Any
    current_epoch: int
    resumed_at: list[int]
    trained_seconds: float

    @property
    def training_state(self) -> Path:
        """The file that continues this training."""
        return Path(self.output_folder) / TRAINING_NAME

    def resume(self) -> bool:
        """Continues from the training state, if there is one.

        Raises: ModelError where it is damaged; SettingsError where it was trained with settings, data or a fold that cannot be mixed,
        or for more epochs than are asked for.
        """
        if not self.training_state.is_file():
            return False
        content = load_checkpoint(self.training_state)
        trained_with = {
            **_settings(TrainingSettings()),
            **content["settings"],
        }  # a setting newer than the state had its default
        before, now = ({k: v for k, v in s.items() if k not in MAY_CHANGE} for s in (trained_with, _settings(self.settings)))
        if before != now:
            changed = sorted(k for k in now if before.get(k) != now[k])
            raise SettingsError(
                f"{self.training_state} was trained with other settings ({', '.join(changed)}); use another --work folder, "
                "or delete that file to start anew"
            )
        if self.trained_on is not None:
            self.trained_on.require_same(content, self.training_state)
        if content["current_epoch"] > self.settings.epochs:
            raise SettingsError(
                f"{self.training_state} was trained for {content['current_epoch']} epochs, the settings ask for {self.settings.epochs}; "
                "weights do not become those of a shorter training: ask for at least as many epochs, or use another --work folder"
            )
        self.load_checkpoint(content)
        self.resumed_at = [*content.get("resumed_at", []), self.current_epoch]
        self.trained_seconds = float(content.get("trained_seconds", 0.0))
        return True

    def plain_weights(self) -> dict[str, torch.Tensor]:
        """The network's weights, without the names that compiling or data parallelism add."""
        module = self.network.module if self.is_ddp else self.network
        module = getattr(module, "_orig_mod", module)
        return dict(module.state_dict())

    def save_checkpoint(self, filename: str) -> None:
        """The training state: tensors and plain values only, so that it opens with ``weights_only=True``."""
        if self.local_rank != 0:
            return
        log = self.logger.get_checkpoint()
        content = {
            "network_weights": self.plain_weights(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "current_epoch": self.current_epoch + 1,
            "logging": {key: [_plain(v) for v in values] for key, values in log.items()},
            "settings": _settings(self.settings),
            KEY: None if self.trained_on is None else self.trained_on.to_json(),
            "resumed_at": list(self.resumed_at),
            "trained_seconds": self.trained_seconds,
        }
        write_checkpoint(Path(filename), content)

    def load_checkpoint(self, filename_or_checkpoint: str | dict[str, Any]) -> None:
        """Continues from a training state written by :meth:`save_checkpoint`."""
        if not self.was_initialized:
            self.initialize()
        content = (
            load_checkpoint(Path(filename_or_checkpoint)) if isinstance(filename_or_checkpoint, str) else filename_or_checkpoint
        )
        module = self.network.module if self.is_ddp else self.network
        getattr(module, "_orig_mod", module).load_state_dict(content["network_weights"])
        self.optimizer.load_state_dict(content["optimizer_state"])
        if self.grad_scaler is not None and content["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(content["grad_scaler_state"])
        self.current_epoch = content["current_epoch"]
        self.logger.load_checkpoint(content["logging"])


def _settings(settings: TrainingSettings) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays as Python numbers and lists, recursively."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
