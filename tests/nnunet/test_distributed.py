"""Two processes on the CPU (gloo) train one model: own patches, averaged gradients, the same weights, one publisher."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flrplan.errors import SettingsError
from flrplan.files import write_json
from flrplan.method import Recipe
from flrplan.nnunet.model import load_checkpoint
from flrplan.nnunet.model.checkpoint import weights_sha256
from flrplan.nnunet.train import FlrTrainer
from flrplan.nnunet.train.distributed import launch, launched_rank, process_group
from flrplan.nnunet.train.training_run import StageWork
from flrplan.workfolder import FINAL_CHECKPOINT


def test_two_processes_train_one_model(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    write_json(tiny_work.root / "recipe.json", tiny_recipe().to_json())
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    models = tmp_path / "models"
    done = subprocess.run(
        [*command, str(tiny_work.root), str(models), str(tmp_path)], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert (first["device"], second["device"]) == ("cpu", "cpu")
    assert (first["batch"], second["batch"]) == (1, 1), "the batch of two is split"
    assert first["first"] != second["first"], "each draws its own patches"
    for rank in (first, second):
        assert rank["apart"] < 1e-5 * max(1.0, rank["largest"]), "the gradient is that of the whole batch"
        assert rank["largest"] > 1e-4
    assert first["weights"] == second["weights"]
    assert (first["reports"], second["reports"]) == ([0, 1], []), "rank 0 reports"
    content = load_checkpoint(models / "fold_0" / FINAL_CHECKPOINT)
    assert weights_sha256(content["network_weights"]) == first["weights"]
    run = json.loads((models / "fold_0" / "run.json").read_text())
    assert run["resolved"]["processes"] == 2
    assert sorted(p.name for p in (models / "fold_0").iterdir()) == [FINAL_CHECKPOINT, "curve.png", "run.json"]


def test_alone_nothing_is_joined() -> None:
    with process_group(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert not torch.distributed.is_initialized()
    assert launched_rank() == 0


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match="2 GPUs were asked for, but 1 CUDA devices are there"):
        launch(2, torch.device("cuda"), ["train"])
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(SettingsError, match="2 processes were started, but 1 CUDA devices are there"),
        process_group(torch.device("cuda")),
    ):
        pass


def test_a_batch_that_cannot_be_split(new_trainer: Callable[..., FlrTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flrplan.nnunet.train.trainer.world_size", lambda: 3)
    trainer = new_trainer()
    trainer.is_ddp = True
    with pytest.raises(SettingsError, match="a batch of 2 cannot be split among 3 processes; start fewer"):
        trainer.initialize()
