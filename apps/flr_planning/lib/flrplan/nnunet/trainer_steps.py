"""The part of the trainer that computes a batch: one optimizer step or one validation, in pieces where memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import empty_cache
from numpy.typing import NDArray
from torch import nn

from flrplan.method import TrainingSettings
from flrplan.nnunet.memory import Pieces, in_one_piece
from flrplan.nnunet.precision import precision_context

GRADIENT_NORM = 12
"""Longer gradients are cut to this length (nnU-Net)."""


class TrainerSteps(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net is untyped
    """Training and validation of one batch; ``settings`` and ``pieces`` are set by :class:`flrplan.nnunet.trainer.FlrTrainer`."""

    settings: TrainingSettings
    pieces: Pieces
    network: Any

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One optimizer step on ``data (B, C, Z, Y, X)`` and its targets; the gradient in pieces where memory runs out.

        Raises: TrainingError where one patch does not fit, or the step does not: what it had changed before cannot be undone.
        """
        loss = self.pieces.attempt(lambda: self._add_gradients(batch), self._free_memory)
        with in_one_piece("taking the optimizer's step"):
            self._take_step()
        return {"loss": loss}

    def _add_gradients(self, batch: dict[str, Any]) -> NDArray[Any]:
        """Leaves the gradient of the whole batch in the weights, whatever was there; returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for data, target, share in self._pieces_of(batch):
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
        return self.pieces.attempt(lambda: self._validate(batch), self._free_memory)

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
        for data, target, share in self._pieces_of(batch):
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

    def _pieces_of(self, batch: dict[str, Any]) -> Iterator[tuple[torch.Tensor, Any, float]]:
        """Parts of a batch on the device, each with its share of the batch."""
        data, target = batch["data"], batch["target"]
        for first in range(0, len(data), self.pieces.size):
            part = slice(first, first + self.pieces.size)
            piece = data[part].to(self.device, non_blocking=True)
            truth = [t[part] for t in target] if isinstance(target, list) else target[part]
            yield piece, _on_device(truth, self.device), len(piece) / len(data)

    def _free_memory(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        empty_cache(self.device)


def _on_device(target: Any, device: torch.device) -> Any:
    """The target, or the list of targets that deep supervision takes, on the device."""
    if isinstance(target, list):
        return [part.to(device, non_blocking=True) for part in target]
    return target.to(device, non_blocking=True)
