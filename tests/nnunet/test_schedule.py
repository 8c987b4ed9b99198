"""The warm-up with half a cosine, by hand; the poly decay stays nnU-Net's."""

from __future__ import annotations

import pytest
import torch

from flrplan.nnunet.train.optimization import learning_rate_schedule


def rates(schedule: str, epochs: int, warmup: float) -> list[float]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 1.0)
    steps = learning_rate_schedule(optimizer, schedule, 1.0, epochs, warmup)
    found = []
    for epoch in range(epochs):
        steps.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_warmup_then_half_a_cosine() -> None:
    """Two of six epochs rise to 1/3 and 2/3; the cosine of 0, 45, 90, 135 degrees follows."""
    assert rates("warmup_cosine", 6, 1 / 3) == pytest.approx([1 / 3, 2 / 3, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_short_trainings_do_without_a_warmup() -> None:
    assert rates("warmup_cosine", 1, 0.05) == [1.0]


def test_poly() -> None:
    assert rates("poly", 2, 0.0) == pytest.approx([1.0, 0.5**0.9])
