"""SwinUNETR (Hatamizadeh et al. 2022, arXiv:2201.01266): MONAI's network with the constructor that nnU-Net's plans call."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR

from flrplan.networks.deep_supervision import DeepSupervisionSwitch


class SwinUNETR(MonaiSwinUNETR):
    """MONAI's SwinUNETR; its weights have MONAI's names. Every side of the input must divide by 32.

    The output is ``(B, K, Z, Y, X)`` logits. It has one resolution only, so ``deep_supervision`` changes nothing.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        use_checkpoint: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(
            in_channels=input_channels,
            out_channels=num_classes,
            feature_size=feature_size,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            use_checkpoint=use_checkpoint,
        )
        self.decoder = DeepSupervisionSwitch(deep_supervision)
