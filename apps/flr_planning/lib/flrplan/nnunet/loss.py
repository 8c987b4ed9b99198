"""The loss of every training: binary cross entropy, at several resolutions where the network gives outputs at several."""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn


class BinaryCrossEntropy(nn.Module):
    """Binary cross entropy of logits against a 0/1 target of the same shape ``(B, 1, Z, Y, X)``; the mean over voxels."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss, computed in float32."""
        return nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float())


def training_loss(resolutions: int, all_in_graph: bool) -> nn.Module:
    """Binary cross entropy; of ``resolutions`` outputs (0: a single one, no list) each weighs half as much as the finer one.

    The lowest of several resolutions weighs nothing (nnU-Net). ``all_in_graph``: it keeps a vanishing weight, for data
    parallelism needs every parameter in the graph.
    """
    loss: nn.Module = BinaryCrossEntropy()
    if resolutions == 0:
        return loss
    weights = np.array([1 / 2**i for i in range(resolutions)])
    if resolutions > 1:
        weights[-1] = 1e-6 if all_in_graph else 0.0
    return DeepSupervisionWrapper(loss, weights / weights.sum())  # type: ignore[no-any-return]
