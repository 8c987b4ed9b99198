"""One retraining: published only if whole and not worse, the current model untouched whatever happens, locks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flrplan.api.train import TrainingRequest
from flrplan.cohort import SyntheticCase
from flrplan.engine import MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.engine.models import FROM_DEMO
from flrplan.errors import LabelError, ModelError, SettingsError, TrainingError
from flrplan.files import current_version
from flrplan.image import CT
from flrplan.learning import (
    AnnotatedImage,
    Progress,
    RetrainingFolder,
    RetrainingSettings,
    StageTraining,
    Start,
    TrainingChoice,
    read_annotations,
    stage_training,
)
from flrplan.learning.annotations import StageCases
from flrplan.learning.holdout import position
from flrplan.learning.stage_training import RECORD_NAME
from flrplan.method import CRLM, LIVER
from flrplan.nnunet.model import load_checkpoint, write_checkpoint
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME
from flrplan.workfolder import FINAL_CHECKPOINT

CPU = torch.device("cpu")
DEMO = MODEL_ROOT / "demo"
RECIPE = """
common:
  plan: {batch_size: 1, features: [4, 8], spacing_zyx_mm: [8, 6, 6], patch_size_zyx: [16, 24, 24], resampling: torch}
  training: {epochs: 1, iterations_per_epoch: 1, validation_iterations: 1, save_every: 1, learning_rate: 0.00001}
"""


@pytest.fixture
def cases(synthetic: list[SyntheticCase], annotate: Callable[..., AnnotatedImage], tmp_path: Path) -> StageCases:
    return read_annotations([annotate(c) for c in synthetic], tmp_path / "masks", ["never"]).for_stage(LIVER)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    (tmp_path / "models").mkdir()
    return ModelStore(tmp_path / "models", DEMO)


def training(cases: StageCases, store: ModelStore, margin: float = 0.05, start: Start = Start.CURRENT) -> StageTraining:
    recipe = store.root / "recipe.yaml"
    recipe.write_text(RECIPE)
    settings = RetrainingSettings(recipe=recipe, margin=margin)
    progress = Progress(RetrainingFolder(store.root).stats("liver"), 1)
    return StageTraining(cases, store, settings, TrainingChoice("nnunet", start, device="cpu"), progress)


def sha(store: ModelStore) -> dict[str, str]:
    return dict(store.predictor(LIVER, "nnunet", CPU)[1].weights_sha256)


def stand_in(value: float | None) -> Callable[..., None]:
    """Instead of a training: the demo model's first fold as the new model, its output shifted by ``value``."""

    def train(request: TrainingRequest, *_: Any) -> None:
        assert request.held_out == {"never"}
        target = request.model_folder
        shutil.copytree(DEMO / "liver" / "nnunet", target, ignore=shutil.ignore_patterns("training_cohort.json"))
        shutil.rmtree(target / "fold_1")
        path = target / "fold_0" / FINAL_CHECKPOINT
        content = load_checkpoint(path)
        for name, tensor in content["network_weights"].items():
            if value is not None and "seg_layers" in name and name.endswith("bias"):
                content["network_weights"][name] = torch.full_like(tensor.float(), value)
        write_checkpoint(path, content)

    return train


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[float | None], None]:
    def use(value: float | None) -> None:
        monkeypatch.setattr(stage_training, "train", stand_in(value))

    return use


def test_fine_tuning_from_the_demo_model(cases: StageCases, store: ModelStore, small_ct: CT) -> None:
    left_over = RetrainingFolder(store.root).stage("liver") / "work" / "liver" / "prepared.json"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("of a training that was killed")
    record = training(cases, store).run()
    assert record["published"], record["reason"]
    assert (record["pretrained"]["fresh"], record["pretrained"]["adapted"], record["pretrained"]["skipped"]) == ([], {}, {})
    assert len(record["train_ids"]) + len(record["holdout_ids"]) == 4
    assert not set(record["train_ids"]) & set(record["holdout_ids"])
    # One step at a tiny rate moves the weights little: the hold-out cases are found about as well as before.
    assert min(record["holdout_dice"]["new"].values()) > 0.7
    folder = store.root / "liver" / "nnunet"
    run = json.loads((folder / "fold_0" / "run.json").read_text())
    assert run["train_ids"] == sorted(record["train_ids"])
    assert run["recipe"]["plan"] == "that of the model it started from"
    plans, before = (json.loads((p / "plans.json").read_text()) for p in (folder, DEMO / "liver" / "nnunet"))
    assert plans["foreground_intensity_properties_per_channel"] == before["foreground_intensity_properties_per_channel"]
    assert plans["configurations"]["3d_fullres"]["architecture"] == before["configurations"]["3d_fullres"]["architecture"]
    new = load_checkpoint(folder / "fold_0" / FINAL_CHECKPOINT)["network_weights"]
    old = load_checkpoint(DEMO / "liver" / "nnunet" / "fold_0" / FINAL_CHECKPOINT)["network_weights"]
    difference = max(float((new[n].float() - old[n].float()).abs().max()) for n in old)
    assert 0 < difference < 1e-3  # started there, and moved
    result = Cascade(store, CascadeSettings(device="cpu")).run(small_ct, stages=(LIVER,))
    assert not result.demo
    assert result.models["liver"].fine_tuned_from_demo
    assert "liver: fine-tuned from demo models, which were trained on synthetic cases only" in result.warnings
    assert not (RetrainingFolder(store.root).stage("liver") / "work").exists()


def test_a_worse_model_is_not_published(
    cases: StageCases, store: ModelStore, no_training: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_training, "score_current", lambda _folder, kept, _device: ({c.case_id: 0.9 for c in kept}, ""))
    before = sha(store)
    no_training(-100.0)
    record = training(cases, store).run()
    assert record["published"] is False
    assert "new 0.000, current 0.900" in record["reason"]
    assert sha(store) == before
    assert not (store.root / "liver").exists()
    stats = json.loads(RetrainingFolder(store.root).stats("liver").read_text())
    assert (stats["state"], stats["published"]) == ("done", False)


@pytest.mark.parametrize("enough", [True, False])
def test_a_model_that_finds_nothing_does_not_replace_one_that_does(
    enough: bool,
    synthetic: list[SyntheticCase],
    annotate: Callable[..., AnnotatedImage],
    store: ModelStore,
    no_training: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The case whose id is kept has no metastasis; the current model draws something there."""
    ids = sorted((c.case_id for c in synthetic), key=position)
    showing = ids[2:] if enough else ids[3:]
    cases = _crlm_cases(synthetic, annotate, tmp_path, showing)
    monkeypatch.setattr(
        stage_training, "score_model", lambda _f, kept, _d: {c.case_id: float(c.case_id not in showing) for c in kept}
    )
    monkeypatch.setattr(
        stage_training, "score_current", lambda _f, kept, _d: ({c.case_id: 0.6 * (c.case_id in showing) for c in kept}, "")
    )
    RetrainingFolder(store.root).root.mkdir()
    (RetrainingFolder(store.root).root / "kept.json").write_text(json.dumps({"kept": ids[:1]}))
    no_training(None)
    record = training(cases, store).run()
    assert record["published"] is False
    assert not (store.root / "crlm").exists()
    assert record["holdout_that_shows_the_target"] == ([ids[2]] if enough else [])
    if enough:
        assert set(record["holdout_ids"]) == {ids[0], ids[2]}
        assert "on the 1 that show the target: new 0.000, current 0.600" in record["reason"]
    else:
        assert record["reason"].startswith(f"the target is empty in all 1 hold-out cases ({ids[0]})")
        assert "crlm: no hold-out case shows crlm, so the new model will not replace the current one" in caplog.text


def _crlm_cases(
    synthetic: list[SyntheticCase], annotate: Callable[..., AnnotatedImage], folder: Path, showing: Collection[str]
) -> StageCases:
    """All cases with a drawn liver; metastases only in those ``showing``."""
    images = []
    for case in synthetic:
        label = np.where(case.planning_zyx > 0, 1, 0).astype(np.uint8)
        if case.case_id in showing:
            label[tuple(np.argwhere(label)[0])] = 2
        images.append(annotate(case, {"liver": 1, "crlm": 2}, label))
    return read_annotations(images, folder / "masks", ["never"]).for_stage(CRLM)


def test_a_model_that_is_not_whole_is_an_error(cases: StageCases, store: ModelStore, no_training: Callable[..., None]) -> None:
    before = sha(store)
    no_training(float("nan"))
    with pytest.raises(ModelError, match="NaN or infinite"):
        training(cases, store, margin=1.0).run()
    assert sha(store) == before
    record = json.loads((RetrainingFolder(store.root).stage("liver") / RECORD_NAME).read_text())
    assert record["published"] is False
    assert "NaN or infinite" in record["error"]


def test_the_previous_model_is_kept(
    cases: StageCases, store: ModelStore, no_training: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_training, "score_model", lambda _folder, kept, _device: {c.case_id: 0.5 for c in kept})
    monkeypatch.setattr(stage_training, "score_current", lambda _folder, kept, _device: ({c.case_id: 0.5 for c in kept}, ""))
    target = store.root / "liver" / "nnunet"
    shutil.copytree(DEMO / "liver" / "nnunet", target, ignore=shutil.ignore_patterns("training_cohort.json"))
    no_training(None)
    record = training(cases, store).run()
    assert record["published"] is True
    assert record[FROM_DEMO] is False  # the folder is ours now; where its weights came from, nobody recorded
    new = current_version(target)
    published = json.loads((new / PUBLISHED_NAME).read_text())
    assert set(published["holdout_dice"]["new"]) == set(published["holdout_dice"]["current"]) == set(record["holdout_ids"])
    assert (new, (new / "fold_1").exists()) == (target / "versions" / "1", False)
    assert (target / "fold_1" / FINAL_CHECKPOINT).is_file()


def test_a_damaged_current_model(cases: StageCases, store: ModelStore, no_training: Callable[..., None]) -> None:
    target = store.root / "liver" / "nnunet"
    target.mkdir(parents=True)
    (target / "plans.json").write_text("{")
    with pytest.raises(ModelError, match=r"start=current: the current model cannot be used .* choose start=anew"):
        training(cases, store).run()
    no_training(None)
    record = training(cases, store, start=Start.ANEW).run()
    assert record["published"] is True
    assert "the current model cannot be used" in record["reason"]


def test_a_current_model_that_learned_from_a_held_out_case_is_not_started_from(cases: StageCases, store: ModelStore) -> None:
    target = store.root / "liver" / "nnunet"
    shutil.copytree(DEMO / "liver" / "nnunet", target, ignore=shutil.ignore_patterns("training_cohort.json"))
    run = json.loads((target / "fold_0" / "run.json").read_text())
    (target / "fold_0" / "run.json").write_text(json.dumps({**run, "inherited_train_ids": ["never"]}))
    with pytest.raises(SettingsError, match=r"start=current: .* was trained on \['never'\], which the split calls test"):
        training(cases, store).run()
    assert not (RetrainingFolder(store.root).stage("liver") / "work").exists()


def test_too_few_cases(cases: StageCases, store: ModelStore) -> None:
    few = StageCases(LIVER, cases.cases[:3], cases.left_out)
    with pytest.raises(LabelError, match="stage liver: 3 cases can train it, at least 4 are needed"):
        training(few, store).run()


def test_a_full_disk_hides_no_error_and_is_freed(
    cases: StageCases,
    store: ModelStore,
    no_training: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    full_while: Callable[[Path], None],
) -> None:
    folder = RetrainingFolder(store.root)

    def fill(work: Any, *_: Any, **__: Any) -> None:
        (folder.work("liver") / "checkpoints").mkdir(parents=True)
        full_while(folder.work("liver"))
        raise TrainingError("the batch cannot be made")

    no_training(None)
    monkeypatch.setattr(stage_training, "train", fill)
    with pytest.raises(TrainingError, match="the batch cannot be made"):
        training(cases, store).run()
    assert not folder.work("liver").exists()
    record = json.loads((folder.stage("liver") / RECORD_NAME).read_text())
    assert (record["error"], "ended" in record) == ("the batch cannot be made", True)
    stats = json.loads(folder.stats("liver").read_text())
    assert (stats["state"], stats["message"]) == ("failed", "the batch cannot be made")


def test_what_a_killed_training_left_on_a_full_disk_is_removed_before_the_first_write(
    cases: StageCases, store: ModelStore, full_while: Callable[[Path], None]
) -> None:
    folder = RetrainingFolder(store.root)
    begun = training(StageCases(LIVER, cases.cases[:3], ()), store)
    folder.work("liver").mkdir()
    full_while(folder.work("liver"))
    with pytest.raises(LabelError, match="stage liver: 3 cases can train it"):
        begun.run()
    assert "3 cases can train it" in json.loads((folder.stage("liver") / RECORD_NAME).read_text())["error"]
    folder.work("liver").mkdir()
    with folder.locked((LIVER,)):
        assert not folder.work("liver").exists()


def test_a_second_training_is_refused_and_a_killed_one_frees_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_training, "_LOCK_SECONDS", 0.2)
    folder = RetrainingFolder(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from filelock import FileLock\n"
        "lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    folder.root.mkdir()
    process = subprocess.Popen([sys.executable, "-c", code, str(folder.root / "liver.lock")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert folder.is_locked("liver")
        with pytest.raises(ModelError, match="stage liver is being trained by another process"), folder.locked((LIVER,)):
            pass
    finally:
        process.kill()
        process.wait(10)
    assert not folder.is_locked("liver")
    with folder.locked((LIVER,)):
        pass
