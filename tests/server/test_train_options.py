from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flrplan.errors import SettingsError
from flrplan.learning import RetrainingSettings, Start, TrainingChoice
from flrplan.server.settings import AppSettings
from flrplan.server.train_options import HOST_KEYS, train_config, training_choice

CONFIG = train_config(AppSettings(device="cpu"))
TASKS = ("liver", "cascade")


def choice(**request: Any) -> TrainingChoice:
    return training_choice(request, CONFIG, TASKS)


def test_an_empty_request_takes_the_defaults() -> None:
    assert choice() == TrainingChoice("nnunet", Start.CURRENT, None, "cpu")


def test_what_slicer_and_the_host_send() -> None:
    request = {key: "x" for key in HOST_KEYS} | {"liver": {"epochs": 3}, "cascade": {}}
    assert choice(**request, start=["anew", "current"], epochs="12").epochs == 12
    assert choice(epochs=0, device=["cpu"], architecture="nnunet").epochs is None
    assert choice(start="anew").start is Start.ANEW


@pytest.mark.parametrize(
    ("request_values", "message"),
    [
        ({"max_epochs": 5}, r"unknown training options max_epochs; known are architecture, start, epochs, device"),
        ({"start": "fresh"}, r"start='fresh' is not offered by model .*; known are current, anew"),
        ({"architecture": "unet"}, r"known are nnunet"),
        ({"epochs": "many"}, r"epochs must be a whole number from 1 up, or 0 for those of the recipe; got 'many'"),
        ({"epochs": -1}, r"epochs must be a whole number"),
        ({"epochs": 2.5}, r"epochs must be a whole number"),
        ({"epochs": True}, r"epochs must be a whole number"),
        ({"device": "tpu"}, r"unknown device 'tpu'"),
        ({"device": "cuda:9"}, r"device cuda:9 was asked for, but \d+ CUDA devices are there"),
    ],
)
def test_a_wrong_request_names_what_is_known(request_values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        choice(**request_values)


def test_conf_of_the_training(tmp_path: Path) -> None:
    recipe, split = tmp_path / "recipe.yaml", tmp_path / "split.json"
    recipe.write_text("common: {training: {epochs: 7}}\nliver: {training: {epochs: 3}}\n")
    split.write_text('{"test": ["a"], "folds": []}')
    conf = {"train_recipe": str(recipe), "train_split": str(split), "train_kept_share": "0.3", "train_margin": "0.02"}
    settings = AppSettings.from_conf(conf).training
    assert settings == RetrainingSettings(recipe, split, 0.3, 0.02)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"train_kept_share": "half"}, r"conf train_\*: kept_share must be a number, got 'half'"),
        ({"train_kept_share": "0.9"}, r"conf train_\*: kept_share must be at most 0.5, got '0.9'"),
        ({"train_margin": "-1"}, r"conf train_\*: margin must be at least 0, got '-1'"),
        ({"train_recipe": "/nowhere.yaml"}, r"/nowhere.yaml: no such file"),
        ({"train_split": "/nowhere.json"}, r"/nowhere.json: no such file"),
        ({"train_epochs": "3"}, r"unknown --conf train_epochs; known are models, .*train_recipe, train_split"),
    ],
)
def test_a_bad_conf_stops_the_start(conf: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        AppSettings.from_conf(conf)
