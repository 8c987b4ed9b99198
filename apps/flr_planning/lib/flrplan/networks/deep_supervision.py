"""The switch that nnU-Net turns: it sets ``network.decoder.deep_supervision`` before and after a training."""

from __future__ import annotations


class DeepSupervisionSwitch:
    """Stands at ``network.decoder`` where the network has no decoder module of its own. It holds no weights."""

    def __init__(self, enabled: bool) -> None:
        self.deep_supervision = enabled
