"""A fold is published among those of its own model only, whoever replaced that model while the fold was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flrplan.engine.models import MODEL_ROOT
from flrplan.errors import ModelError
from flrplan.learning.replacing import replace_model
from flrplan.method.recipe import Recipe
from flrplan.nnunet.training_run import StageWork, train_fold

CPU = torch.device("cpu")
KEPT = r"It is kept in .*training_state.pth: give the same command with another --models folder"


def test_a_model_that_was_replaced_meanwhile(tiny_work: StageWork, tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    models = tmp_path / "models" / "flr" / "nnunet"

    def same_plan(_: object) -> None:
        models.mkdir(parents=True)
        (models / "published.json").write_text("{}")

    with pytest.raises(ModelError, match=rf"replaced by a training from the viewer while this one ran .* {KEPT}"):
        train_fold(tiny_work, 0, tiny_recipe(epochs=1), models, CPU, on_epoch=same_plan)
    assert [p.name for p in models.iterdir()] == ["published.json"]
    shutil.rmtree(models)

    def other_plan(_: object) -> None:
        replace_model(Path(shutil.copytree(MODEL_ROOT / "demo" / "flr" / "nnunet", tmp_path / "new")), models)

    with pytest.raises(ModelError, match=rf"flr fold 0 is trained but not published: .*belongs to another training.* {KEPT}"):
        train_fold(tiny_work, 0, tiny_recipe(epochs=2), models, CPU, on_epoch=other_plan)
    demo = MODEL_ROOT / "demo" / "flr" / "nnunet"
    assert sorted(p.relative_to(models) for p in models.rglob("*")) == sorted(p.relative_to(demo) for p in demo.rglob("*"))
    assert (models / "plans.json").read_bytes() == (demo / "plans.json").read_bytes()
    assert (models / "fold_0" / "run.json").read_bytes() == (demo / "fold_0" / "run.json").read_bytes()

    def never(_: object) -> None:
        pytest.fail("it was trained again")

    path = train_fold(tiny_work, 0, tiny_recipe(epochs=2), tmp_path / "elsewhere", CPU, on_epoch=never)
    assert json.loads(path.with_name("run.json").read_text())["resumed_at"] == [1, 2]
