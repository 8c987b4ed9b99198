"""One trainer for every stage and architecture: nnU-Net's, with AdamW, the loss of the recipe and safe checkpoints.

Source of the settings: arXiv:2604.07999, section 3.3 (200 epochs, AdamW, binary cross entropy, nnU-Net's augmentations).
Methods named as in nnU-Net 2.8.1 override its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flrplan.errors import ModelError, SettingsError
from flrplan.hardware import keep_freed_memory
from flrplan.method import TrainingSettings
from flrplan.method.recipe import Loss
from flrplan.nnunet.architecture_plan import planned_architecture
from flrplan.nnunet.batches import seed_everything
from flrplan.nnunet.distributed import wait_for_all, world_size
from flrplan.nnunet.loss import training_loss
from flrplan.nnunet.memory import Pieces, in_one_piece
from flrplan.nnunet.precision import compiles, scales_gradients
from flrplan.nnunet.schedule import learning_rate_schedule
from flrplan.nnunet.trained_on import TrainedOn
from flrplan.nnunet.trainer_data import TrainerData
from flrplan.nnunet.trainer_state import TrainerState
from flrplan.nnunet.trainer_steps import TrainerSteps
from flrplan.nnunet.training_log import CURVE_NAME, EpochReport, Scalars, write_curve

__all__ = ["EpochReport", "FlrTrainer"]

logger = logging.getLogger(__name__)


class FlrTrainer(TrainerData, TrainerSteps, TrainerState):
    """nnU-Net's training loop with the paper's optimizer and loss. Call :meth:`apply` before :meth:`run_training`."""

    scalars: Scalars | None = None

    def apply(
        self,
        settings: TrainingSettings,
        on_epoch: Callable[[EpochReport], None] | None = None,
        held_out: Collection[str] = (),
        trained_on: TrainedOn | None = None,
    ) -> None:
        """Takes what nnU-Net's constructor cannot carry. The plan names the architecture, whose recommendations fill the settings.

        ``held_out``: ids that never train, whatever the folds say. ``trained_on``: its data; a state that continues must have the same.
        """
        architecture = planned_architecture(self.plans_manager.plans)
        settings = settings.resolved(architecture)
        self.enable_deep_supervision = architecture.deep_supervision
        self.settings = settings
        self.on_epoch = on_epoch
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
        self.pieces = Pieces(self.batch_size, divisible=not parallel)

    def resume(self) -> bool:
        """As :meth:`TrainerState.resume`. Raises: TrainingError, too, where the state does not fit into memory."""
        with in_one_piece(f"loading {self.training_state}"):
            return super().resume()

    def _do_i_compile(self) -> bool:
        return compiles(self.device, self.settings.compile)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW with the schedule of the settings."""
        rate, decay, warmup = self.initial_lr, self.weight_decay, float(self.settings.warmup_fraction or 0)
        optimizer = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=decay, amsgrad=bool(self.settings.amsgrad))
        return optimizer, learning_rate_schedule(optimizer, str(self.settings.schedule), rate, self.num_epochs, warmup)

    def _build_loss(self) -> nn.Module:
        resolutions = len(self._get_deep_supervision_scales()) if self.enable_deep_supervision else 0
        return training_loss(Loss(self.settings.loss), resolutions, self.is_ddp)

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
        """Nothing yet: :meth:`close` ends the training, however it went, and :mod:`flrplan.nnunet.training_run` publishes."""

    def close(self) -> None:
        """Ends the processes that prepare batches, and the scalars."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if loader is not None:
                loader.close()
        if self.scalars is not None:
            self.scalars.close()

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Into nnU-Net's log file and our debug log; never to the console."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)
        logger.debug("%s", " ".join(map(str, args)))

    def plot_network_architecture(self) -> None:
        """Not drawn: nnU-Net's drawing needs a package that no longer works."""

    def _save_debug_information(self) -> None:
        """Not written: ``run.json`` says what ran."""
