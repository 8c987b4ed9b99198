"""One trainer for every stage and architecture: nnU-Net's, with AdamW, the loss of the recipe and safe checkpoints.

Source of the settings: arXiv:2604.07999, section 3.3 (200 epochs, AdamW, binary cross entropy, nnU-Net's augmentations).
Methods named as in nnU-Net 2.8.1 override its own.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import empty_cache
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flrplan.errors import ModelError, SettingsError
from flrplan.hardware import keep_freed_memory
from flrplan.method import TrainingSettings
from flrplan.method.recipe import Loss
from flrplan.nnunet.environment import augmentation_workers
from flrplan.nnunet.model import load_checkpoint, write_checkpoint
from flrplan.nnunet.model.checkpoint import TRAINING_NAME
from flrplan.nnunet.prepare.architecture_plan import planned_architecture
from flrplan.nnunet.train.batches import Batches, resolve_workers, seed_everything
from flrplan.nnunet.train.distributed import wait_for_all, world_size
from flrplan.nnunet.train.gradient_accumulation import GradientAccumulation, in_one_piece
from flrplan.nnunet.train.optimization import learning_rate_schedule, training_loss
from flrplan.nnunet.train.precision import compiles, precision_context, scales_gradients
from flrplan.nnunet.train.provenance import TRAINED_ON, TrainedOn
from flrplan.nnunet.train.training_log import CURVE_NAME, EpochReport, Scalars, write_curve
from flrplan.workfolder import SPLITS_NAME, require_fold, require_same

__all__ = ["EpochReport", "FlrTrainer"]

logger = logging.getLogger(__name__)

GRADIENT_NORM = 12
"""Longer gradients are cut to this length (nnU-Net)."""
MAY_CHANGE = ("epochs", "save_every", "workers", "mixed_precision", "compile")
"""Settings that may differ when a training continues (epochs: not below those it has had); the others would mix two trainings."""


class FlrTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net is untyped
    """nnU-Net's training loop with the paper's optimizer and loss. Call :meth:`apply` before :meth:`run_training`.

    In this order: what it is given and sets up, cases and batches, one step, an epoch, the state that is saved and comes back.
    """

    network: Any
    is_ddp: bool
    current_epoch: int
    scalars: Scalars | None = None
    inherited_ids: Collection[str] = ()
    """What the network learns from beside its own cases and those of the weights that it starts from."""

    def apply(
        self,
        settings: TrainingSettings,
        on_epoch: Callable[[EpochReport], None] | None = None,
        held_out: Collection[str] = (),
        trained_on: TrainedOn | None = None,
        on_iteration: Callable[[int, int], None] | None = None,
    ) -> None:
        """Takes what nnU-Net's constructor cannot carry. The plan names the architecture, whose recommendations fill the settings.

        ``held_out``: ids that never train, whatever the folds say. ``trained_on``: its data; a state that continues must have the same.
        ``on_iteration``: told after each optimizer step how many there were since the training's first epoch, and how many there will be.
        """
        architecture = planned_architecture(self.plans_manager.plans)
        settings = settings.resolved(architecture)
        self.enable_deep_supervision = architecture.deep_supervision
        self.settings = settings
        self.on_epoch = on_epoch
        self.on_iteration = on_iteration
        self.steps = 0
        self.held_out = frozenset(held_out)
        self.trained_on = trained_on
        self.initial_lr = float(settings.learning_rate or 0)
        self.weight_decay = float(settings.weight_decay or 0)
        self.num_epochs = settings.epochs
        self.num_iterations_per_epoch = settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.validation_iterations
        self.oversample_foreground_percent = settings.oversample_foreground
        self.resumed_at: list[int] = []
        self.trained_seconds = 0.0
        if not scales_gradients(self.device, settings.mixed_precision):
            self.grad_scaler = None

    def initialize(self) -> None:
        """nnU-Net's own, then data parallelism on any device: nnU-Net's would put each process on the GPU of its number.

        Raises: TrainingError where the network does not fit into memory.
        """
        with in_one_piece("setting up the network"):
            self._set_up()

    def _set_up(self) -> None:
        parallel, self.is_ddp = self.is_ddp, False
        super().initialize()
        self.is_ddp = parallel
        if parallel:
            if self.batch_size < world_size():
                raise SettingsError(
                    f"a batch of {self.batch_size} cannot be split among {world_size()} processes; start fewer, or set a larger "
                    "batch_size (plan)"
                )
            self._set_batch_size_and_oversample()
            network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
            self.network = DistributedDataParallel(network, [self.device.index] if self.device.type == "cuda" else None)
            self.loss = self._build_loss()
        # A process of several cannot take a step again: the others would average their gradients with its next one.
        self.accumulation = GradientAccumulation(self.batch_size, divisible=not parallel)

    def _do_i_compile(self) -> bool:
        return compiles(self.device, self.settings.compile)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW with the schedule of the settings."""
        rate, decay, warmup = self.initial_lr, self.weight_decay, float(self.settings.warmup_fraction or 0)
        optimizer = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=decay, amsgrad=bool(self.settings.amsgrad))
        return optimizer, learning_rate_schedule(optimizer, str(self.settings.schedule), rate, self.num_epochs, warmup)

    def _build_loss(self) -> nn.Module:
        return training_loss(Loss(self.settings.loss), self._resolutions, self.is_ddp)

    @property
    def _resolutions(self) -> int:
        """How many outputs deep supervision makes of one; 0 without it."""
        return len(self._get_deep_supervision_scales()) if self.enable_deep_supervision else 0

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """nnU-Net's augmentation ranges, with the mirror axes of the settings."""
        rotation, dummy_2d, initial_patch, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        axes = self.settings.mirror_axes
        self.inference_allowed_mirroring_axes = axes or None
        return rotation, dummy_2d, initial_patch, axes

    def do_split(self) -> tuple[list[str], list[str]]:
        """Ids that train and validate this fold. nnU-Net would invent a split where there is none.

        Raises: SettingsError where the prepared folds lack this one, mix training and validation, or name a held-out id.
        """
        folds = json.loads((Path(self.preprocessed_dataset_folder_base) / SPLITS_NAME).read_text(encoding="utf-8"))
        return require_fold(folds, self.fold, self.held_out)

    def get_dataloaders(self) -> tuple[Batches, Batches]:
        """nnU-Net's loaders, whose batches are made by our workers."""
        with augmentation_workers(0):
            loaders = super().get_dataloaders()
        count = resolve_workers(self.settings.workers, self.device, world_size())
        seed = (self.settings.seed, self.fold, self.current_epoch, self.local_rank)
        pin = self.device.type == "cuda"
        train, validation = (loader.data_loader for loader in loaders)
        return Batches(train, count, (*seed, 0), pin), Batches(validation, -(-count // 2), (*seed, 1), pin)

    @property
    def worker_failures(self) -> list[str]:
        """What processes that prepare batches died of."""
        return [f for loader in (self.dataloader_train, self.dataloader_val) if loader is not None for f in loader.failures]

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One optimizer step on ``data (B, C, Z, Y, X)`` and its targets; the gradient in pieces where memory runs out.

        Raises: TrainingError where one patch does not fit, or the step does not: what it had changed before cannot be undone.
        """
        loss = self.accumulation.attempt(lambda: self._add_gradients(batch), self._free_memory)
        with in_one_piece("taking the optimizer's step"):
            self._take_step()
        self.steps += 1
        if self.on_iteration is not None and self.local_rank == 0:
            self.on_iteration(self.steps, self.num_epochs * self.num_iterations_per_epoch)
        return {"loss": loss}

    def _add_gradients(self, batch: dict[str, Any]) -> NDArray[Any]:
        """Leaves the gradient of the whole batch in the weights, whatever was there; returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for data, target, share in self._parts_of(batch):
            with precision_context(self.device, self.settings.mixed_precision):
                loss = self.loss(self.network(data), target) * share
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
            total += loss.detach()
        return np.asarray(total.cpu().numpy())

    def _take_step(self) -> None:
        """Changes the weights by their gradient. Not to be repeated: a scaler refuses, and moments would be counted twice."""
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Loss and the counts of nnU-Net's pseudo Dice, in the precision of the training."""
        return self.accumulation.attempt(lambda: self._validate(batch), self._free_memory)

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """As nnU-Net's (the mean over targets), but for an epoch whose patches hold none, found or true: its pseudo Dice is NaN (undefined).

        Such an epoch leaves the moving average as it was; the first defined one starts it.
        """
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
            super().on_validation_epoch_end(val_outputs)
        log = self.logger.local_logger.my_fantastic_logging
        average, dice = log["ema_fg_dice"], log["mean_fg_dice"][-1]
        if np.isnan(average[-1]):
            average[-1] = average[-2] if np.isnan(dice) and len(average) > 1 else dice

    @torch.no_grad()
    def _validate(self, batch: dict[str, Any]) -> dict[str, Any]:
        heads = self.label_manager.num_segmentation_heads
        counts = torch.zeros(3, heads, dtype=torch.float64)  # true positives, false positives, false negatives (voxels)
        mean = torch.zeros((), dtype=torch.float64)
        for data, target, share in self._parts_of(batch):
            with precision_context(self.device, self.settings.mixed_precision):
                output = self.network(data)
                loss = self.loss(output, target)
            if self.enable_deep_supervision:
                output, target = output[0], target[0]
            found, true = output > 0, target > 0.5  # a logit above 0 is a probability above one half
            hits = torch.stack([found & true, found & ~true, ~found & true])
            counts += hits.flatten(3).sum((1, 3)).double().cpu()
            mean += (loss.double() * share).cpu()
        tp, fp, fn = counts.numpy()
        return {"loss": mean.numpy(), "tp_hard": tp, "fp_hard": fp, "fn_hard": fn}

    def _parts_of(self, batch: dict[str, Any]) -> Iterator[tuple[torch.Tensor, Any, float]]:
        """Parts of a batch on the device, each with its share of the batch."""
        data, target = batch["data"], batch["target"]
        for first in range(0, len(data), self.accumulation.size):
            part = slice(first, first + self.accumulation.size)
            piece = data[part].to(self.device, non_blocking=True)
            truth = [t[part] for t in target] if isinstance(target, list) else target[part]
            yield piece, _on_device(truth, self.device), len(piece) / len(data)

    def _free_memory(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        empty_cache(self.device)

    def on_train_start(self) -> None:
        """Network, loaders and log; none of the copies of plans and code that nnU-Net writes here."""
        if self.device.type == "cpu":
            keep_freed_memory()
        if not self.was_initialized:
            self.initialize()
        seed_everything(self.settings.seed, self.fold, self.current_epoch, self.local_rank)
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self.scalars = Scalars(Path(self.output_folder), self.current_epoch) if self.local_rank == 0 else None
        wait_for_all()

    def on_epoch_start(self) -> None:
        """Seeds the epoch, so that a training that continues draws what it would have drawn."""
        super().on_epoch_start()
        self.steps = self.current_epoch * self.num_iterations_per_epoch
        seed_everything(self.settings.seed, self.fold, self.current_epoch, self.local_rank)

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
            self.pseudo_dice_by_target(),
        )
        if not np.isfinite(report.train_loss):
            raise ModelError(
                f"epoch {self.current_epoch + 1}: the loss is {report.train_loss}; the training diverged. Lower learning_rate and "
                "train in another --work folder"
            )
        self.trained_seconds += report.seconds
        last = self.current_epoch == self.num_epochs - 1
        if (self.current_epoch + 1) % self.settings.save_every == 0 or last:
            self.save_checkpoint(str(self.training_state))
            self.draw_curve(Path(self.output_folder) / CURVE_NAME)
        if self.scalars is not None:
            self.scalars.add(report, self.optimizer.param_groups[0]["lr"], self.num_iterations_per_epoch)
        self.current_epoch += 1
        if self.on_epoch is not None and self.local_rank == 0:
            self.on_epoch(report)

    def pseudo_dice_by_target(self) -> dict[str, float]:
        """That of the last epoch, by target where there are several; NaN where no patch held it."""
        last = self.logger.local_logger.my_fantastic_logging["dice_per_class_or_region"][-1]
        return dict(zip(self.targets, map(float, last), strict=True)) if len(self.targets) > 1 else {}

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the network's outputs, in their order."""
        return tuple(name for name in self.dataset_json["labels"] if name != "background")

    def draw_curve(self, path: Path) -> None:
        """Losses and pseudo Dice so far, as a picture; by the first of several processes."""
        if self.local_rank == 0:
            write_curve(
                path, self.logger.get_checkpoint(), f"{self.plans_manager.dataset_name}, fold {self.fold}", self.targets
            )

    def on_train_end(self) -> None:
        """Nothing yet: :meth:`close` ends the training, however it went, and :mod:`flrplan.nnunet.train.training_run` publishes."""

    def close(self) -> None:
        """Ends the processes that prepare batches, and the scalars."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if loader is not None:
                loader.close()
        if self.scalars is not None:
            self.scalars.close()

    @property
    def training_state(self) -> Path:
        """The file that continues this training."""
        return Path(self.output_folder) / TRAINING_NAME

    def resume(self) -> bool:
        """Continues from the training state, if there is one.

        Raises: ModelError where it is damaged; SettingsError where it was trained with settings, data or a fold that cannot be mixed,
        or for more epochs than are asked for; TrainingError where it does not fit into memory.
        """
        if not self.training_state.is_file():
            return False
        with in_one_piece(f"loading {self.training_state}"):
            self._resume()
        return True

    def _resume(self) -> None:
        content = load_checkpoint(self.training_state)
        # A setting newer than the state had its default.
        trained_with = {**_settings(TrainingSettings()), **content["settings"]}
        before, now = ({k: v for k, v in s.items() if k not in MAY_CHANGE} for s in (trained_with, _settings(self.settings)))
        remedy = "use another --work folder, or delete that file to start anew"
        require_same(before, now, f"{self.training_state}: the training there", remedy)
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

    def plain_weights(self) -> dict[str, torch.Tensor]:
        """The network's weights, without the names that compiling or data parallelism add."""
        return dict(self._plain_network.state_dict())

    @property
    def _plain_network(self) -> nn.Module:
        module = self.network.module if self.is_ddp else self.network
        plain: nn.Module = getattr(module, "_orig_mod", module)
        return plain

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
            TRAINED_ON: None if self.trained_on is None else self.trained_on.to_json(),
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
        self._plain_network.load_state_dict(content["network_weights"])
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
