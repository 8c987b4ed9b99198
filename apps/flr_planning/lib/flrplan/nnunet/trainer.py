"""One trainer for every stage and architecture: nnU-Net's, with AdamW, binary cross entropy and safe checkpoints.

Source of the settings: arXiv:2604.07999, section 3.3 (200 epochs, AdamW, binary cross entropy, nnU-Net's augmentations).
Methods named as in nnU-Net 2.8.1 override its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from flrplan.errors import ModelError, SettingsError
from flrplan.nnunet.architecture_plan import planned_architecture
from flrplan.nnunet.checkpoint import TRAINING_NAME, load_checkpoint, write_checkpoint
from flrplan.nnunet.schedule import learning_rate_schedule
from flrplan.nnunet.settings import TrainingSettings

logger = logging.getLogger(__name__)

MAY_CHANGE = ("epochs", "save_every", "workers", "mixed_precision")
"""Settings that may differ when a training continues; the others would mix two trainings."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave: losses, pseudo Dice of the validation patches (nnU-Net's "fake" Dice), wall seconds."""

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float
    pseudo_dice: float
    seconds: float


class BinaryCrossEntropy(nn.Module):
    """Binary cross entropy of logits against a 0/1 target of the same shape ``(B, 1, Z, Y, X)``; the mean over voxels."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss, computed in float32."""
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float())


def precision_context(device: torch.device, setting: str) -> Any:
    """The autocast context of a device: float16 on CUDA, bfloat16 on a CPU that computes in it, else none."""
    if device.type == "cuda" and setting != "off":
        return torch.autocast("cuda")
    if (
        device.type == "cpu"
        and setting != "off"
        and (setting == "on" or torch.cpu.get_capabilities().get("avx512_bf16", False))
    ):
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


class FlrTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net is untyped
    """nnU-Net's training loop with the paper's optimizer and loss. Call :meth:`apply` before :meth:`run_training`."""

    def apply(self, settings: TrainingSettings, on_epoch: Callable[[EpochReport], None] | None = None) -> None:
        """Takes the settings; the constructor's signature is nnU-Net's and cannot carry them. The plan names the architecture."""
        architecture = planned_architecture(self.plans_manager.plans)
        settings = settings.resolved(architecture)
        self.enable_deep_supervision = architecture.deep_supervision
        self.settings = settings
        self.on_epoch = on_epoch
        self.initial_lr = float(settings.learning_rate or 0)
        self.weight_decay = float(settings.weight_decay or 0)
        self.num_epochs = settings.epochs
        self.num_iterations_per_epoch = settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.validation_iterations
        self.oversample_foreground_percent = settings.oversample_foreground

    @property
    def training_state(self) -> Path:
        """The file that continues this training."""
        return Path(self.output_folder) / TRAINING_NAME

    def resume(self) -> bool:
        """Continues from the training state, if there is one.

        Raises: ModelError where it is damaged; SettingsError where it was trained with settings that cannot be mixed.
        """
        if not self.training_state.is_file():
            return False
        content = load_checkpoint(self.training_state)
        before, now = (
            {k: v for k, v in s.items() if k not in MAY_CHANGE} for s in (content["settings"], _settings(self.settings))
        )
        if before != now:
            changed = sorted(k for k in now if before.get(k) != now[k])
            raise SettingsError(
                f"{self.training_state} was trained with other settings ({', '.join(changed)}); use another --work folder, "
                "or delete that file to start anew"
            )
        self.load_checkpoint(content)
        return True

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW with the schedule of the settings."""
        rate, decay, warmup = self.initial_lr, self.weight_decay, float(self.settings.warmup_fraction or 0)
        optimizer = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=decay, amsgrad=bool(self.settings.amsgrad))
        return optimizer, learning_rate_schedule(optimizer, str(self.settings.schedule), rate, self.num_epochs, warmup)

    def _build_loss(self) -> nn.Module:
        loss: nn.Module = BinaryCrossEntropy()
        if not self.enable_deep_supervision:
            return loss
        weights = np.array([1 / 2**i for i in range(len(self._get_deep_supervision_scales()))])
        if len(weights) > 1:
            # DDP needs every parameter in the graph, so the lowest output keeps a vanishing weight there (as nnU-Net does).
            weights[-1] = 1e-6 if self.is_ddp else 0.0
        return DeepSupervisionWrapper(loss, weights / weights.sum())  # type: ignore[no-any-return]

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """nnU-Net's augmentation ranges, with the mirror axes of the settings."""
        rotation, dummy_2d, initial_patch, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        axes = self.settings.mirror_axes
        self.inference_allowed_mirroring_axes = axes or None
        return rotation, dummy_2d, initial_patch, axes

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One optimizer step; nnU-Net's own where CUDA computes in mixed precision, else in the precision of the settings."""
        if self.device.type == "cuda" and self.settings.mixed_precision != "off":
            return super().train_step(batch)  # type: ignore[no-any-return]
        data = batch["data"].to(self.device, non_blocking=True)
        target = _on_device(batch["target"], self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with precision_context(self.device, self.settings.mixed_precision):
            loss = self.loss(self.network(data), target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's validation step, in the precision of the training."""
        with precision_context(self.device, self.settings.mixed_precision) if self.device.type == "cpu" else nullcontext():
            return super().validation_step(batch)  # type: ignore[no-any-return]

    def on_epoch_end(self) -> None:
        """Reports, keeps the state that continues the training, moves on."""
        log = self.logger.local_logger.my_fantastic_logging
        started = log["epoch_start_timestamps"][-1]
        self.logger.log("epoch_end_timestamps", time(), self.current_epoch)
        report = EpochReport(
            self.current_epoch,
            self.num_epochs,
            float(log["train_losses"][-1]),
            float(log["val_losses"][-1]),
            float(log["mean_fg_dice"][-1]),
            log["epoch_end_timestamps"][-1] - started,
        )
        if not np.isfinite(report.train_loss):
            raise ModelError(
                f"epoch {self.current_epoch + 1}: the loss is {report.train_loss}; the training diverged. Lower learning_rate and "
                "train in another --work folder"
            )
        last = self.current_epoch == self.num_epochs - 1
        if (self.current_epoch + 1) % self.settings.save_every == 0 or last:
            self.save_checkpoint(str(self.training_state))
            if self.local_rank == 0:
                self.logger.plot_progress_png(self.output_folder)
        self.current_epoch += 1
        if self.on_epoch is not None:
            self.on_epoch(report)

    def on_train_end(self) -> None:
        """Stops the loaders. Publishing is not the trainer's business (:mod:`flrplan.nnunet.training_run`)."""
        for loader in (self.dataloader_train, self.dataloader_val):
            finish = getattr(loader, "_finish", None)
            if finish is not None:
                finish()

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

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Into nnU-Net's log file and our debug log; never to the console."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)
        logger.debug("%s", " ".join(map(str, args)))

    def plot_network_architecture(self) -> None:
        """Not drawn: nnU-Net's drawing needs a package that no longer works."""

    def _save_debug_information(self) -> None:
        """Not written: ``run.json`` says what ran."""


def _on_device(target: Any, device: torch.device) -> Any:
    """The target, or the list of targets that deep supervision takes, on the device."""
    if isinstance(target, list):
        return [part.to(device, non_blocking=True) for part in target]
    return target.to(device, non_blocking=True)


def _settings(settings: TrainingSettings) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays as Python numbers and lists, recursively."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
