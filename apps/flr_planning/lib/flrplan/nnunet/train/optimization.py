"""The loss of every training, and the learning rate of each epoch."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn

from flrplan.method.recipe import Loss
from flrplan.networks import Schedule


class BinaryCrossEntropy(nn.Module):
    """Binary cross entropy of logits against a 0/1 target of the same shape ``(B, C, Z, Y, X)``; the mean over voxels."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss, computed in float32."""
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float())


class DiceBinaryCrossEntropy(nn.Module):
    """nnU-Net's loss for sigmoid outputs: binary cross entropy minus the soft Dice, each with weight 1; at least -1.

    Logits and 0/1 target ``(B, C, Z, Y, X)``. The Dice of a channel is that of all patches of a batch together (nnU-Net's ``batch_dice``,
    which it takes where a patch is a small part of the image): a patch without target counts its false positives. Where memory makes a
    batch come in pieces, it is of each piece. Without target and prediction it is 1; without target alone, near 0 and almost flat.
    """

    def __init__(self, in_parallel: bool = False) -> None:
        super().__init__()
        dice = {"batch_dice": True, "do_bg": True, "smooth": 1e-5, "ddp": in_parallel}
        self.both = DC_and_BCE_loss({}, dice, dice_class=MemoryEfficientSoftDiceLoss)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss, computed in float32."""
        loss: torch.Tensor = self.both(logits.float(), target.float())
        return loss


def training_loss(kind: Loss, resolutions: int, parallel: bool) -> nn.Module:
    """The loss of the recipe, :func:`over_resolutions`. ``parallel``: its Dice is that of all processes."""
    loss = DiceBinaryCrossEntropy(parallel) if kind is Loss.DICE_BCE else BinaryCrossEntropy()
    return over_resolutions(loss, resolutions, parallel)


def over_resolutions(loss: nn.Module, resolutions: int, parallel: bool) -> nn.Module:
    """A loss of ``resolutions`` outputs (0: a single one, no list), each of which weighs half as much as the finer one.

    The lowest of several resolutions weighs nothing (nnU-Net). ``parallel``: it keeps a vanishing weight, for data
    parallelism needs every parameter in the graph.
    """
    if resolutions == 0:
        return loss
    weights = np.array([1 / 2**i for i in range(resolutions)])
    if resolutions > 1:
        weights[-1] = 1e-6 if parallel else 0.0
    return DeepSupervisionWrapper(loss, weights / weights.sum())  # type: ignore[no-any-return]


class WarmupCosine:
    """A rate that rises linearly over ``warmup`` epochs to ``peak`` and falls by half a cosine to zero after the last epoch.

    It has no state: nnU-Net's loop says which epoch it is, so a continued training needs nothing of it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, peak: float, epochs: int, warmup: int) -> None:
        self.optimizer = optimizer
        self.peak = peak
        self.epochs = epochs
        self.warmup = warmup
        self.step(0)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch (0 is the first)."""
        if epoch < self.warmup:
            return self.peak * (epoch + 1) / (self.warmup + 1)
        return self.peak * 0.5 * (1 + cos(pi * (epoch - self.warmup) / (self.epochs - self.warmup)))

    def step(self, epoch: int) -> None:
        """Sets the rate of all parameters (called by nnU-Net at the start of an epoch)."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(epoch)


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, schedule: str, peak: float, epochs: int, warmup_fraction: float
) -> Any:
    """What nnU-Net's loop calls as ``step(epoch)``. The warm-up is ``warmup_fraction`` of the epochs, rounded."""
    if schedule == Schedule.WARMUP_COSINE.value:
        return WarmupCosine(optimizer, peak, epochs, round(warmup_fraction * epochs))
    return PolyLRScheduler(optimizer, peak, epochs)
