"""What a cascade needs and what the machine can do: tiles, GFLOP, the GEMM peak; for :mod:`speed`."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.utils.flop_counter import FlopCounterMode

from flrplan import __version__
from flrplan.anatomy import Mask
from flrplan.method import StageInput
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.prepare import CONFIGURATION


def tile_origins(shape: Sequence[int], patch: Sequence[int]) -> list[tuple[int, int, int]]:
    """Where nnU-Net's sliding window puts its tiles (half a patch apart) on an image, which is padded to a patch at least."""
    padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
    z, y, x = compute_steps_for_sliding_window(padded, tuple(patch), 0.5)
    return [(a, b, c) for a in z for b in y for c in x]


def stage_work(folder: ModelFolder, given: StageInput, liver: Mask) -> dict[str, Any]:
    """Tiles of a stage on its input, those that hold liver, and GFLOP (two per multiply-add of convolutions) of one tile and of all.

    liver: ``(Z, Y, X) bool`` on the grid of the input.
    """
    manager = PlansManager(folder.plans)
    configuration = manager.get_configuration(CONFIGURATION)
    patch = tuple(configuration.patch_size)
    axes = manager.transpose_forward
    spacing = [given.geometry.spacing_zyx_mm[axis] for axis in axes]
    turned = liver.transpose(axes)
    shape = [int(n) for n in compute_new_shape(turned.shape, spacing, configuration.spacing)]
    nearest = [np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(shape, turned.shape, strict=True)]
    resampled = turned[np.ix_(*nearest)]
    origins = tile_origins(shape, patch)
    pads = [max(0, p - n) // 2 for n, p in zip(shape, patch, strict=True)]
    with_liver = 0
    for origin in origins:
        tile = tuple(slice(max(0, o - pad), max(0, o - pad + p)) for o, p, pad in zip(origin, patch, pads, strict=True))
        with_liver += bool(resampled[tile].any())
    channels = len(given.channels_czyx)
    with torch.device("meta"):
        network = nnUNetTrainer.build_network_architecture(manager, configuration, channels, 1, enable_deep_supervision=False)
        image = torch.zeros((1, channels, *patch))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    gflop = counter.get_total_flops() / 1e9
    folds = len(folder.folds)
    return {
        "patch_zyx": list(patch),
        "shape_zyx": shape,
        "folds": folds,
        "tiles": len(origins),
        "tiles_with_liver": with_liver,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop_per_tile": gflop,
        "gflop": gflop * len(origins) * folds,
        "gflop_with_liver": gflop * with_liver * folds,
    }


def gemm_peak(device: torch.device, seconds: float = 1.5) -> dict[str, Any]:
    """GFLOP/s of a large matrix product in the precision that nnU-Net predicts in (float16 on CUDA, float32 elsewhere); the best counts."""
    cuda = device.type == "cuda"
    n, dtype = (8192, torch.float16) if cuda else (2048, torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    a, b = (torch.rand((n, n), device=device, dtype=dtype) for _ in range(2))
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds or not best:
        before = time.perf_counter()
        for _ in range(10 if cuda else 1):
            torch.mm(a, b)
        if cuda:
            torch.cuda.synchronize(device)
        best = max(best, (10 if cuda else 1) * 2 * n**3 / (time.perf_counter() - before) / 1e9)
    torch.set_num_threads(threads)
    del a, b
    if cuda:
        torch.cuda.empty_cache()
    return {"gflops": best, "precision": str(dtype).removeprefix("torch."), "size": n}


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "flrplan": __version__,
    }
