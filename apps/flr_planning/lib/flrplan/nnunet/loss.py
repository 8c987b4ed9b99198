"""The loss of every training, at several resolutions where the network gives outputs at several."""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn

from flrplan.method.recipe import Loss


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
    """The loss; of ``resolutions`` outputs (0: a single one, no list) each weighs half as much as the finer one.

    The lowest of several resolutions weighs nothing (nnU-Net). ``parallel``: it keeps a vanishing weight, for data
    parallelism needs every parameter in the graph, and the Dice is that of all processes.
    """
    loss: nn.Module = DiceBinaryCrossEntropy(parallel) if kind is Loss.DICE_BCE else BinaryCrossEntropy()
    if resolutions == 0:
        return loss
    weights = np.array([1 / 2**i for i in range(resolutions)])
    if resolutions > 1:
        weights[-1] = 1e-6 if parallel else 0.0
    return DeepSupervisionWrapper(loss, weights / weights.sum())  # type: ignore[no-any-return]
