"""Models that replace each other: the server, the list and a Python user find the current version, whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Thread

import pytest
import torch

from flrplan.cli import main
from flrplan.engine import MODEL_ROOT, ModelStore
from flrplan.engine.models import FROM_DEMO
from flrplan.files import current_version, folder, publish_version, versions
from flrplan.method import LIVER
from flrplan.nnunet.imported import import_model
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME
from flrplan.nnunet.train.publishing import changing, replace_model, replacing_models

DEMO = MODEL_ROOT / "demo"
CPU = torch.device("cpu")


def model(path: Path, source: str = "liver", **published: object) -> Path:
    shutil.copytree(DEMO / source / "nnunet", path, ignore=shutil.ignore_patterns("training_cohort.json"))
    (path / PUBLISHED_NAME).write_text(json.dumps(published))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return model(tmp_path / "models" / "liver" / "nnunet", name="old")


def test_whoever_publishes_a_fold_is_waited_for(target: Path, tmp_path: Path) -> None:
    new = model(tmp_path / "new", name="new")
    with changing(target):
        waiting = Thread(target=replace_model, args=(new, target))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert current_version(target) == target
    waiting.join(30)
    assert json.loads((current_version(target) / PUBLISHED_NAME).read_text()) == {"name": "new"}


def test_several_models_are_replaced_together_or_not_at_all_wherever_it_ends(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, root = target.with_name("other"), target.parents[1]

    def new() -> dict[str, Path]:
        return {f"liver/{n}": model(tmp_path / "new" / n, name=n) for n in ("nnunet", "other")}

    def serves() -> str:
        return str(json.loads((current_version(target) / PUBLISHED_NAME).read_text())["name"])

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    def replace(interrupt: bool = False) -> None:
        with replacing_models(new(), root) as places:
            assert (serves(), places["liver/other"]) == ("nnunet", other)
            if interrupt:
                ctrl_c()

    replace_model(model(tmp_path / "second", name="second"), target)
    before = ("second", [0, 1], [])
    with pytest.raises(KeyboardInterrupt):
        replace(interrupt=True)
    assert (serves(), versions(target), versions(other)) == before
    shutil.rmtree(tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "_point", ctrl_c)  # it has its place, and nobody was told of it
        with pytest.raises(KeyboardInterrupt):
            replace()
    assert (serves(), versions(target), versions(other)) == before
    shutil.rmtree(tmp_path / "new")
    replace()
    assert (serves(), versions(target), versions(other)) == ("nnunet", [0, 1, 2], [0])


def test_a_replaced_model_serves_without_a_new_store(target: Path, tmp_path: Path) -> None:
    store = ModelStore(target.parents[1], demo=DEMO)
    before = store.predictor(LIVER, "nnunet", CPU)[1]
    assert not before.fine_tuned_from_demo
    new = model(tmp_path / "new", name="new", **{FROM_DEMO: True})
    shutil.rmtree(new / "fold_1")
    replace_model(new, target)
    after = store.predictor(LIVER, "nnunet", CPU)[1]
    assert (before.folds, after.folds) == ((0, 1), (0,))
    assert (before.folder, after.folder) == ("liver/nnunet", "liver/nnunet/versions/1")
    assert (after.demo, after.fine_tuned_from_demo) == (False, True)


def test_the_list_names_versions_and_one_can_go_back(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = str(target.parents[1])
    shutil.rmtree(target / "fold_1")
    publish_version(model(target.parent / "new", name="new"), target)
    assert main(["models", "list", "--models", models]) == 0
    assert f"trained, folds [0, 1]: {target}/versions/1\n" in (said := capsys.readouterr().out)
    assert "versions 0, 1; another one: flrplan models use liver NUMBER\n" in said
    assert main(["models", "use", "liver", "0", "--models", models]) == 0
    assert main(["models", "list", "--models", models]) == 0
    assert f"serves from now on: {target}\n" in (said := capsys.readouterr().out)
    assert f"trained, folds [0]: {target}\n" in said
    assert main(["models", "use", "liver", "9", "--models", models]) != 0
    assert f"{target}: you asked for version '9', expected one of 0, 1" in capsys.readouterr().err
    assert main(["models", "use", "crlm", "0", "--models", models]) != 0
    assert "crlm/nnunet: no model is there, so no version of it can serve" in capsys.readouterr().err
    assert not (target.parents[1] / "crlm").exists()
    assert not (target.parents[1] / "crlm" / "nnunet").exists()  # else it would hide the demo model


def test_a_broken_pointer_is_no_demo_model(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (target / "current").write_text("5")
    assert main(["models", "list", "--models", str(target.parents[1])]) == 0
    assert "not usable: " + f"{target / 'current'} names version '5', expected one of 0\n" in capsys.readouterr().out


@pytest.mark.parametrize("above", [False, True])
def test_the_current_version_of_a_model_is_imported(target: Path, tmp_path: Path, above: bool) -> None:
    new = model(tmp_path / "new")
    shutil.rmtree(new / "fold_1")
    replace_model(new, target)
    imported = import_model(target.parent if above else target, LIVER, tmp_path / "imported")
    assert imported.folds == (0,)
    again = import_model(DEMO / "liver" / "nnunet", LIVER, tmp_path / "imported", force=True)
    assert (imported.path, again.path) == (tmp_path / "imported", tmp_path / "imported" / "versions" / "1")
    assert (again.folds, versions(tmp_path / "imported")) == ((0, 1), [0, 1])
