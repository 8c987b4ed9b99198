"""SwinUNETR: MONAI's network under nnU-Net's constructor, names and output unchanged."""

from __future__ import annotations

import torch
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR

from flrplan.networks import SWINUNETR
from flrplan.networks.swinunetr import SwinUNETR

NARROW = SWINUNETR.size("narrow")


def test_is_monais_network() -> None:
    ours = SwinUNETR(2, 1, **NARROW, deep_supervision=True).eval()
    theirs = MonaiSwinUNETR(2, 1, **NARROW).eval()
    assert ours.decoder.deep_supervision is True
    theirs.load_state_dict(ours.state_dict())
    given = torch.randn(1, 2, 32, 32, 64)
    with torch.no_grad():
        assert torch.equal(ours(given), theirs(given))
    assert not [name for name in ours.state_dict() if name.startswith("decoder.")]


def test_base_size() -> None:
    """As many parameters as MONAI's network of feature_size 48: 62 million."""
    network = SwinUNETR(1, 1, **SWINUNETR.size("base"))
    assert sum(p.numel() for p in network.parameters()) == sum(
        p.numel() for p in MonaiSwinUNETR(1, 1, feature_size=48).parameters()
    )
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == 62
