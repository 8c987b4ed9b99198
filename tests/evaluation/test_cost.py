"""What the evaluation costs, by benchmark/bench_metrics.py. The measurements take minutes, so they run with -m slow."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flrplan.evaluation import PAPER_COLUMNS, Part

BENCH = Path(__file__).parents[2] / "benchmark" / "bench_metrics.py"


def bench(*options: str) -> str:
    return subprocess.run([sys.executable, str(BENCH), *options], check=True, stdout=subprocess.PIPE, text=True).stdout


def test_the_memory_benchmark_runs_on_two_cases(tmp_path: Path):
    """The measurement itself is slow; here its cases, columns and split must be what the evaluation takes."""
    assert 50 < int(bench("--memory-of", "2", str(tmp_path))) < 4000
    rows = list(csv.DictReader((tmp_path / "evaluation" / "cases.csv").open()))
    assert {(r["case"], r["column"]) for r in rows} == {
        (c, column) for c in ("c0", "c1") for column in PAPER_COLUMNS[Part.TEST]
    }
    assert {r["status"] for r in rows} == {"scored"}


@pytest.mark.slow
def test_at_least_five_times_faster_than_each_and_equal_to_1e_6():
    pytest.importorskip("surface_distance", reason="needs the dev dependency surface-distance-based-measures")
    ratios = [float(r) for r in re.findall(r"\(\s*([\d.]+) x\)", bench("--rounds", "3"))]
    assert len(ratios) == 4
    assert min(ratios) >= 5.0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cases():
    peaks = [int(p) for p in re.findall(r"peak (\d+) MB", bench("--memory"))]
    assert len(peaks) == 3
    assert peaks[-1] < 1.1 * peaks[0]
