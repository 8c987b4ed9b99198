"""A network run by OpenVINO on a CPU: about half the time of PyTorch's convolutions in float32, a quarter in bfloat16.

It is converted in memory when a prediction needs it, which takes a fraction of a second; nothing is written, so nothing can be stale.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

SMALLEST = 100_000
"""Weights of the smallest network that is worth converting."""


@cache
def openvino() -> Any | None:
    """The module, without its telemetry; None where it is not installed or cannot be loaded.

    openvino 2026.4 reports each import to its maker by way of the package openvino_telemetry and does without where that is missing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python's own way to say: not installed
    try:
        import openvino
        import openvino.frontend.pytorch
    except Exception as error:  # a wheel of another system fails in ways of its own
        logger.info("PyTorch predicts: OpenVINO cannot be loaded (%s)", error)
        return None
    return openvino


def worth_converting(network: nn.Module) -> bool:
    """Whether converting takes less time than it saves."""
    return sum(p.numel() for p in network.parameters()) >= SMALLEST


class _Hidden(nn.Module):
    """A network whose weights are constants of what is traced: its hundreds of modules would be translated one by one otherwise."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network[0](x)
        return logits


class OpenVinoNetwork(nn.Module):
    """A converted network: ``(1, C, Z, Y, X) float32`` of the patch's shape in, its logits out.

    strides: by how much its shape must be divisible, each axis. Raises: RuntimeError where it cannot be converted.
    """

    def __init__(self, network: nn.Module, channels: int, patch: Sequence[int], strides: Sequence[int], bfloat16: bool) -> None:
        super().__init__()
        ov = openvino()
        if ov is None:
            raise RuntimeError("OpenVINO is not installed")
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        network = copy.deepcopy(network).eval().requires_grad_(False)  # OpenVINO shares the memory of the weights
        small = torch.zeros(1, channels, *(min(n, 2 * s) for n, s in zip(patch, strides, strict=True)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # checks of shapes, which stay as they are
            traced = torch.jit.freeze(torch.jit.trace(_Hidden(network), small, check_trace=False).eval())
        decoder = TorchScriptPythonDecoder(traced)  # must outlive the conversion
        frontend = ov.frontend.FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        model.reshape({model.input(0): [1, channels, *patch]})
        core = ov.Core()
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 and has_bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request = core.compile_model(model, "CPU", config).create_infer_request()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits, as the network's own ``forward``."""
        return torch.from_numpy(self._request.infer([x.numpy()])[0].copy())
