"""Distillation: a training whose target is not the label, but what the folds of another model say of the same patch together.

Sources: Hinton, Vinyals and Dean, arXiv:1503.02531; that the teacher sees the very patch that the student sees, augmented: Beyer et al.,
arXiv:2106.05237.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.model.checkpoint import require_finite, weights_sha256
from flrplan.nnunet.train.optimization import BinaryCrossEntropy, over_resolutions
from flrplan.nnunet.train.precision import precision_context
from flrplan.nnunet.train.pretrained import read_weights
from flrplan.nnunet.train.trainer import FlrTrainer


@dataclass(frozen=True)
class Teacher:
    """An ensemble to learn from: the weights of its folds, by their numbers."""

    folder: ModelFolder
    weights: Mapping[int, Mapping[str, torch.Tensor]]

    @classmethod
    def open(cls, folder: ModelFolder) -> Teacher:
        """All folds of a model. Raises: ModelError naming the one that is damaged, or whose weights are not finite."""
        weights = {fold: read_weights(folder.checkpoint(fold)) for fold in folder.folds}
        for fold, tensors in weights.items():
            require_finite(tensors, str(folder.checkpoint(fold)))
        return cls(folder, weights)

    @property
    def sha256(self) -> dict[str, str]:
        """Of each fold's weights, as a plan's record has it."""
        return {str(fold): weights_sha256(tensors) for fold, tensors in self.weights.items()}

    @property
    def learned_from(self) -> frozenset[str]:
        """Ids that any of the folds learned from: so does who learns from them."""
        return frozenset().union(*(self.folder.training_cases(fold) for fold in self.folder.folds))


class Divergence(BinaryCrossEntropy):
    """Kullback-Leibler divergence, in nats, of each output's probability from the teacher's; the mean over voxels.

    Binary cross entropy less the teacher's own entropy: the same gradient, and 0 where the student's logits are the teacher's, nowhere else.
    """

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of logits ``(B, C, Z, Y, X)`` against probabilities of that shape, computed in float32."""
        entropy = torch.special.entr(target.float()) + torch.special.entr(1 - target.float())
        divergence: torch.Tensor = super().forward(logits, target) - entropy.mean()
        return divergence


class DistillingTrainer(FlrTrainer):
    """As :class:`FlrTrainer`, but for loss and target. Call :meth:`learn_from` before the network is set up.

    The target of a patch is the sigmoid of the teacher's averaged logits, for each output and, under deep supervision, each resolution. So the
    pseudo Dice is that with the teacher's mask. Labels only say where patches are drawn.
    """

    teacher: Teacher

    def learn_from(self, teacher: Teacher) -> None:
        """Takes the ensemble; its network must be that of the plan."""
        self.teacher = teacher
        self.inherited_ids = teacher.learned_from

    def _build_loss(self) -> nn.Module:
        return over_resolutions(Divergence(), self._resolutions, self.is_ddp)

    def _set_up(self) -> None:
        super()._set_up()
        self._folds = []
        for weights in self.teacher.weights.values():
            network = deepcopy(self._plain_network)
            network.load_state_dict(weights)
            self._folds.append(network.eval().requires_grad_(False))

    def _parts_of(self, batch: dict[str, Any]) -> Iterator[tuple[torch.Tensor, Any, float]]:
        for data, _, share in super()._parts_of(batch):
            yield data, self._taught(data), share

    @torch.no_grad()
    def _taught(self, data: torch.Tensor) -> Any:
        """What the teacher makes of patches ``(B, C, Z, Y, X)``: probabilities of the network's outputs, a list of them where it gives one."""
        with precision_context(self.device, self.settings.mixed_precision):
            of_folds = [network(data) for network in self._folds]
        if not self.enable_deep_supervision:
            return _probability(of_folds)
        return [_probability(outputs) for outputs in zip(*of_folds, strict=True)]


def _probability(logits: Any) -> torch.Tensor:
    """The sigmoid of the mean of several logits."""
    return torch.stack([one.float() for one in logits]).mean(0).sigmoid()
