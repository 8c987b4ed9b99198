"""The part of the trainer that brings the data: which cases, which augmentations, and the batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from flrplan.method import TrainingSettings
from flrplan.nnunet.batches import Batches, resolve_workers
from flrplan.nnunet.distributed import world_size
from flrplan.nnunet.environment import augmentation_workers
from flrplan.workfolder import SPLITS_NAME, require_fold


class TrainerData(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net is untyped
    """Cases and batches of the fold; ``settings`` and ``held_out`` are set by :class:`flrplan.nnunet.trainer.FlrTrainer`."""

    settings: TrainingSettings
    held_out: frozenset[str]
    current_epoch: int

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
