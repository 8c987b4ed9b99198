"""What a training takes over from a model; the training itself is in tests/learning."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flrplan.engine import MODEL_ROOT
from flrplan.errors import ModelError
from flrplan.method import CRLM, InputMasks, PlanSettings, Recipe
from flrplan.nnunet.model import ModelFolder, load_checkpoint, write_checkpoint
from flrplan.nnunet.prepare.fine_tuning import prepare_with_plan_of, recipe_like
from flrplan.nnunet.train.training_run import StageWork
from flrplan.workfolder import FINAL_CHECKPOINT, Split

DEMO = MODEL_ROOT / "demo" / "crlm" / "nnunet"


def test_the_recipe_keeps_its_training_and_takes_the_models_input_and_plan() -> None:
    recipe = Recipe.from_mapping({"plan": {"spacing_zyx_mm": [9, 9, 9], "batch_size": 7}, "input": {"outside_hu": 0}})
    model = ModelFolder.open(DEMO)
    like = recipe_like(model, recipe)
    assert like.training == recipe.training
    assert like.input == model.input
    assert like.plan == PlanSettings()


@pytest.mark.parametrize(
    ("trained_on", "goes_on_with"),
    [("predicted_oof", "perturbed"), ("perturbed", "perturbed"), ("ground_truth", "ground_truth")],
)
def test_new_cases_have_no_out_of_fold_predictions(trained_on: str, goes_on_with: str) -> None:
    model = ModelFolder.open(DEMO)
    model = replace(model, input=replace(model.input, input_masks=InputMasks(trained_on)))
    assert recipe_like(model, Recipe.from_mapping({})).input.input_masks is InputMasks(goes_on_with)


def test_a_checkpoint_without_its_configuration_is_named(tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "nnunet", ignore=shutil.ignore_patterns("training_cohort.json"))
    path = tmp_path / "nnunet" / "fold_0" / FINAL_CHECKPOINT
    content = load_checkpoint(path)
    del content["init_args"]
    write_checkpoint(path, content)
    model, work = ModelFolder.open(tmp_path / "nnunet"), StageWork(tmp_path, CRLM)
    with pytest.raises(ModelError, match=r"not an nnU-Net v2 checkpoint, it lacks 'init_args'"):
        prepare_with_plan_of(model, "nnunet", [], work, Recipe.from_mapping({}), Split(()))
