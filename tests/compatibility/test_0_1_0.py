"""Work folders, model folders and commands of 0.1.0 still work: on files that its last commit wrote (README.md says how)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from flrplan.anatomy import Structure
from flrplan.api.request import request_of
from flrplan.cli import main as flrplan
from flrplan.engine import ModelStore
from flrplan.files import current_version, versions
from flrplan.learning import RetrainingFolder, read_stats
from flrplan.learning.holdout import HoldOut
from flrplan.learning.stage_training import RECORD_NAME
from flrplan.method import LIVER
from flrplan.nnunet.train.publishing import replace_model

ARCHIVE = Path(__file__).with_name("written_by_0_1_0.tar.xz")
BENCHMARK = Path(__file__).parents[2] / "benchmark"

Script = Callable[..., int]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All of it, at another place; the commands of 0.1.0 ran beside ``work_of_0_1_0``, as these do."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield Path("work_of_0_1_0")
    os.chdir(before)


@pytest.fixture
def script() -> Script:
    """Runs a script of the benchmark in this process."""

    def run(name: str, *arguments: object) -> int:
        spec = importlib.util.spec_from_file_location(name, BENCHMARK / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return int(module.main(list(map(str, arguments))))

    return run


def states(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def train(root: Path, *options: object) -> int:
    work = root / "work"
    places = ["--cases", work, "--work", work / "training", "--models", work / "models"]
    return flrplan(list(map(str, ["train", "--stage", "flr", "--device", "cpu", *places, *options])))


def test_what_was_prepared_is_complete(root: Path, script: Script, capfd: pytest.CaptureFixture[str]) -> None:
    work = root / "work"
    cases = [work / name for name in ("images", "labels", "masks", "prepared")]
    before = {path: time for folder in cases for path, time in states(folder).items()}
    assert script("prepare", "folder", root / "source", "--out", work, "--split", root / "split.json", "--workers", 1) == 0
    assert f"4 cases ready in {work} (4 of them were complete before), 0 left out" in capfd.readouterr().out
    assert {path: time for folder in cases for path, time in states(folder).items()} == before


def test_predictions_belong_to_the_same_models_and_come_out_the_same(root: Path, script: Script) -> None:
    work = root / "work"
    given = ["--work", work, "--models", work / "models", "--stage", "flr", "--fold", 0, "--device", "cpu", "--no-mirroring"]
    before = states(work / "predictions")
    path = work / "probabilities" / "nnunet" / "pipelined_flr" / "case-3.nii.gz"
    mask, probability = (work / "predictions" / "nnunet" / "pipelined_flr" / "case-3.nii.gz"), array(path)
    old = array(mask)
    assert script("predict", *given, "--probabilities") == 0
    assert states(work / "predictions") == before
    mask.unlink()
    assert script("predict", *given, "--probabilities") == 0
    assert old.any()
    assert (array(mask) != old).sum() <= 0.01 * old.sum()  # another processor may round otherwise
    assert np.abs(array(path).astype(int) - probability).max() <= 2


def summary(folder: Path) -> Any:
    """Nine digits of each number: another processor may add otherwise."""
    return json.loads((folder / "summary.json").read_text(), parse_float=lambda text: float(f"{float(text):.9g}"))


def test_the_evaluation_gives_the_same_numbers(root: Path, script: Script) -> None:
    work = root / "work"
    before = summary(work / "evaluation")
    assert script("evaluate", "--work", work, "--allow-missing", "--workers", 1, "--out", root / "evaluation") == 0
    after = summary(root / "evaluation")
    for part in ("test", "cv"):
        old, new = (content[part]["nnunet"]["pipelined_flr"] for content in (before, after))
        assert {metric: new[metric] for metric in old} == old


def test_a_planned_case_is_taken_for_what_it_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, report = root / "work", root / "plans" / "case-3" / "plan.json"
    masks = {s: work / "masks" / "case-3" / f"{s}.nii.gz" for s in (Structure.LIVER, Structure.CRLM)}
    ct = work / "images" / "case-3.nii.gz"
    command = ["plan", ct, "--out", root / "plans", "--models", work / "models", "--device", "cpu", "--raw"]
    command += [word for s, path in masks.items() for word in (f"--{s}", path)]
    assert flrplan(list(map(str, command))) == 1
    assert "the plan there was made of something else (crlm was" in capsys.readouterr().err  # these lie at another place
    old = json.loads(report.read_text())
    report.write_text(json.dumps({**old, "request": {k: v for k, v in request_of(ct, masks, {}).items() if k != "options"}}))
    before = states(root / "plans")
    assert flrplan(list(map(str, command))) == 0
    assert states(root / "plans") == before
    assert flrplan([str(word) for word in command if word != "--raw"]) == 1
    assert "(options.raw was True, is False)" in capsys.readouterr().err, "0.1.0 made no coherent plan"
    assert flrplan([*map(str, command), "--force"]) == 0
    new = json.loads(report.read_text())
    assert new["volumes"] == pytest.approx(old["volumes"], rel=0.02)
    assert new["models"]["flr"]["weights_sha256"] == old["models"]["flr"]["weights_sha256"]


def test_the_models_are_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flrplan(["models", "list", "--models", str(root / "work" / "models")]) == 0
    place = root / "work" / "models" / "flr" / "nnunet"
    assert f"flr      nnunet     trained, folds [0]: {place}\n" in capsys.readouterr().out
    assert flrplan(["models", "list", "--models", str(root / "retrained" / "models")]) == 0
    assert "liver    nnunet     trained, folds [0]: " in capsys.readouterr().out


def test_the_next_fold_joins_the_model(root: Path) -> None:
    work = root / "work"
    model, prepared = work / "models" / "flr" / "nnunet", work / "training" / "flr" / "preprocessed"
    folders = (model, prepared / "Dataset503_flr" / "nnUNetPlans_3d_fullres")
    before = {path: time for folder in folders for path, time in states(folder).items()}
    assert train(root, "--fold", 1, "--recipe", root / "recipe.yaml", "--half") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is prepared anew, nothing published changes"
    assert sorted(path.name for path in model.iterdir()) == ["dataset.json", "fold_0", "fold_1", "plans.json"]
    runs = [json.loads((model / f"fold_{fold}" / "run.json").read_text()) for fold in (0, 1)]
    assert runs[0]["train_ids"] == runs[1]["validation_ids"] == ["case-1", "case-2"]
    assert runs[0]["data_sha256"] == runs[1]["data_sha256"]


def test_a_training_goes_on(root: Path) -> None:
    model, longer = root / "work" / "models" / "flr" / "nnunet", root / "longer.yaml"
    text = (root / "recipe.yaml").read_text()
    epochs = json.loads((model / "fold_0" / "run.json").read_text())["recipe"]["training"]["epochs"]
    longer.write_text(text.replace(f"epochs: {epochs},", f"epochs: {epochs + 1},"))
    assert train(root, "--fold", 0, "--recipe", longer, "--half") == 0
    assert current_version(model) == model / "versions" / "1"
    run = json.loads((current_version(model) / "fold_0" / "run.json").read_text())
    assert (run["resumed_at"], run["recipe"]["training"]["epochs"]) == ([epochs], epochs + 1)


def test_what_a_retraining_left(root: Path) -> None:
    models = root / "retrained" / "models"
    folder = RetrainingFolder(models)
    stats = read_stats(folder.stats("liver"))
    assert (stats["state"], stats["published"], folder.is_locked("liver")) == ("done", True, False)
    record = json.loads((folder.stage("liver") / RECORD_NAME).read_text())
    assert HoldOut(folder.root / "kept.json").divide([f"case-{n}" for n in range(4)], 0.01).holdout == tuple(record["kept_ids"])
    found = ModelStore(models, demo=None).find(LIVER, "nnunet")
    assert found.folder.published()["kept_ids"] == record["kept_ids"]
    assert found.folder.training_cases(0) == set(record["train_ids"])
    model = models / "liver" / "nnunet"
    assert ModelStore(models, demo=None).predictor(LIVER, "nnunet", torch.device("cpu"))[1].folder == "liver/nnunet"
    replace_model(Path(shutil.copytree(model, models / "new")), model)
    assert (versions(model), ModelStore(models, demo=None).find(LIVER, "nnunet").folder.name) == (
        [0, 1],
        "liver/nnunet/versions/1",
    )
