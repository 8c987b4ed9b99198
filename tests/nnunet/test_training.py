"""Training of one (stage, fold) by the command line, on small synthetic cases: published, plain, resumable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flrplan.cli import main
from flrplan.errors import ModelError, SettingsError
from flrplan.method import FLR, Recipe
from flrplan.nnunet.model import load_checkpoint
from flrplan.nnunet.model.checkpoint import TRAINING_NAME
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import FINAL_CHECKPOINT, find_labelled_cases, nnunet_split

RECIPE = """
common:
  plan: {batch_size: 2, features: [4, 8], spacing_zyx_mm: [8, 6, 6], patch_size_zyx: [16, 24, 24], resampling: torch}
  training: {epochs: %d, iterations_per_epoch: 2, validation_iterations: 1, save_every: 1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_cohort: Path) -> Path:
    """A folder with cohort, work and models after ``flrplan train`` of stage flr, fold 0, two epochs."""
    root = tmp_path_factory.mktemp("training")
    (root / "cohort").symlink_to(tiny_cohort)
    (root / "recipe.yaml").write_text(RECIPE % 2)
    assert main(_command(root)) == 0
    return root


def _command(root: Path) -> list[str]:
    arguments = ["train", "--cases", root / "cohort", "--stage", "flr", "--folds", "2", "--fold", "0", "--work", root / "work"]
    return [str(a) for a in [*arguments, "--models", root / "models", "--recipe", root / "recipe.yaml", "--device", "cpu"]]


def test_published_folder_is_plain(trained: Path) -> None:
    folder = trained / "models" / "flr" / "nnunet"
    content = load_checkpoint(folder / "fold_0" / FINAL_CHECKPOINT)
    assert "optimizer_state" not in content
    assert content["trainer_name"] == "nnUNetTrainer"
    assert content["inference_allowed_mirroring_axes"] == [0, 1, 2]
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT", "1": "noNorm"}
    assert dataset["labels"] == {"background": 0, "flr": [1, 2]}
    run = json.loads((folder / "fold_0" / "run.json").read_text())
    assert len(run["train_ids"]) == len(run["validation_ids"]) == 2
    assert not set(run["train_ids"]) & set(run["validation_ids"])
    assert run["recipe"]["training"]["epochs"] == 2
    assert run["device"] == "cpu"


def test_training_continues_where_it_stopped(trained: Path) -> None:
    state = (
        trained
        / "work"
        / "flr"
        / "results"
        / "Dataset503_flr"
        / "FlrTrainer__nnUNetPlans_nnunet__3d_fullres"
        / "fold_0"
        / TRAINING_NAME
    )
    before = load_checkpoint(state)
    assert before["current_epoch"] == 2
    (trained / "recipe.yaml").write_text(RECIPE % 3)
    assert main(_command(trained)) == 0
    after = load_checkpoint(state)
    assert after["current_epoch"] == 3
    assert after["logging"]["epoch_start_timestamps"][:2] == before["logging"]["epoch_start_timestamps"], "not trained again"


def test_two_trainings_are_never_mixed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "recipe.yaml").read_text()
    (trained / "recipe.yaml").write_text(before.replace("save_every: 1", "save_every: 1, learning_rate: 0.01"))
    assert main(_command(trained)) == 1
    assert "the training there was made of something else (learning_rate was" in capsys.readouterr().err
    (trained / "recipe.yaml").write_text(before)


def test_what_a_stopped_preparation_left_is_not_mixed_in(trained: Path, tmp_path: Path) -> None:
    cases = find_labelled_cases(trained / "cohort")
    split = nnunet_split([c.case_id for c in cases], 2)
    work = StageWork(tmp_path, FLR)
    left_over = work.folder / "raw" / "Dataset503_flr" / "labelsTr" / f"{cases[0].case_id}.nii.gz"
    left_over.parent.mkdir(parents=True)
    left_over.write_bytes(b"of another preparation")
    prepare_stage(cases, work, Recipe.from_yaml(trained / "recipe.yaml", "flr"), split)
    assert work.marker.is_file()
    assert left_over.stat().st_size > 100


def test_other_settings_in_the_same_work_folder_are_refused(trained: Path) -> None:
    cases = find_labelled_cases(trained / "cohort")
    other = Recipe.from_mapping({"plan": {"spacing_zyx_mm": [9, 9, 9]}})
    with pytest.raises(SettingsError, match="what is prepared there was made of something else"):
        prepare_stage(cases, StageWork(trained / "work", FLR), other, nnunet_split([c.case_id for c in cases], 2))


def test_other_plan_in_the_same_model_folder_is_refused(trained: Path, tmp_path: Path) -> None:
    from flrplan.nnunet.train import train_fold

    plans = tmp_path / "models" / "plans.json"
    plans.parent.mkdir()
    plans.write_text("{}")
    recipe = Recipe.from_yaml(trained / "recipe.yaml", "flr")
    with pytest.raises(ModelError, match="the model there was made of something else"):
        train_fold(StageWork(trained / "work", FLR), 1, recipe, plans.parent, torch.device("cpu"))
    with pytest.raises(SettingsError, match="fold 2 does not exist"):
        train_fold(StageWork(trained / "work", FLR), 2, recipe, plans.parent, torch.device("cpu"))
