"""``benchmark/compare_input_masks.py``: three ways of training, one table, and a second call that trains nothing."""

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
SOURCES = ("ground_truth", "perturbed", "predicted_oof")


def run(work: Path, recipe: Path) -> subprocess.CompletedProcess[str]:
    words = ["--work", work, "--train-cases", 4, "--test-cases", 3, "--recipe", recipe, "--device", "cpu"]
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, timeout=500, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table_of_the_three_ways(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    work = tmp_path / "work"
    done = run(work, recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    dice = json.loads((work / "dice.json").read_text())
    assert {stage: set(found) for stage, found in dice.items()} == {"crlm": set(SOURCES), "flr": set(SOURCES)}
    assert all(len(v) == 3 for found in dice.values() for columns in found.values() for v in columns.values())
    assert all(f"| {source} |" in done.stdout for source in SOURCES)
    assert (work / "table.md").read_text() == done.stdout

    trained = {p: p.stat().st_mtime_ns for p in work.glob("*/models/*/*/fold_*/run.json")}
    assert len(trained) == 2 * (3 + 2 * 3), "the liver once, copied twice; two stages three times; two folds"
    records = [json.loads(p.read_text()) for p in trained]
    used = {r["recipe"]["input"]["input_masks"] for r in records if r["stage"] == "crlm"}
    assert used == set(SOURCES)
    again = run(work, recipe)
    assert again.stdout == done.stdout
    assert {p: p.stat().st_mtime_ns for p in trained} == trained
