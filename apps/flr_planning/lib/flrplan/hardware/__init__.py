"""Where work runs: devices, the GPUs of this machine, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.hardware.device import choose_device
    from flrplan.hardware.gpu_pool import GpuPool, choose_gpus, visible_gpus
    from flrplan.hardware.memory import collector_at_rest, keep_freed_memory, peak_memory_bytes, wake_collector

__all__ = [
    "GpuPool",
    "choose_device",
    "choose_gpus",
    "collector_at_rest",
    "keep_freed_memory",
    "peak_memory_bytes",
    "visible_gpus",
    "wake_collector",
]

import_at_first_use(
    __name__,
    {
        "flrplan.hardware.device": ("choose_device",),
        "flrplan.hardware.gpu_pool": (
            "GpuPool",
            "choose_gpus",
            "visible_gpus",
        ),
        "flrplan.hardware.memory": (
            "collector_at_rest",
            "keep_freed_memory",
            "peak_memory_bytes",
            "wake_collector",
        ),
    },
)
