"""The losses by hand: binary cross entropy, and nnU-Net's Dice + binary cross entropy over all patches of a batch."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import pytest
import torch

from flrplan.method import TrainingSettings
from flrplan.method.recipe import Loss
from flrplan.nnunet.train import FlrTrainer
from flrplan.nnunet.train.optimization import BinaryCrossEntropy, DiceBinaryCrossEntropy, training_loss

TARGET = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(2, 1, 1, 1, 2)
"""Two patches of two voxels; only the first holds a target."""


def test_every_probability_one_half() -> None:
    """Cross entropy ln 2. Dice of the batch 2 x 0.5 / (1 + 2) = 1/3; of each patch it would be 1/2 and 0, in the mean 1/4."""
    logits = torch.zeros(2, 1, 1, 1, 2)
    assert BinaryCrossEntropy()(logits, TARGET).item() == pytest.approx(log(2))
    assert DiceBinaryCrossEntropy()(logits, TARGET).item() == pytest.approx(log(2) - 1 / 3, abs=1e-5)


def test_each_channel_has_a_dice_of_its_own() -> None:
    """Channel 1 is found whole (Dice 1), channel 2 has p = 0.5 for one target voxel of two (Dice 1/2): mean 3/4, not 2 x 1.5 / 4."""
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).reshape(1, 2, 1, 1, 2)
    logits = torch.tensor([[30.0, -30.0], [0.0, 0.0]]).reshape(1, 2, 1, 1, 2)
    assert DiceBinaryCrossEntropy()(logits, target).item() == pytest.approx(log(2) / 2 - 3 / 4, abs=1e-5)


def test_a_perfect_and_an_empty_batch() -> None:
    perfect = torch.where(TARGET > 0, 40.0, -40.0)
    assert DiceBinaryCrossEntropy()(perfect, TARGET).item() == pytest.approx(-1, abs=1e-5)
    nothing = torch.full((1, 1, 1, 1, 4), log(0.25 / 0.75))  # p = 0.25: cross entropy -ln 0.75, Dice 1e-5 / (1 + 1e-5)
    loss = DiceBinaryCrossEntropy()(nothing, torch.zeros(1, 1, 1, 1, 4)).item()
    assert loss == pytest.approx(-log(0.75) - 1e-5, abs=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    """20,000 voxels of p = 0.5 sum up to 10,000, and 70,000 of them to more than float16 can hold."""
    logits = torch.zeros(1, 1, 1, 1, 200_000, dtype=torch.float16)
    loss = DiceBinaryCrossEntropy()(logits, torch.ones_like(logits))
    assert loss.item() == pytest.approx(log(2) - 2 * 0.5 / 1.5, abs=1e-5)


@pytest.mark.parametrize("kind", Loss)
def test_the_coarser_of_two_outputs_weighs_nothing(kind: Loss) -> None:
    fine, coarse = torch.zeros(2, 1, 1, 1, 2), torch.full((2, 1, 1, 1, 1), 5.0)
    targets = [TARGET, TARGET[..., :1]]
    alone = training_loss(kind, 0, parallel=False)(fine, TARGET)
    assert training_loss(kind, 2, parallel=False)([fine, coarse], targets).item() == pytest.approx(alone.item())
    both = training_loss(Loss.BCE, 3, parallel=False)([fine, coarse, coarse], [*targets, targets[1]])
    of_coarse = (log(1 + exp(-5)) + 5 + log(1 + exp(-5))) / 2
    assert both.item() == pytest.approx((log(2) + 0.5 * of_coarse) / 1.5, abs=1e-6)


def test_the_recipe_chooses_and_the_paper_s_is_the_default(make_trainer: Callable[..., FlrTrainer]) -> None:
    assert TrainingSettings().loss == "bce"
    assert isinstance(make_trainer().loss.loss, BinaryCrossEntropy)
    trainer = make_trainer(loss="dice_bce")
    assert isinstance(trainer.loss.loss, DiceBinaryCrossEntropy)
    trainer.run_training()
    losses = trainer.logger.get_checkpoint()["train_losses"]
    assert len(losses) == 2
    assert all(-1 < loss < 2 for loss in losses)
    trainer.close()
