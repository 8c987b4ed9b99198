"""SIGKILL at any moment: the model published before stays whole, the training goes on, and comes to the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flrplan.files import write_json
from flrplan.method import Recipe
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.training_run import StageWork


@pytest.mark.parametrize(
    ("trainings", "seed"), [(3, 1), pytest.param(20, 2, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_killed_trainings_go_on(
    tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], tmp_path: Path, trainings: int, seed: int
) -> None:
    models = tmp_path / "models"
    other = tmp_path / "before"
    tiny_work.root.rename(other)  # another training with the same plan published the model that is there
    before = StageWork(other, tiny_work.stage)
    write_json(other / "recipe.json", tiny_recipe(epochs=3, seed=0).to_json())
    clean = tmp_path / "work"
    subprocess.run(["cp", "-r", str(other), str(clean)], check=True)
    train_fold(before, 0, tiny_recipe(epochs=1, seed=7), models, torch.device("cpu"))
    script = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(script), str(clean), str(models), str(trainings), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1700,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(results) == trainings
    kills = [kill["killed"] for result in results for kill in result["kills"]]
    sys.stdout.write(f"{trainings} trainings, {len(kills)} attempts to kill them, {sum(kills)} in time\n")
    assert any(kills)
    for result in results:
        assert set(result["found"]) <= {"old", "new"}, result
        assert result["ended"] == 0, result
        # Not to the last bit: nnU-Net's blur takes whichever of two convolutions is faster just then.
        assert result["apart"] < result["old_and_new_apart"] / 100, "an interrupted training comes to the same weights"
        assert result["left_over"] == ["current", "dataset.json", "fold_0", "plans.json", "versions"], result
