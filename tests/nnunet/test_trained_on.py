"""A training state continues on its own data and fold only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flrplan.errors import SettingsError
from flrplan.files import write_json
from flrplan.method import Recipe
from flrplan.nnunet.model import load_checkpoint, write_checkpoint
from flrplan.nnunet.model.checkpoint import TRAINING_NAME
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.provenance import TRAINED_ON
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import Split, find_labelled_cases

CPU = torch.device("cpu")


@pytest.fixture
def state(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe]) -> Path:
    """The state of fold 0 after one epoch."""
    train_fold(tiny_work, 0, tiny_recipe(epochs=1), tiny_work.root / "models", CPU)
    (path,) = tiny_work.folder.rglob(TRAINING_NAME)
    return path


def test_other_data_or_another_fold(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], state: Path) -> None:
    prepared = json.loads(tiny_work.marker.read_text())
    assert load_checkpoint(state)[TRAINED_ON] == {
        "data_sha256": prepared["data_sha256"],
        "train_ids": prepared["folds"][0]["train"],
        "validation_ids": prepared["folds"][0]["val"],
    }
    write_json(tiny_work.marker, {**prepared, "data_sha256": "of corrected labels"})
    with pytest.raises(
        SettingsError, match=r"training_state.pth: the training there was made of something else \(data_sha256 was"
    ):
        train_fold(tiny_work, 0, tiny_recipe(), tiny_work.root / "models", CPU)
    write_json(tiny_work.marker, prepared)
    folds = tiny_work.preprocessed / "splits_final.json"
    write_json(folds, json.loads(folds.read_text())[::-1])
    with pytest.raises(SettingsError, match=r"\(train_ids: without .*validation_ids: new .*\); use another --work folder"):
        train_fold(tiny_work, 0, tiny_recipe(), tiny_work.root / "models", CPU)


def test_fewer_epochs_than_it_has_had(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], state: Path) -> None:
    models = tiny_work.root / "models"
    train_fold(tiny_work, 0, tiny_recipe(epochs=2), models, CPU)
    with pytest.raises(
        SettingsError, match=r"training_state.pth was trained for 2 epochs, the settings ask for 1; .* at least as"
    ):
        train_fold(tiny_work, 0, tiny_recipe(epochs=1), tiny_work.root / "others", CPU)
    assert not (tiny_work.root / "others").exists()
    train_fold(tiny_work, 0, tiny_recipe(epochs=2), models, CPU)


def test_a_state_that_does_not_name_its_data(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], state: Path) -> None:
    content = load_checkpoint(state)
    del content[TRAINED_ON]
    write_checkpoint(state, content)
    with pytest.raises(SettingsError, match=r"\(data_sha256 was None, .*; train_ids was None, .*\); use another"):
        train_fold(tiny_work, 0, tiny_recipe(), tiny_work.root / "models", CPU)


def test_another_preparation_removes_the_states_of_the_one_before(
    tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], tiny_cohort: Path, tmp_path: Path
) -> None:
    cases = find_labelled_cases(tiny_cohort)
    (a, b, c, d), recipe = (case.case_id for case in cases), tiny_recipe()
    state = tiny_work.folder / "results" / "a training" / TRAINING_NAME
    state.parent.mkdir(parents=True)
    state.write_bytes(b"of the preparation before")
    marker = tiny_work.marker.read_bytes()
    tiny_work.marker.unlink()
    prepared = json.loads(marker)
    prepare_stage(cases, tiny_work, recipe, Split(tuple(tuple(fold["val"]) for fold in prepared["folds"])))
    assert state.is_file(), "the same preparation goes on"
    tiny_work.marker.unlink()
    prepare_stage(
        cases, tiny_work, recipe, Split(((a, d), (b, c)) if prepared["folds"][0]["val"] != [a, d] else ((a, b), (c, d)))
    )
    assert not state.exists()
