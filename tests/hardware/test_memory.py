"""The peak of memory is this process's own, whoever started it; freed memory is kept, and garbage left alone, where that was asked."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from flrplan.hardware import collector_at_rest, wake_collector

PRINT = "from flrplan.hardware.memory import peak_memory_bytes; print(peak_memory_bytes())"
LARGE = f"""
import subprocess, sys
held = b"x" * 400_000_000
{PRINT}
print(subprocess.run([sys.executable, "-c", {PRINT!r}], capture_output=True, text=True, check=True).stdout)
"""


def test_not_that_of_the_starting_process() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True, timeout=120)
    started, own = (int(word) for word in done.stdout.split())
    assert started > 400_000_000
    assert 5_000_000 < own < 200_000_000


FAULTS = """
import resource, sys
from flrplan.hardware import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else False)
for turn in range(21):
    b'x' * 64_000_000
    if turn == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def fresh_pages(how: str) -> tuple[bool, int]:
    """Whether memory is kept, and how many pages the system had to hand out for 20 arrays of 64 MB after the first one."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=120)
    kept, fresh = done.stdout.split()
    return kept == "True", int(fresh)


def test_kept_memory_is_used_again() -> None:
    kept, fresh = fresh_pages("keep")
    if not kept:
        pytest.skip("this C library cannot be told to keep memory")
    assert fresh < 100
    assert fresh_pages("give back")[1] > 20 * 30  # even where a page has 2 MB


class Circle:
    """Holds itself."""

    own: Circle


def test_garbage_is_left_alone_until_the_block_ends_or_the_collector_is_woken() -> None:
    with collector_at_rest():
        assert not gc.isenabled()
        circle = Circle()
        circle.own = circle
        left = weakref.ref(circle)
        del circle
        assert left() is not None
        wake_collector()
        assert left() is None, "what was left in the meantime is not kept for good"
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > 1000, "what is alive is not looked through again"
        wake_collector()
        assert gc.get_freeze_count() == frozen, "woken once: what is new since is looked through"
        gc.unfreeze()
    with pytest.raises(ValueError, match="stopped"), collector_at_rest():
        raise ValueError("stopped")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_at_rest():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_lives_to_the_end_is_not_looked_through_at_the_end() -> None:
    line = "import gc; from flrplan.hardware import collector_at_rest\nwith collector_at_rest(): pass\n"
    line += "import atexit, sys; atexit._run_exitfuncs(); sys.stdout.write(str(gc.get_freeze_count()))"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) > 1000
