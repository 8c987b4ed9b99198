"""Every architecture of the table: planned on the same prepared data, trained, published, loaded and predicting."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import flrplan.networks
from flrplan.anatomy import Mask, Structure
from flrplan.engine import ModelStore
from flrplan.errors import ModelError, SettingsError
from flrplan.image import CT
from flrplan.method import FLR, Recipe, build_stage_input
from flrplan.networks import ARCHITECTURES, TABLE, table
from flrplan.networks.stunet import STUNet
from flrplan.nnunet.model import load_checkpoint
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import FINAL_CHECKPOINT, find_labelled_cases, nnunet_split

REPOSITORY = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
RECIPE = Recipe.from_mapping(
    {
        "plan": {
            "batch_size": 2,
            "network_size": "narrow",
            "spacing_zyx_mm": [8, 6, 6],
            "patch_size_zyx": [16, 24, 24],
            "resampling": "torch",
        },
        "training": {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "save_every": 1},
    }
)


@pytest.fixture
def work(tiny_work: StageWork) -> StageWork:
    return tiny_work


def model_folder(work: StageWork, architecture: str) -> Path:
    return work.root.parent / "models" / "flr" / architecture


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_publishes_and_predicts(
    work: StageWork, architecture: str, small_ct: CT, small_truth: dict[Structure, Mask]
) -> None:
    row = TABLE[architecture]
    folder = model_folder(work, architecture)
    path = train_fold(work, 0, RECIPE, folder, CPU, architecture=architecture)
    assert path == folder / "fold_0" / FINAL_CHECKPOINT
    plans = json.loads((folder / "plans.json").read_text())
    assert plans["flrplan"] == {"architecture": architecture, "network_size": "narrow"}
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["architecture"]["network_class_name"] == row.network
    assert configuration["data_identifier"] == "nnUNetPlans_3d_fullres", "prepared data are shared"
    if architecture == "swinunetr":
        # Sides divide by 32; the region is 24 x 31 x 36 voxels at this spacing, so two tiles along x.
        assert configuration["patch_size"] == [32, 64, 32]
    run = json.loads((folder / "fold_0" / "run.json").read_text())
    advised = row.hyperparameters
    assert run["architecture"] == architecture
    assert run["recipe"]["training"]["learning_rate"] == advised.learning_rate
    assert run["recipe"]["training"]["schedule"] == advised.schedule.value
    predictor, identity = ModelStore(folder.parents[1], demo=None).predictor(FLR, architecture, CPU)
    assert identity.architecture == architecture
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, small_truth, FLR, predictor.folder.input)
    assert given.restore(predictor.predict(given)[FLR.target]).shape == small_ct.array_zyx.shape


def test_one_preparation_serves_all(work: StageWork, tiny_cohort: Path) -> None:
    arrays = [p.name for p in work.preprocessed.iterdir() if p.is_dir()]
    assert sorted(arrays) == ["nnUNetPlans_3d_fullres"]
    other = replace(RECIPE, plan=replace(RECIPE.plan, network_size="base", patch_size_zyx=None, batch_size=None))
    before = work.marker.stat().st_mtime_ns
    cases = find_labelled_cases(tiny_cohort)
    prepare_stage(cases, work, other, nnunet_split([c.case_id for c in cases], 2))
    assert work.marker.stat().st_mtime_ns == before


def test_another_patch_in_the_same_work_folder_is_refused(work: StageWork, tmp_path: Path) -> None:
    train_fold(work, 0, RECIPE, model_folder(work, "stunet"), CPU, architecture="stunet")
    other = replace(RECIPE, plan=replace(RECIPE.plan, patch_size_zyx=(32, 32, 32)))
    with pytest.raises(SettingsError, match=r"nnUNetPlans_stunet_narrow\.json: the plan there was made of something else"):
        train_fold(work, 0, other, tmp_path / "models", CPU, architecture="stunet")


def test_fine_tuning_from_a_model_of_ours(work: StageWork, tmp_path: Path) -> None:
    """All weights, heads among them, start from the file; after two steps at a tiny rate they have hardly moved."""
    first = train_fold(work, 0, RECIPE, model_folder(work, "nnunet"), CPU, architecture="nnunet")
    slow = replace(RECIPE, training=replace(RECIPE.training, learning_rate=1e-9))
    with pytest.raises(SettingsError, match=r"was trained on .* which validate this fold"):
        train_fold(work, 1, slow, tmp_path / "models", CPU, architecture="nnunet", pretrained=first)
    second = train_fold(work, 1, slow, tmp_path / "models", CPU, architecture="nnunet", pretrained=first, validation_seen=True)
    before, after = (load_checkpoint(p)["network_weights"] for p in (first, second))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    record = json.loads(second.with_name("run.json").read_text())["pretrained"]
    assert record["parameters_loaded"] == record["parameters"]
    assert record["source"] == FINAL_CHECKPOINT
    assert record["skipped"] == {}
    with pytest.raises(SettingsError, match=r"started from checkpoint_final\.pth, not from"):
        train_fold(work, 1, slow, tmp_path / "models", CPU, architecture="nnunet", pretrained=second, validation_seen=True)


def test_a_model_of_ours_brings_its_network_along(work: StageWork, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The demo model of stage flr (0.9 M parameters, 4 mm) goes on, although the recipe would plan a narrow network at 8 mm."""
    demo = ModelStore(tmp_path).find(FLR, "nnunet").folder
    with caplog.at_level("WARNING", logger="flrplan"):
        trained = train_fold(work, 0, RECIPE, tmp_path / "models", CPU, architecture="nnunet", pretrained=demo.checkpoint(0))
    plans = json.loads((tmp_path / "models" / "plans.json").read_text())
    assert plans["plans_name"] == "nnUNetPlans_nnunet_narrow_continued"
    new, old = plans["configurations"]["3d_fullres"], demo.plans["configurations"]["3d_fullres"]
    assert new["architecture"] == old["architecture"]
    assert new["patch_size"] == old["patch_size"]
    assert new["spacing"] == [8, 6, 6]
    assert "set spacing_zyx_mm to keep the old one" in caplog.text
    record = json.loads(trained.with_name("run.json").read_text())["pretrained"]
    assert record["parameters_loaded"] == record["parameters"]


def test_fine_tuning_from_published_weights(work: StageWork, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of nnU-Net 1 with 1 input and 105 outputs starts a network with 2 inputs and 1 output."""
    strides = [[1, 1, 1]] + [[2, 2, 2]] * 5
    published = STUNet(1, 105, **TABLE["stunet"].size("narrow"), strides=strides).state_dict()
    path = tmp_path / "base_ep4k.model"
    torch.save({"epoch": 4000, "state_dict": {f"module.{name}": tensor for name, tensor in published.items()}}, path)
    slow = replace(RECIPE, training=replace(RECIPE.training, learning_rate=1e-9, pretrained_channels="zero"))
    with caplog.at_level("INFO", logger="flrplan"):
        trained = train_fold(work, 1, slow, tmp_path / "models", CPU, architecture="stunet", pretrained=path)
    after = load_checkpoint(trained)["network_weights"]
    for name, tensor in published.items():
        if not name.startswith(
            ("seg_outputs.", "conv_blocks_context.0.0.conv1.weight", "conv_blocks_context.0.0.conv3.weight")
        ):
            assert torch.allclose(after[name], tensor, atol=1e-6), name
    first = "conv_blocks_context.0.0.conv1.weight"
    assert torch.allclose(after[first][:, :1], published[first], atol=1e-6)
    assert after[first][:, 1].abs().max() < 1e-6
    assert "skipped: seg_outputs.0.weight" in caplog.text
    assert "new heads: the file has 105 outputs, this network 1" in caplog.text
    assert "spread over 2 (zero)" in caplog.text
    record = json.loads(trained.with_name("run.json").read_text())["pretrained"]
    assert record["adapted"] == {
        name: "1 input channel(s) spread over 2 (zero)" for name in (first, first.replace("1.w", "3.w"))
    }
    [warning] = record["warnings"]
    assert "the published weights of stunet were trained at 1.5 mm, this plan has 8 x 6 x 6 mm" in warning
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "1.5 mm" in r.getMessage()] == [warning]


def test_a_fourth_architecture_as_the_page_shows_it(
    work: StageWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_ct: CT, small_truth: dict[Structure, Mask]
) -> None:
    """The two blocks of docs/networks.md, as they stand there: the class in a module, the row in the table."""
    module, row = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "networks.md").read_text(), re.DOTALL)
    assert len([line for block in (module, row) for line in block.splitlines() if line.strip()]) <= 20
    (tmp_path / "tiny.py").write_text(module)
    monkeypatch.setattr(flrplan.networks, "__path__", [*flrplan.networks.__path__, str(tmp_path)])
    names = dict(vars(table))
    exec(row, names)
    monkeypatch.setattr(table, "TABLE", {**table.TABLE, "tiny": names["TINY"]})
    folder = tmp_path / "models" / "flr" / "tiny"
    train_fold(work, 0, RECIPE, folder, CPU, architecture="tiny")
    predictor, _ = ModelStore(tmp_path / "models", demo=None).predictor(FLR, "tiny", CPU)
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, small_truth, FLR, predictor.folder.input)
    assert given.restore(predictor.predict(given)[FLR.target]).shape == small_ct.array_zyx.shape
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"'flrplan\.networks\.tiny\.TinyNet' as network_class_name"):
        ModelStore(tmp_path / "models", demo=None).predictor(FLR, "tiny", CPU)


def test_weights_of_another_architecture_are_refused(work: StageWork, tmp_path: Path) -> None:
    path = ModelStore(tmp_path).find(FLR, "nnunet").folder.checkpoint(0)
    with pytest.raises(ModelError, match=r"holds no weight of stunet: expected names like conv_blocks_context\.0\.0"):
        train_fold(work, 0, RECIPE, tmp_path / "models", CPU, architecture="stunet", pretrained=path)
    assert not (tmp_path / "models").exists()
