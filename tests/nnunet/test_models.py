"""Model folders: what is refused and how it is said, importing, warm predictors, agreement with nnU-Net's own command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from flrplan.anatomy import Mask, Structure
from flrplan.engine import MODEL_ROOT, ModelStore
from flrplan.engine.models import DISTILLED, IS_DEMO, describe_distilled
from flrplan.errors import ModelError
from flrplan.files import write_json
from flrplan.image import CT
from flrplan.method import FLR, FLR_E2E, LIVER, build_stage_input
from flrplan.nnunet.imported import import_model
from flrplan.nnunet.model import ModelFolder, StagePredictor, load_checkpoint
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME
from flrplan.workfolder import FINAL_CHECKPOINT

CPU = torch.device("cpu")
DEMO = MODEL_ROOT / "demo"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the demo liver model in a models folder, to be damaged."""
    target = tmp_path / "models" / "liver" / "nnunet"
    shutil.copytree(DEMO / "liver" / "nnunet", target, ignore=shutil.ignore_patterns("training_cohort.json"))
    return target


def test_incomplete_folders_are_named(copied: Path) -> None:
    for fold in copied.glob("fold_*"):
        shutil.rmtree(fold)
    with pytest.raises(ModelError, match="the folder is incomplete"):
        ModelFolder.open(copied)
    (copied / "plans.json").unlink()
    with pytest.raises(ModelError, match=r"plans\.json is missing"):
        ModelFolder.open(copied)


def test_damaged_json_and_foreign_folders(copied: Path) -> None:
    (copied / "plans.json").write_text('{"half')
    with pytest.raises(ModelError, match=r"plans\.json is damaged"):
        ModelFolder.open(copied)
    (copied / "plans.json").write_text("{}")
    (copied / "dataset.json").write_text('{"labels": {"liver": 1}}')
    with pytest.raises(ModelError, match="flrplan models import"):
        ModelFolder.open(copied)


def test_model_of_another_stage_is_refused(copied: Path) -> None:
    shutil.copytree(copied, copied.parents[1] / "flr_e2e" / "nnunet")
    store = ModelStore(copied.parents[1], demo=None)
    with pytest.raises(ModelError, match="expected a model of stage flr_e2e, this one is of stage liver"):
        store.find(FLR_E2E, "nnunet")
    with pytest.raises(ModelError, match="no nnunet model for stage flr"):
        store.find(FLR, "nnunet")


def test_weights_that_do_not_fit_the_plan(copied: Path) -> None:
    plans = json.loads((copied / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"][0] = 8
    (copied / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="do not fit the network"):
        StagePredictor(ModelFolder.open(copied), CPU)


def test_truncated_checkpoint(copied: Path) -> None:
    path = next(copied.glob(f"fold_*/{FINAL_CHECKPOINT}"))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="damaged"):
        StagePredictor(ModelFolder.open(copied), CPU)


def test_store_keeps_models_warm_and_notices_a_change(copied: Path) -> None:
    store = ModelStore(copied.parents[1], demo=None)
    first, identity = store.predictor(LIVER, "nnunet", CPU)
    assert store.predictor(LIVER, "nnunet", CPU)[0] is first
    assert identity.demo is False
    path = next(copied.glob(f"fold_*/{FINAL_CHECKPOINT}"))
    content = load_checkpoint(path)
    content["network_weights"] = {k: v * 0.5 for k, v in content["network_weights"].items()}
    torch.save(content, path)
    second, changed = store.predictor(LIVER, "nnunet", CPU)
    assert second is not first
    assert changed.weights_sha256 != identity.weights_sha256


def test_demo_models_serve_and_say_so() -> None:
    found = ModelStore(Path("/nowhere")).find(LIVER, "nnunet")
    assert found.demo


def test_import_of_a_foreign_folder(copied: Path, tmp_path: Path, small_ct: CT) -> None:
    dataset = json.loads((copied / "dataset.json").read_text())
    del dataset["flrplan"]
    dataset["labels"] = {"background": 0, "hepar": [1, 2]}
    (copied / "dataset.json").write_text(json.dumps(dataset))
    for path in copied.glob(f"fold_*/{FINAL_CHECKPOINT}"):  # as nnU-Net writes it: optimizer, numpy scalars
        content = {**load_checkpoint(path), "optimizer_state": {"lr": 1.0}, "_best_ema": np.float64(0.9)}
        torch.save(content, path)
    target = tmp_path / "imported" / "liver" / "nnunet"
    with pytest.raises(ModelError, match=r"no label 'liver'; choose with --label one of .*hepar"):
        import_model(copied, LIVER, target)
    with pytest.raises(ModelError, match="takes 2 channels"):
        import_model(copied, FLR, tmp_path / "wrong", label="hepar")
    assert not (tmp_path / "wrong").exists()
    import_model(copied, LIVER, target, label="hepar")
    with pytest.raises(ModelError, match="exists already"):
        import_model(copied, LIVER, target, label="hepar")
    imported = StagePredictor(ModelFolder.open(target), CPU)
    assert "optimizer_state" not in load_checkpoint(ModelFolder.open(target).checkpoint(0))
    original = StagePredictor(ModelFolder.open(DEMO / "liver" / "nnunet"), CPU)
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, {}, LIVER)
    assert np.array_equal(imported.predict(given)[LIVER.target], original.predict(given)[LIVER.target])
    assert original.predict(given)[LIVER.target].any()


def test_a_plan_that_names_code_is_refused_and_not_run(copied: Path, tmp_path: Path) -> None:
    plans = json.loads((copied / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"].update(nonlin="os.mkdir", nonlin_kwargs={"path": str(tmp_path / "was_run")})
    (copied / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=r"plans\.json names 'os\.mkdir' as nonlin"):
        StagePredictor(ModelFolder.open(copied), CPU)
    with pytest.raises(ModelError, match=r"'os\.mkdir'"):
        import_model(copied, LIVER, tmp_path / "imported")
    assert not (tmp_path / "was_run").exists()
    architecture["arch_kwargs"].update(nonlin="torch.nn.LeakyReLU", nonlin_kwargs={})
    architecture["network_class_name"] = "subprocess.run"
    (copied / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=r"'subprocess\.run' as network_class_name"):
        StagePredictor(ModelFolder.open(copied), CPU)


def test_a_region_with_a_part_of_its_own_is_whole(copied: Path, small_ct: CT) -> None:
    """LiTS style: liver = [1, 2], tumour = 2; nnU-Net writes 2 where both are, and that is liver too."""
    plain = StagePredictor(ModelFolder.open(copied), CPU)
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, {}, LIVER)
    expected = plain.predict(given)[LIVER.target]
    dataset = json.loads((copied / "dataset.json").read_text())
    dataset["regions_class_order"] = [2]  # the one region is written as 2, as a tumour inside it would be
    (copied / "dataset.json").write_text(json.dumps(dataset))
    assert np.array_equal(StagePredictor(ModelFolder.open(copied), CPU).predict(given)[LIVER.target], expected)


def test_import_keeps_the_input_settings_and_refuses_another_stage(copied: Path, tmp_path: Path) -> None:
    dataset = json.loads((copied / "dataset.json").read_text())
    dataset["flrplan"]["input"]["crop_margin_mm"] = 25.0
    (copied / "dataset.json").write_text(json.dumps(dataset))
    import_model(copied, LIVER, tmp_path / "imported")
    assert ModelFolder.open(tmp_path / "imported").input.crop_margin_mm == 25.0
    with pytest.raises(ModelError, match="is a model of stage liver, not of stage flr_e2e"):
        import_model(copied, FLR_E2E, tmp_path / "wrong", label="liver")


def test_weights_that_are_not_finite_are_refused(copied: Path, small_ct: CT) -> None:
    for path in copied.glob(f"fold_*/{FINAL_CHECKPOINT}"):
        content = load_checkpoint(path)
        content["network_weights"] = {k: torch.full_like(v, float("nan")) for k, v in content["network_weights"].items()}
        torch.save(content, path)
    predictor = StagePredictor(ModelFolder.open(copied), CPU)
    with pytest.raises(ModelError, match="output is NaN or infinite"):
        predictor.predict(build_stage_input(small_ct.array_zyx, small_ct.geometry, {}, LIVER))


def test_agrees_with_nnunets_own_command(
    tmp_path: Path, demo_store: ModelStore, small_ct: CT, small_truth: dict[Structure, Mask]
) -> None:
    """Stage flr: cropped input, two channels, one region, all folds' logits averaged."""
    predictor, _ = demo_store.predictor(FLR, "nnunet", CPU)
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, small_truth, FLR, predictor.folder.input)
    for index, channel in enumerate(given.channels_czyx):
        (tmp_path / "in").mkdir(exist_ok=True)
        sitk.WriteImage(given.geometry.image(channel), str(tmp_path / "in" / f"case_{index:04d}.nii.gz"))
    command = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
    folds = [str(f) for f in predictor.folder.folds]
    arguments = ["-i", tmp_path / "in", "-o", tmp_path / "out", "-m", predictor.folder.path, "-f", *folds]
    options = ["--disable_tta", "-device", "cpu", "-npp", "1", "-nps", "1"]
    environment = {
        **os.environ,
        "nnUNet_raw": str(tmp_path),
        "nnUNet_preprocessed": str(tmp_path),
        "nnUNet_results": str(tmp_path),
    }
    done = subprocess.run(
        [str(a) for a in [command, *arguments, *options]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz"))) > 0
    ours = predictor.predict(given)[predictor.stage.target]
    assert 0.01 <= theirs.mean() <= 0.5, "a foreground of 1 to 50 % makes the comparison mean something"
    assert 2 * np.count_nonzero(theirs & ours) / (theirs.sum() + ours.sum()) >= 0.999


def test_a_demo_model_is_one_wherever_it_lies(tmp_path: Path) -> None:
    shutil.copytree(DEMO / "liver" / "nnunet", tmp_path / "copied" / "liver" / "nnunet")
    import_model(DEMO / "liver" / "nnunet", LIVER, tmp_path / "imported" / "liver" / "nnunet")
    packed = shutil.make_archive(str(tmp_path / "demo"), "zip", DEMO / "liver" / "nnunet")
    import_model(Path(packed), LIVER, tmp_path / "unpacked" / "liver" / "nnunet")
    for place in ("copied", "imported", "unpacked"):
        found = ModelStore(tmp_path / place, demo=None).find_any(LIVER, "nnunet")
        assert found is not None
        assert found.demo, place


def test_a_mark_that_is_set_later_is_told_with_the_next_answer(copied: Path) -> None:
    """``published.json`` is no part of the network: it stays loaded."""
    store = ModelStore(copied.parents[1], demo=None)
    first, before = store.predictor(LIVER, "nnunet", CPU)
    write_json(copied / PUBLISHED_NAME, {IS_DEMO: True})
    second, after = store.predictor(LIVER, "nnunet", CPU)
    assert second is first
    assert (before.demo, after.demo) == (False, True)


@pytest.mark.parametrize(
    "record", [[], {"weights_sha256": 5}, {"agreement": "all"}, {"weights_sha256": {}, "agreement": [1]}], ids=str
)
def test_a_record_of_a_distillation_that_is_none_is_told(copied: Path, record: object) -> None:
    write_json(copied / PUBLISHED_NAME, {DISTILLED: record})
    with pytest.raises(ModelError, match=r"published.json is damaged \(distilled\); copy the model folder again"):
        ModelStore(copied.parents[1], demo=None).find(LIVER, "nnunet")
    write_json(copied / PUBLISHED_NAME, {DISTILLED: {"weights_sha256": None}})
    assert describe_distilled(ModelStore(copied.parents[1], demo=None).find(LIVER, "nnunet").distilled or {})
