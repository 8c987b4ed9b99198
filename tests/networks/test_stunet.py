"""STU-Net: the published sizes and names, and what nnU-Net expects of a network."""

from __future__ import annotations

import pytest
import torch

from flrplan.networks import STUNET
from flrplan.networks.stunet import STUNet, Upsample

ISOTROPIC = [[1, 1, 1]] + [[2, 2, 2]] * 5


@pytest.mark.parametrize(
    ("size", "parameters"), [("small", 14_596_941), ("base", 58_262_669), ("large", 440_302_605), ("huge", 1_457_326_221)]
)
def test_published_sizes(size: str, parameters: int) -> None:
    """The paper's Table: 14.60, 58.26, 440.30 and 1457.33 million with 1 input and 105 outputs."""
    with torch.device("meta"):
        network = STUNet(1, 105, **STUNET.size(size), strides=ISOTROPIC)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_published_names() -> None:
    with torch.device("meta"):
        names = set(STUNet(1, 105, **STUNET.size("large"), strides=ISOTROPIC).state_dict())
    assert {n.split(".")[0] for n in names} == {
        "conv_blocks_context",
        "upsample_layers",
        "conv_blocks_localization",
        "seg_outputs",
    }
    first = {
        f"conv_blocks_context.0.0.{part}.{kind}" for part in ("conv1", "norm1", "conv2", "norm2", "conv3") for kind in _KINDS
    }
    assert {n for n in names if n.startswith("conv_blocks_context.0.0.")} == first
    assert not [n for n in names if n.startswith("conv_blocks_context.5.1.conv3")], "only a first block changes the width"
    assert {n for n in names if n.startswith(("upsample_layers.4", "seg_outputs.4"))} == {
        f"{layer}.{kind}" for layer in ("upsample_layers.4.conv", "seg_outputs.4") for kind in _KINDS
    }
    assert not [n for n in names if n.startswith(("upsample_layers.5", "seg_outputs.5", "conv_blocks_context.6"))]


_KINDS = ("weight", "bias")


def test_outputs_by_resolution() -> None:
    """Strides (1, 2, 2) then (2, 2, 2): the second output is half as fine in plane only."""
    network = STUNet(2, 1, [4, 8, 8], [1, 2, 1], [[1, 1, 1], [1, 2, 2], [2, 2, 2]])
    given = torch.randn(1, 2, 4, 16, 16)
    outputs = network(given)
    assert [tuple(o.shape) for o in outputs] == [(1, 1, 4, 16, 16), (1, 1, 4, 8, 8)]
    network.decoder.deep_supervision = False
    assert torch.equal(network(given), outputs[0])


def test_every_weight_has_a_gradient() -> None:
    network = STUNet(1, 1, [4, 8], [2, 1], [[1, 1, 1], [2, 2, 2]], deep_supervision=False)
    network(torch.randn(1, 1, 8, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_upsampling_is_nearest_then_a_1x1x1_convolution() -> None:
    layer = Upsample(1, 1, (1, 2, 2))
    torch.nn.init.constant_(layer.conv.weight, 3.0)
    torch.nn.init.constant_(layer.conv.bias, 1.0)
    given = torch.tensor([[1.0, 2.0]]).reshape(1, 1, 1, 1, 2)
    assert layer(given)[0, 0].tolist() == [[[4.0, 4.0, 7.0, 7.0], [4.0, 4.0, 7.0, 7.0]]]


@pytest.mark.parametrize("strides", [[[2, 2, 2], [2, 2, 2]], [[1, 1, 1]]])
def test_strides_that_make_no_network(strides: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"first stride|one entry per resolution"):
        STUNet(1, 1, [4, 8], [1, 1], strides)
