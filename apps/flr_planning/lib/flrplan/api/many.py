"""Many cases: while one is computed, the next is read and the one before is written. Several GPUs share the cases, a process each."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

Case = TypeVar("Case")
Read = TypeVar("Read")
Made = TypeVar("Made")


def overlapped(
    cases: Sequence[Case],
    read: Callable[[Case], Read],
    compute: Callable[[Case, Callable[[], Read]], Made | None],
    write: Callable[[Case, Made], object],
) -> None:
    """Reads, computes and writes each case, in order; three cases at most are in memory, however many there are.

    read, write: each run in a thread of its own. compute: runs in this thread, and gets what gives the case that was read, or raises what
    reading it raised; None: there is nothing to write.
    Raises what ``compute`` and ``write`` raise; then, and after an interrupt, what is being written is written to its end.
    """
    written: Future[object] | None = None
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead = [reader.submit(read, case) for case in cases[:1]]
        try:
            for number, case in enumerate(cases):
                this = ahead.pop()
                wait([this])
                ahead += [reader.submit(read, following) for following in cases[number + 1 : number + 2]]
                made = compute(case, this.result)
                if written is not None:
                    written.result()
                written = None if made is None else writer.submit(write, case, made)
                del this, made  # or they were kept until the next is computed
            if written is not None:
                written.result()
        finally:
            reader.shutdown(wait=False, cancel_futures=True)


def part_of(cases: Sequence[Case], part: tuple[int, int]) -> list[Case]:
    """The K-th of N parts of the cases, ``(K, N)`` counted from 1: every N-th, so that parts are alike."""
    number, count = part
    return list(cases[number - 1 :: count])


def run_on_gpus(command: Callable[[str], Sequence[str]], gpus: Sequence[str], part: tuple[int, int] = (1, 1)) -> int:
    """Runs commands at the same time, one for each GPU; returns 1 if any failed.

    command: that of a part, ``K/N`` in words; together they are ``part``.
    Each waits until a GPU of these is free (:mod:`flrplan.hardware.gpu_pool`) and sees that one alone.
    After an interrupt, or another exception, all are told to stop, and waited for.
    """
    number, count = part
    pool = [sys.executable, "-m", "flrplan.hardware.gpu_pool", "--devices", ",".join(gpus), "--"]
    parts = [f"{number + share * count}/{count * len(gpus)}" for share in range(len(gpus))]
    started = [subprocess.Popen([*pool, *command(one)]) for one in parts]
    try:
        return int(any([process.wait() for process in started]))
    finally:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in started:
            with suppress(KeyboardInterrupt):
                process.wait()
