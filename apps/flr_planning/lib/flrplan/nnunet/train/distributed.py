"""Several training processes, one per GPU, by torch's own DistributedDataParallel and torchrun.

    torchrun --nproc_per_node=2 -m flrplan.cli train ...      or      flrplan train --gpus 2 ...

Every process draws its own part of each batch; the gradients are averaged, so all hold the same weights; rank 0 reports and publishes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

from flrplan.errors import SettingsError

TIMEOUT = timedelta(hours=1)
"""How long processes wait for each other: rank 0 may be writing a large checkpoint to a slow disk."""


def is_launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def launched_rank() -> int:
    """The number of this process among those that torchrun started; 0 where it is alone."""
    return int(os.environ["RANK"]) if is_launched() else 0


def world_size() -> int:
    """Number of processes that train together; 1 outside :func:`process_group`."""
    return distributed.get_world_size() if _running() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return distributed.get_rank() if _running() else 0


def wait_for_all() -> None:
    """Returns when every process has come here; at once where there is one."""
    if _running():
        distributed.barrier()


def _running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun started; gives this one's device: its own GPU, or the CPU for all.

    Outside torchrun it does nothing and gives ``device`` back.
    Raises: SettingsError where there are more processes than GPUs.
    """
    if not is_launched():
        yield device
        return
    if device.type == "cuda":
        number = int(os.environ["LOCAL_RANK"])
        if number >= torch.cuda.device_count():
            raise SettingsError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes were started, but {torch.cuda.device_count()} CUDA devices are there"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def launch(processes: int, device: torch.device, arguments: Sequence[str]) -> int:
    """Runs ``flrplan <arguments>`` in several processes on this machine; returns 0 if all succeeded.

    Raises: SettingsError where there are not that many GPUs (``device`` cpu: any number, for trying it out).
    """
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise SettingsError(f"{processes} GPUs were asked for, but {torch.cuda.device_count()} CUDA devices are there")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    return subprocess.run([*command, "-m", "flrplan.cli", *arguments], check=False, env=environment).returncode
