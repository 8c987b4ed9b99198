"""The peak of memory is this process's own, whoever started it."""

from __future__ import annotations

import subprocess
import sys

PRINT = "from flrplan.process_memory import peak_memory_bytes; print(peak_memory_bytes())"
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
