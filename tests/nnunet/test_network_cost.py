"""Counted costs against counts by hand, and counting without running against running."""

from __future__ import annotations

import pytest
import torch

from flrplan.networks import ARCHITECTURES, TABLE
from flrplan.nnunet.prepare.network_cost import network_cost, typical_plans


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_counting_agrees_with_running(architecture: str) -> None:
    shared = typical_plans((32, 32, 32))
    counted = network_cost(TABLE[architecture], "narrow", shared, None)
    ran = network_cost(TABLE[architecture], "narrow", shared, torch.device("cpu"))
    assert counted.seconds is None
    assert ran.seconds is not None
    assert (ran.parameters, ran.forward_gflop, ran.training_gflop) == (
        counted.parameters,
        counted.forward_gflop,
        counted.training_gflop,
    )
    assert ran.memory_gb == pytest.approx(counted.memory_gb, rel=0.01)
    assert 2.5 < counted.training_gflop / counted.forward_gflop <= 3, (
        "backward is two products for one, but for the first layer"
    )


def test_stunet_by_hand() -> None:
    """Two per multiply-add. 4 to 4 channels at full resolution: conv1 27 x 1 x 4, conv2 27 x 4 x 4, conv3 1 x 4; and so on down."""
    cost = network_cost(TABLE["stunet"], "narrow", typical_plans((64, 64, 64)), None)
    dims = (4, 8, 16, 32, 32, 32)
    # nnU-Net pools 64 four times (64 -> 4); the fifth step leaves 2.
    voxels = [(64 // 2**i) ** 3 for i in range(6)]
    products = 0
    width = 1
    for level, dim in enumerate(dims):
        products += voxels[level] * (27 * width * dim + 27 * dim * dim + width * dim)
        width = dim
    for level in range(4, -1, -1):
        dim = dims[level]
        products += voxels[level + 1] * dims[level + 1] * dim  # 1x1x1 before the interpolation
        products += voxels[level] * (27 * 2 * dim * dim + 27 * dim * dim + 2 * dim * dim + dim)
    assert cost.forward_gflop == pytest.approx(2 * products / 1e9, rel=1e-9)
