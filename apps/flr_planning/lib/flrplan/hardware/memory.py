"""How much memory this process has used at most, whether it gives freed memory back at once, and when it looks for garbage."""

from __future__ import annotations

import atexit
import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def peak_memory_bytes() -> int:
    """Most resident memory of this process so far, in bytes, without its children.

    On Linux from ``/proc``: its ``ru_maxrss`` counts what the starting process had used when it started this one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if found:
        return int(found[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of glibc's ``mallopt``."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Has this process keep the memory that it frees, for its next allocation, until it ends; True where that can be set (glibc).

    Else glibc returns every array above some megabytes to the system and gets it back filled with zeros: a network on a CPU
    allocates and frees all its activations in every step. Peak memory is hardly higher, memory between two steps is. All threads
    that start later take from one heap: what one of them kept, none of the others could use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(*option) for option in ((_M_MMAP_THRESHOLD, _NEVER), (_M_TRIM_THRESHOLD, _NEVER), (_M_ARENA_MAX, 1))])


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Within the block, or until :func:`wake_collector`, Python does not look for objects that only hold each other.

    A process that starts makes a million objects that live to its end, modules and models. For one plan Python looked through all of them
    nine times, and once more at its end: 3 s of CPU.
    """
    was_on = gc.isenabled()
    gc.disable()
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def wake_collector() -> None:
    """Ends the rest of a process that goes on for long; nothing where it has ended. What then is alive is never looked through again."""
    if gc.isenabled():
        return
    gc.collect()  # garbage that is frozen would stay for good
    gc.freeze()
    gc.enable()
