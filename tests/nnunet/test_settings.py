"""Settings: the paper's defaults, and errors that name what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.nnunet.settings import PlanSettings, Recipe, TrainingSettings
from flrplan.splits import Split, nnunet_split, read_split


def test_defaults_are_the_papers() -> None:
    settings = TrainingSettings()
    assert (settings.epochs, settings.iterations_per_epoch, settings.validation_iterations) == (200, 250, 50)
    assert settings.mirror_axes == (0, 1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epoch": 3}}, r"unknown TrainingSettings \['epoch'\]; known are .*epochs"),
        ({"trainings": {}}, "unknown parts of a recipe"),
        ({"training": {"epochs": 0}}, "epochs must be a whole number, at least 1"),
        ({"training": {"epochs": 2.5}}, "epochs must be a whole number"),
        ({"training": {"oversample_foreground": 7}}, "oversample_foreground in"),
        ({"plan": {"batch_size": 0}}, "batch_size and convs_decoder"),
        ({"training": {"mirror_axes": [3]}}, "mirror_axes"),
        ({"plan": {"features": [8, 16], "patch_size_zyx": [15, 16, 16]}}, "must divide by 2"),
        ({"plan": {"features": [8, 16]}}, "features needs patch_size_zyx"),
        ({"plan": {"features": [8, 16], "patch_size_zyx": [16] * 3, "network_size": "narrow"}}, "leave network_size at base"),
        ({"plan": {"patch_size_zyx": [16, 16]}}, "three numbers of voxels"),
        ({"training": {"schedule": "step"}}, "schedule must be one of poly, warmup_cosine, got 'step'"),
        ({"training": {"pretrained_channels": "copy"}}, "pretrained_channels must be one of repeat, divide, zero"),
        ({"training": {"warmup_fraction": 1}}, "warmup_fraction must lie in"),
        ({"input": {"region_mode": "masked"}}, "region_mode must be one of mask, crop, mask_and_crop"),
        ({"input": {"margin": 3}}, "unknown input settings"),
    ],
)
def test_bad_recipes(values: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Recipe.from_mapping(values)


def test_yaml_merges_common_and_stage(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("common: {training: {epochs: 3, seed: 5}}\ncrlm: {training: {epochs: 4}}\n")
    assert Recipe.from_yaml(path, "crlm").training == TrainingSettings(epochs=4, seed=5)
    assert Recipe.from_yaml(path, "liver").training == TrainingSettings(epochs=3, seed=5)
    assert Recipe.from_yaml(path, "liver").plan == PlanSettings()
    path.write_text("liver: {training: {epochs: 0}}\n")
    with pytest.raises(SettingsError, match=r"recipe\.yaml, stage liver: epochs"):
        Recipe.from_yaml(path, "liver")
    path.write_text("liver: {training: {learning_rate: 1e-3}}\n")
    assert Recipe.from_yaml(path, "liver").training.learning_rate == 0.001
    for text, message in (("livr: {}", r"expected blocks .*found \['livr'\]"), ("[1]", "found list"), ("liver: 3", "found 3")):
        path.write_text(text)
        with pytest.raises(SettingsError, match=message):
            Recipe.from_yaml(path, "liver")
    with pytest.raises(SettingsError, match="cannot be read"):
        Recipe.from_yaml(tmp_path / "none.yaml", "liver")


def test_nnunet_draw_over_157_cases() -> None:
    split = nnunet_split([f"CRLM-CT-{1001 + i}" for i in range(157)])
    assert [len(f) for f in split.folds] == [32, 32, 31, 31, 31]
    assert len(set(split.train_ids(0)) | set(split.validation_ids(0))) == 157
    assert not set(split.train_ids(0)) & set(split.validation_ids(0))


def test_held_out_ids_never_train() -> None:
    split = nnunet_split([f"c{i:02d}" for i in range(12)], folds=2, test=["c03", "c07"])
    assert split.test == ("c03", "c07")
    for fold in range(2):
        assert not {"c03", "c07"} & {*split.train_ids(fold), *split.validation_ids(fold)}


def test_bad_splits(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="occur twice"):
        Split((("a", "b"), ("b",)))
    with pytest.raises(SettingsError, match="occur twice"):
        Split((("a",), ("b",)), test=("a",))
    with pytest.raises(SettingsError, match="5 folds need at least 5 cases"):
        nnunet_split(["a", "b"])
    with pytest.raises(SettingsError, match="fold 2 does not exist"):
        Split((("a",), ("b",))).train_ids(2)
    with pytest.raises(SettingsError) as caught:
        Split((("a",), tuple(f"b{i}" for i in range(12)))).require_cover(["a", "c"], "s.json", "W")
    assert "s.json does not fit the cases of W:\n  1 cases are not in the split: c\n" in str(caught.value)
    assert "12 ids of the split are not among the cases: b0, b1, b10, b11, b2, b3, b4, b5, b6, b7, b8, b9\n" in str(
        caught.value
    )
    assert "draw one (benchmark/draw_split.py)" in str(caught.value)
    for folds, held in (((), "no folds"), ((("a",),), "one fold")):
        with pytest.raises(SettingsError, match=f"s.json has {held}, so it can evaluate but not train; .* at least 2 folds"):
            Split(folds, ("t",)).require_training("s.json")
    Split((("a",), ("b",))).require_training()
    (tmp_path / "split.json").write_text('{"folds": ["ab", "cd"]}')
    with pytest.raises(SettingsError, match="expected a list of case ids, found 'ab'"):
        read_split(tmp_path / "split.json")
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(SettingsError, match=r"split\.json: expected"):
        read_split(tmp_path / "split.json")
