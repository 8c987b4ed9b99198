"""STU-Net (Huang et al. 2023, arXiv:2304.06716): a residual U-Net whose weights transfer between data sets.

Six resolutions, 3x3x3 kernels everywhere, upsampling without learned kernels: so no weight depends on the strides, and a plan may
choose them. Module names are those of the published checkpoints; written from the paper's description.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from flrplan.networks.deep_supervision import DeepSupervisionSwitch

SLOPE = 0.01
"""Negative slope of every leaky ReLU."""
Stride = Sequence[int]


class ResidualBlock(nn.Module):
    """conv - norm - LReLU - conv - norm, plus the input, then LReLU.

    ``project``: the input passes a 1x1x1 convolution (``conv3``) with the block's stride, wherever shape or width change.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: Stride = (1, 1, 1), project: bool = False) -> None:
        super().__init__()
        step = (stride[0], stride[1], stride[2])
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, step, padding=1)
        self.norm1 = nn.InstanceNorm3d(channels_out, affine=True)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=1)
        self.norm2 = nn.InstanceNorm3d(channels_out, affine=True)
        self.conv3 = nn.Conv3d(channels_in, channels_out, 1, step) if project else None

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """``(B, C_in, Z, Y, X)`` to ``(B, C_out, Z/s, Y/s, X/s)``."""
        hidden = nn.functional.leaky_relu(self.norm1(self.conv1(given)), SLOPE, inplace=True)
        hidden = self.norm2(self.conv2(hidden))
        shortcut = given if self.conv3 is None else self.conv3(given)
        return nn.functional.leaky_relu(hidden + shortcut, SLOPE, inplace=True)


class Upsample(nn.Module):
    """Nearest-neighbour interpolation by the stride, then a 1x1x1 convolution to the width of the next resolution."""

    def __init__(self, channels_in: int, channels_out: int, stride: Stride) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 1)
        self.scale = tuple(float(s) for s in stride)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """``(B, C_in, Z, Y, X)`` to ``(B, C_out, Z*s, Y*s, X*s)``. Convolved first: the same values, at a fraction of the cost."""
        result: torch.Tensor = nn.functional.interpolate(self.conv(given), scale_factor=self.scale, mode="nearest")
        return result


class STUNet(nn.Module):
    """STU-Net, with the constructor that nnU-Net's plans call.

    dims: channels per resolution, the finest first. depths: residual blocks per resolution.
    strides: ``(1, 1, 1)``, then the step from each resolution to the next; their product divides the patch.
    deep_supervision: the output is then a list, the finest resolution first; else the finest alone.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        dims: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[Stride],
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        if not len(dims) == len(depths) == len(strides) or len(dims) < 2:
            raise ValueError(f"dims, depths and strides need one entry per resolution, at least 2: {dims}, {depths}, {strides}")
        if tuple(strides[0]) != (1, 1, 1):
            raise ValueError(f"the first stride is that of the input and must be (1, 1, 1), got {strides[0]}")
        self.conv_blocks_context = nn.ModuleList()
        width = input_channels
        for dim, depth, stride in zip(dims, depths, strides, strict=True):
            self.conv_blocks_context.append(_blocks(width, dim, depth, stride))
            width = dim
        self.upsample_layers = nn.ModuleList()
        self.conv_blocks_localization = nn.ModuleList()
        self.seg_outputs = nn.ModuleList()
        for level in range(len(dims) - 2, -1, -1):
            self.upsample_layers.append(Upsample(dims[level + 1], dims[level], strides[level + 1]))
            self.conv_blocks_localization.append(_blocks(2 * dims[level], dims[level], depths[level]))
            self.seg_outputs.append(nn.Conv3d(dims[level], num_classes, 1))
        self.decoder = DeepSupervisionSwitch(deep_supervision)

    def forward(self, given: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits ``(B, K, Z, Y, X)`` of ``(B, C, Z, Y, X)``; with deep supervision one tensor per resolution but the coarsest."""
        skips = []
        hidden = given
        for block in self.conv_blocks_context:
            hidden = block(hidden)
            skips.append(hidden)
        skips.pop()
        outputs: list[torch.Tensor] = []
        last = len(self.seg_outputs) - 1
        for level, (up, block, head) in enumerate(
            zip(self.upsample_layers, self.conv_blocks_localization, self.seg_outputs, strict=True)
        ):
            hidden = block(torch.cat((up(hidden), skips.pop()), dim=1))
            if self.decoder.deep_supervision or level == last:
                outputs.append(head(hidden))
        return outputs[::-1] if self.decoder.deep_supervision else outputs[-1]

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """He initialization of the convolutions; nnU-Net applies it to a new network."""
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _blocks(channels_in: int, channels_out: int, depth: int, stride: Stride = (1, 1, 1)) -> nn.Sequential:
    first = ResidualBlock(channels_in, channels_out, stride, project=True)
    return nn.Sequential(first, *(ResidualBlock(channels_out, channels_out) for _ in range(depth - 1)))
