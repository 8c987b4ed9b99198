"""A fold is published among those of its own model only, whoever replaced that model while the fold was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flrplan.engine import MODEL_ROOT
from flrplan.errors import ModelError
from flrplan.files import current_version
from flrplan.method import Recipe
from flrplan.nnunet.train import FlrTrainer, train_fold
from flrplan.nnunet.train.publishing import ModelPlace, publish_fold, replace_model
from flrplan.nnunet.train.training_run import StageWork
from flrplan.workfolder import FINAL_CHECKPOINT

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

    with pytest.raises(
        ModelError, match=rf"flr fold 0 is trained but not published: .*the model there was made of something else.* {KEPT}"
    ):
        train_fold(tiny_work, 0, tiny_recipe(epochs=2), models, CPU, on_epoch=other_plan)
    demo = MODEL_ROOT / "demo" / "flr" / "nnunet"
    assert sorted(p.relative_to(models) for p in models.rglob("*")) == sorted(p.relative_to(demo) for p in demo.rglob("*"))
    assert (models / "plans.json").read_bytes() == (demo / "plans.json").read_bytes()
    assert (models / "fold_0" / "run.json").read_bytes() == (demo / "fold_0" / "run.json").read_bytes()

    def never(_: object) -> None:
        pytest.fail("it was trained again")

    path = train_fold(tiny_work, 0, tiny_recipe(epochs=2), tmp_path / "elsewhere", CPU, on_epoch=never)
    assert json.loads(path.with_name("run.json").read_text())["resumed_at"] == [1, 2]


def test_a_model_grows_by_folds_and_a_fold_trained_anew_makes_a_version(
    make_trainer: Callable[..., FlrTrainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlrTrainer, "draw_curve", lambda self, path: None)
    trainer, models = make_trainer(), tmp_path / "models" / "flr" / "nnunet"
    place = ModelPlace.found(models, {"plan": 1}, {"data": 1})

    def publish(fold: int, started: str) -> Path:
        trainer.fold = fold
        for weights in trainer.network.parameters() if started == "anew" else ():
            weights.data.mul_(2)
        publish_fold(trainer, {"stage": "flr", "started": started}, place, half=False)
        return current_version(models)

    def started(version: Path) -> dict[str, str]:
        return {run.parent.name: json.loads(run.read_text())["started"] for run in version.glob("fold_*/run.json")}

    assert publish(0, "first") == models
    assert publish(1, "first") == models
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in models.rglob("*") if path.is_file()}
    assert publish(0, "the same weights") == models
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in models.rglob("*") if path.is_file()}
    later = publish(0, "anew")
    assert later == models / "versions" / "1"
    assert started(later) == {"fold_0": "anew", "fold_1": "first"}
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}
    assert sorted(p.name for p in later.iterdir()) == ["dataset.json", "fold_0", "fold_1", "plans.json"]
    assert (later / "fold_1" / FINAL_CHECKPOINT).samefile(models / "fold_1" / FINAL_CHECKPOINT)
    assert publish(2, "added") == later
    assert started(later) == {"fold_0": "anew", "fold_1": "first", "fold_2": "added"}
    assert sorted(p.name for p in models.parent.iterdir()) == [".nnunet.lock", "nnunet"]
    (later / "plans.json").write_text('{"plan": 2}')
    with pytest.raises(ModelError, match=r"versions/1/plans.json: the model there was made of something else"):
        publish(0, "of the first version's plan")
