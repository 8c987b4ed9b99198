"""What the evaluation costs; minutes, so run with -m slow. The figures come from benchmark/bench_metrics.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "benchmark" / "bench_metrics.py"


def bench(*options: str) -> str:
    return subprocess.run([sys.executable, str(BENCH), *options], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_at_least_five_times_faster_than_each_and_equal_to_1e_6():
    pytest.importorskip("surface_distance", reason="needs the dev dependency surface-distance-based-measures")
    ratios = [float(r) for r in re.findall(r"\(\s*([\d.]+) x\)", bench("--rounds", "3"))]
    assert len(ratios) == 3
    assert min(ratios) >= 5.0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cases():
    peaks = [int(p) for p in re.findall(r"peak (\d+) MB", bench("--memory"))]
    assert len(peaks) == 3
    assert peaks[-1] < 1.1 * peaks[0]
