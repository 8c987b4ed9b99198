"""Settings: the paper's defaults, and errors that name what is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.method import STAGES, PlanSettings, Recipe, TrainingSettings
from flrplan.workfolder import Split, nnunet_split, read_split

REPOSITORY = Path(__file__).parents[2]


def test_defaults_are_the_papers() -> None:
    settings = TrainingSettings()
    assert (settings.epochs, settings.iterations_per_epoch, settings.validation_iterations) == (200, 250, 50)
    assert settings.mirror_axes == (0, 1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epoch": 3}}, "training: unknown epoch; known are epochs, .*seed, loss"),
        ({"trainings": {}}, "unknown trainings; known are input, plan, training"),
        ({"training": {"epochs": 0}}, "epochs must be at least 1, got 0"),
        ({"training": {"epochs": 2.5}}, "epochs must be a whole number"),
        ({"training": {"oversample_foreground": 7}}, "training: oversample_foreground must be at most 1, got 7"),
        ({"plan": {"batch_size": 0}}, "batch_size must be at least 1 or null, got 0"),
        ({"training": {"mirror_axes": [3]}}, "mirror_axes"),
        ({"plan": {"features": [8, 16], "patch_size_zyx": [15, 16, 16]}}, "must divide by 2"),
        ({"plan": {"features": [8, 16]}}, "features needs patch_size_zyx"),
        ({"plan": {"features": [8, 16], "patch_size_zyx": [16] * 3, "network_size": "narrow"}}, "leave network_size at base"),
        ({"plan": {"patch_size_zyx": [16, 16]}}, r"patch_size_zyx\[2\] must be given, got \[16, 16\]"),
        ({"training": {"schedule": "step"}}, "schedule must be one of poly, warmup_cosine or null, got 'step'"),
        ({"training": {"loss": "dice"}}, "loss must be one of bce, dice_bce, got 'dice'"),
        ({"training": {"loss": None}}, "loss must be one of bce, dice_bce, got None"),
        ({"training": {"pretrained_channels": "copy"}}, "pretrained_channels must be one of repeat, divide, zero"),
        ({"training": {"warmup_fraction": 1}}, "warmup_fraction must be below 1 or null, got 1"),
        ({"input": {"region_mode": "masked"}}, "region_mode must be 'mask', 'crop', 'mask_and_crop' or 'whole', got 'masked'"),
        ({"input": {"margin": 3}}, "input: unknown margin; known are region_mode, crop_margin_mm"),
        ({"input": {"crop_margin_mm": "10"}}, "crop_margin_mm must be a number, got '10'"),
        ({"input": {"outside_hu": float("nan")}}, "outside_hu must be a number, got nan"),
        ({"input": 5}, "input must be names with values, got 5"),
        ({"plan": {"spacing_zyx_mm": [8, 6]}}, r"spacing_zyx_mm\[2\] must be given, got \[8, 6\]"),
        ({"plan": {"spacing_zyx_mm": 8}}, "spacing_zyx_mm must be a list or null, got 8"),
        ({"plan": {"spacing_zyx_mm": [8, 6, 30]}}, r"spacing_zyx_mm\[2\] must be at most 20, got 30"),
        ({"plan": {"batch_size": 2.5}}, "batch_size must be a whole number or null, got 2.5"),
        ({"plan": {"batch_size": True}}, "batch_size must be a whole number or null, got True"),
        ({"plan": {"features": [4, 0], "patch_size_zyx": [16] * 3}}, r"features\[1\] must be at least 1, got 0"),
        (
            {"plan": {"features": [], "patch_size_zyx": [16] * 3}},
            r"features must be a list of at least 1 or null, got \[\]",
        ),
        ({"plan": {"features": 5}}, "features must be a list or null, got 5"),
        ({"plan": {"convs_decoder": 1.5}}, "convs_decoder must be a whole number, got 1.5"),
        ({"plan": {"network_size": None}}, "network_size must be a text, got None"),
        ({"plan": {"gpu_memory_gb": 0}}, "gpu_memory_gb must be above 0, got 0"),
        ({"training": {"seed": -1}}, "seed must be at least 0, got -1"),
        ({"training": {"seed": "a"}}, "seed must be a whole number, got 'a'"),
        ({"training": {"amsgrad": "no"}}, "amsgrad must be true or false or null, got 'no'"),
        ({"training": {"learning_rate": "fast"}}, "learning_rate must be a number or null, got 'fast'"),
        ({"training": {"oversample_foreground": None}}, "oversample_foreground must be a number, got None"),
        ({"training": {"mirror_axes": [0, 0]}}, r"mirror_axes must be among 0, 1, 2 \(z, y, x\), each once, got \[0, 0\]"),
        ({"training": {"compile": ["on"]}}, r"compile must be one of auto, on, off, got \['on'\]"),
        ({"training": {"workers": True}}, "workers must be auto or a whole number in 0..64, got True"),
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
    with pytest.raises(SettingsError, match=r"recipe\.yaml, stage liver: training: epochs"):
        Recipe.from_yaml(path, "liver")
    for number in ("1e-3", "1E-3", "1.0E-3", "1.e-3"):
        path.write_text(f"liver: {{training: {{learning_rate: {number}}}, input: {{crop_margin_mm: 1E1}}}}\n")
        recipe = Recipe.from_yaml(path, "liver")
        assert (recipe.training.learning_rate, recipe.input.crop_margin_mm) == (0.001, 10.0)
    for text, message in (
        ("livr: {}", r"expected blocks .*found \['livr'\]"),
        ("input: {region_channel: true}", r"found \['input'\]; indent input under 'common:' or the name of a stage"),
        ("[1]", "found list"),
        ("liver: 3", "found 3"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=message):
            Recipe.from_yaml(path, "liver")
    with pytest.raises(SettingsError, match="no such file; check the path"):
        Recipe.from_yaml(tmp_path / "none.yaml", "liver")


def test_later_blocks_go_over_earlier_ones_setting_by_setting(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("common: {training: {epochs: 3, seed: 5}}\ncrlm: {training: {epochs: 4}}\n")
    over = Recipe.from_yaml(path, "crlm", {"training": {"seed": 6}}, {"plan": {"spacing_zyx_mm": [2, 1, 1]}})
    assert over.training == TrainingSettings(epochs=4, seed=6)
    assert over.plan.spacing_zyx_mm == (2, 1, 1)
    assert Recipe.layered() == Recipe.from_mapping({})
    with pytest.raises(SettingsError, match="training: expected names with values, found 3"):
        Recipe.layered({"training": 3})


@pytest.mark.parametrize(
    "path",
    sorted(p for part in ("apps", "benchmark") for p in (REPOSITORY / part).rglob("*recipe.yaml")),
    ids=lambda path: path.name,
)
def test_recipes_of_the_repository(path: Path) -> None:
    for stage in STAGES:
        Recipe.from_yaml(path, stage)


def test_what_nnunet_or_the_architecture_decides_may_be_null() -> None:
    plan = dict.fromkeys(("spacing_zyx_mm", "patch_size_zyx", "batch_size", "features"))
    training = dict.fromkeys(("learning_rate", "weight_decay", "amsgrad", "schedule", "warmup_fraction"))
    assert Recipe.from_mapping({"plan": plan, "training": training}) == Recipe.from_mapping({})


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
    for folds in (1, 0, -1):
        with pytest.raises(SettingsError, match=f"at least 2 folds, got {folds}"):
            nnunet_split(["a", "b"], folds)
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
    for empty in ('{"test": ["a"], "folds": [["b"], []]}', '[{"train": [], "val": ["b"]}, {"train": ["b"], "val": []}]'):
        (tmp_path / "split.json").write_text(empty)
        with pytest.raises(SettingsError, match=r"split\.json: .*fold 1 \(counted from 0\) names no case"):
            read_split(tmp_path / "split.json")
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(SettingsError, match=r"split\.json: expected"):
        read_split(tmp_path / "split.json")


def test_nnunets_own_splits_are_taken_where_they_are_a_cross_validation(tmp_path: Path) -> None:
    split = Split((("a", "c"), ("b",), ("d",)))
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(split.nnunet_folds()))
    assert read_split(path) == split
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a", "c"]}]))
    with pytest.raises(SettingsError, match=r"splits_final\.json: .*fold 0 does not train on exactly the cases .*\(c\)"):
        read_split(path)
    path.write_text(json.dumps([{"train": ["a", "b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]))
    with pytest.raises(SettingsError, match="fold 0 does not train on exactly"):
        read_split(path)
    path.write_text('[["a"], ["b"]]')
    with pytest.raises(SettingsError, match="found a list, but not of nnU-Net's"):
        read_split(path)
    path.write_text('{"folds": [["a"], ["b"]], "held_out": ["c"]}')
    with pytest.raises(SettingsError, match="unknown keys held_out"):
        read_split(path)
    with pytest.raises(SettingsError, match="a pickle could run code and is not opened"):
        read_split(tmp_path / "splits_final.pkl")
