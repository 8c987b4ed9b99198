"""The learning rate of each epoch: nnU-Net's poly decay, or a warm-up with half a cosine."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from flrplan.networks import Schedule


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
