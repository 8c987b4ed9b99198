"""Batches from worker processes. A worker that dies is reported with its real error, and fewer go on.

nnU-Net's own workers print their error and leave "background workers are no longer alive" to the training; torch's
DataLoader brings the error along, gives each worker a seed, and takes their batches in a fixed order.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from flrplan.errors import TrainingError

logger = logging.getLogger(__name__)

MOST_WORKERS = 12
"""As many as nnU-Net uses on large machines; more rarely help one GPU."""


def resolve_workers(setting: int | str, device: torch.device, processes: int = 1) -> int:
    """Worker processes of one training process: the setting, or for ``auto`` none on a CPU, else the cores less one, at most 12.

    processes: training processes on this machine, which share its cores.
    """
    if setting != "auto":
        return int(setting)
    if device.type == "cpu":
        return 0  # the network itself wants the cores
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min((cores - processes) // processes, MOST_WORKERS))


def seed_everything(*parts: int) -> None:
    """Seeds numpy's and torch's global generators, from which nnU-Net draws patches and augmentations."""
    numbers = np.random.SeedSequence(parts).generate_state(2)
    np.random.seed(int(numbers[0]))
    torch.manual_seed(int(numbers[1]))


class Batches:
    """An endless iterator over the batches of an nnU-Net loader.

    loader: has ``__next__``, giving a dictionary with ``data`` and ``target``.
    workers: processes that make batches; 0 makes them where they are asked for.
    seed: parts of the workers' seed. Without workers the caller seeds (:func:`seed_everything`).
    """

    def __init__(self, loader: Any, workers: int, seed: Sequence[int], pin_memory: bool = False) -> None:
        self.loader = loader
        self.seed = tuple(seed)
        self.pin_memory = pin_memory
        self.workers = workers
        self.failures: list[str] = []
        self._start(workers)

    def _start(self, workers: int) -> None:
        self.workers = workers
        stream = _Stream(self.loader, (*self.seed, len(self.failures)))
        batches = (
            DataLoader(
                stream,
                batch_size=None,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=self.pin_memory,
                prefetch_factor=2,
            )
            if workers
            else stream
        )
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGCHLD) if main and hasattr(signal, "SIGCHLD") else None
        self._iterator: Iterator[dict[str, Any]] | None = iter(batches)
        if before is not None:  # torch's handler would raise a worker's death anywhere; without it, the next batch raises it
            signal.signal(signal.SIGCHLD, before)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> dict[str, Any]:
        """The next batch. Raises: TrainingError where it cannot be made without workers either."""
        while True:
            try:
                if self._iterator is None:
                    raise TrainingError("these batches are closed")
                return next(self._iterator)
            except TrainingError:
                raise
            except Exception as error:
                if self.workers == 0:
                    raise TrainingError(f"no batch could be made: {type(error).__name__}: {error}") from error
                self.failures.append(f"{type(error).__name__}: {error}")
            self._with_fewer(self.workers // 2)

    def _with_fewer(self, workers: int) -> None:
        logger.warning(
            "a process that prepares batches failed; going on with %d instead of %d. Its error: %s%s",
            workers,
            self.workers,
            self.failures[-1],
            " (a process that only vanished was most likely killed for want of memory)"
            if "exited unexpectedly" in self.failures[-1]
            else "",
        )
        self.close()
        self._start(workers)

    def close(self) -> None:
        """Ends the workers."""
        self._iterator = None


class _Stream(IterableDataset[dict[str, Any]]):
    """An nnU-Net loader as torch's DataLoader wants it, seeded in each worker."""

    def __init__(self, loader: Any, seed: tuple[int, ...]) -> None:
        self.loader = loader
        self.seed = seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is not None:
            torch.set_num_threads(1)
            seed_everything(*self.seed, worker.id)
        while True:
            yield next(self.loader)


def _as_it_is(batch: Any) -> Any:
    return batch
