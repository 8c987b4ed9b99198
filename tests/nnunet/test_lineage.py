"""Weights that have seen a held-out or validation case start no training, and what they have seen is never forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flrplan.cli import main
from flrplan.errors import SettingsError
from flrplan.files import write_json
from flrplan.method import Recipe
from flrplan.nnunet.imported import import_model
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.model.checkpoint import TRAINING_NAME
from flrplan.nnunet.model.model_folder import trained_ids
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.pretrained import learned_from
from flrplan.nnunet.train.training_run import StageWork

CPU = torch.device("cpu")


@pytest.fixture
def first(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe]) -> Path:
    """The checkpoint of fold 0, whose model began as one that was trained on ``older``."""
    path = train_fold(tiny_work, 0, tiny_recipe(epochs=1), tiny_work.root / "first", CPU)
    run = json.loads(path.with_name("run.json").read_text())
    assert run["inherited_train_ids"] == []
    write_json(path.with_name("run.json"), {**run, "inherited_train_ids": ["older"]})
    return path


def test_what_the_weights_have_seen(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], first: Path) -> None:
    models, recipe = tiny_work.root / "second", tiny_recipe(epochs=1)
    folds = json.loads(tiny_work.marker.read_text())["folds"]
    with pytest.raises(SettingsError, match=r"was trained on .*'synth-5-000.'\], which validate this fold"):
        train_fold(tiny_work, 1, recipe, models, CPU, pretrained=first)
    with pytest.raises(SettingsError, match=r"checkpoint_final.pth was trained on \['older'\], which the split calls test"):
        train_fold(tiny_work, 0, recipe, models, CPU, pretrained=first, held_out=["older"])
    assert not models.exists()
    second = train_fold(tiny_work, 0, recipe, models, CPU, pretrained=first)
    run = json.loads(second.with_name("run.json").read_text())
    assert run["train_ids"] == folds[0]["train"]
    assert run["inherited_train_ids"] == sorted([*folds[0]["train"], "older"])
    assert "inherited_train_ids" not in run["pretrained"]
    assert ModelFolder.open(models).training_cases(0) == {*folds[0]["train"], "older"}
    with pytest.raises(SettingsError, match=r"was trained on \['older'\]"):  # a training that continues remembers its start
        train_fold(tiny_work, 0, tiny_recipe(epochs=2), models, CPU, pretrained=first, held_out=["older"])
    third = train_fold(tiny_work, 1, recipe, tiny_work.root / "third", CPU, pretrained=second, validation_seen=True)
    assert trained_ids(third) == {*folds[0]["train"], *folds[1]["train"], "older"}


def test_a_training_state_says_what_it_has_seen(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], first: Path) -> None:
    train_fold(tiny_work, 0, tiny_recipe(epochs=1), tiny_work.root / "second", CPU, pretrained=first)
    states = tiny_work.folder.rglob(TRAINING_NAME)
    state = max(states, key=lambda path: path.stat().st_mtime_ns)
    folds = json.loads(tiny_work.marker.read_text())["folds"]
    assert learned_from(state) == {*folds[0]["train"], "older"}
    with pytest.raises(SettingsError, match=r"which validate this fold"):
        train_fold(tiny_work, 1, tiny_recipe(epochs=1), tiny_work.root / "third", CPU, pretrained=state)


def test_an_import_keeps_it(first: Path, tiny_work: StageWork, tmp_path: Path) -> None:
    source = ModelFolder.open(tiny_work.root / "first")
    import_model(source.path, source.stage, tmp_path / "imported")
    assert ModelFolder.open(tmp_path / "imported").training_cases(0) == trained_ids(first) >= {"older"}


def test_the_command_says_so_before_it_prepares(
    tiny_cohort: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "--cases",
        tiny_cohort,
        "--stage",
        "flr",
        "--folds",
        "2",
        "--work",
        tmp_path / "new",
        "--pretrained",
        first,
    ]
    assert main([*map(str, words), "--device", "cpu"]) == 1
    assert "which validate this fold" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
