"""``benchmark/compare_input_masks.py``: four ways of training, one table, and a second call that trains nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmark" / "compare_input_masks.py"
RECIPE = """
common:
  plan: {spacing_zyx_mm: [8, 8, 8], resampling: torch, batch_size: 2, features: [8, 16], patch_size_zyx: [16, 24, 24]}
  training: {epochs: 1, iterations_per_epoch: 30, validation_iterations: 1, learning_rate: 0.005, mirror_axes: []}
"""
WAYS = ("ground_truth", "perturbed", "predicted_oof", "ground_truth, region_channel")


def run(work: Path, recipe: Path) -> subprocess.CompletedProcess[str]:
    words = ["--work", work, "--train-cases", 4, "--test-cases", 3, "--seeds", 2, "--recipe", recipe, "--device", "cpu"]
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=800, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table_of_the_four_ways(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    work = tmp_path / "work"
    done = run(work, recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = json.loads((work / "dice.json").read_text())
    assert tuple(runs) == WAYS
    for of_way in runs.values():
        assert len(of_way) == 2
        assert all(set(r["dice"]) == {"pipelined_crlm", "cascaded_crlm"} and len(r["pseudo_dice"]) == 1 for r in of_way)
        assert all(len(values) == 3 for r in of_way for values in r["dice"].values())
    assert all(f"| {way} |" in done.stdout for way in WAYS)
    assert (work / "table.md").read_text() == done.stdout
    assert (work / "curves.png").read_bytes().startswith(b"\x89PNG")

    records = {p: json.loads(p.read_text()) for p in work.glob("*/seed_*/models/crlm/*/fold_0/run.json")}
    assert len(records) == len(WAYS) * 2
    assert {r["recipe"]["training"]["seed"] for r in records.values()} == {0, 1}
    assert {r["recipe"]["input"]["input_masks"] for r in records.values()} == set(WAYS[:3])
    assert sum(r["recipe"]["input"]["region_channel"] for r in records.values()) == 2
    trained = {p: p.stat().st_mtime_ns for p in work.rglob("run.json")}
    again = run(work, recipe)
    assert again.stdout == done.stdout
    assert {p: p.stat().st_mtime_ns for p in trained} == trained
