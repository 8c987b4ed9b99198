"""Variants by ``flrplan train-many``: each has arrays, plan, training state, model folder and record of its own kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flrplan.cli import main
from flrplan.files import write_json
from flrplan.image import read_label_map, write_label_map

YAML = """
variants:
  another_seed: {architecture: nnunet, training: {seed: 1}}
  apart: {architecture: nnunet, labels: other, plan: {spacing_zyx_mm: [10, 8, 8]}, training: {loss: dice_bce}}
"""
RECIPE = """
common:
  plan: {batch_size: 2, features: [4, 8], spacing_zyx_mm: [8, 6, 6], patch_size_zyx: [16, 24, 24], resampling: torch}
  training: {epochs: 1, iterations_per_epoch: 2, validation_iterations: 1, mirror_axes: []}
"""
NAMES = ("another_seed", "apart")


@pytest.fixture(scope="module")
def root(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both variants of stage liver, trained by one command; ``other`` holds labels of the same CTs, each with one more voxel of liver."""
    root = tmp_path_factory.mktemp("variants")
    shutil.copytree(tiny_cohort, root / "cohort")
    shutil.copytree(tiny_cohort / "labels", root / "other" / "labels")
    for path in (root / "other" / "labels").iterdir():
        label, geometry = read_label_map(path)
        label[0, 0, 0] = 1
        write_label_map(path, label, geometry)
    (root / "b.yaml").write_text(YAML)
    (root / "recipe.yaml").write_text(RECIPE)
    ids = sorted(p.name.removesuffix(".nii.gz") for p in (root / "cohort" / "images").iterdir())
    write_json(root / "splits.json", {"test": [], "folds": [ids[:2], ids[2:]]})
    assert main(command(root, *NAMES)) == 0
    return root


def command(root: Path, *names: str) -> list[str]:
    trainings = [word for name in names for word in ("--training", f"liver/{name}/0")]
    places = ["--split", root / "splits.json", "--work", root / "work", "--models", root / "models"]
    given = ["--cases", root / "cohort", "--recipe", root / "recipe.yaml", "--device", "cpu"]
    return [str(w) for w in ["train-many", *trainings, *places, "--variants", root / "b.yaml", "--", *given]]


def test_each_has_a_model_folder_and_a_record_of_what_it_is(root: Path) -> None:
    seed, apart = (json.loads((root / "models" / "liver" / name / "fold_0" / "run.json").read_text()) for name in NAMES)
    assert (seed["architecture"], apart["architecture"]) == ("nnunet", "nnunet")
    assert seed["variant"] == {"architecture": "nnunet", "training": {"seed": 1}}
    assert apart["variant"]["labels"] == "other"
    assert [run["recipe"]["training"]["seed"] for run in (seed, apart)] == [1, 0]
    assert [run["recipe"]["training"]["loss"] for run in (seed, apart)] == ["bce", "dice_bce"]
    assert [run["resolved"]["spacing_zyx_mm"] for run in (seed, apart)] == [[8, 6, 6], [10, 8, 8]]
    assert seed["data_sha256"] != apart["data_sha256"], "trained on other labels"


def test_arrays_are_shared_where_they_agree_and_states_never(root: Path) -> None:
    own, others = sorted((root / "work").rglob("prepared.json"), key=lambda path: len(path.parts))
    assert own.parent == root / "work" / "liver", "as an architecture without a variant"
    assert others.parents[1].parent == root / "work"
    voxels = [sum(json.loads(path.read_text())["target_voxels"]["liver"].values()) for path in (own, others)]
    assert voxels[1] == voxels[0] + 4, "a voxel more in each of four cases"
    states = {p.parents[1].name for p in (root / "work").rglob("training_state.pth")}
    assert states == {f"FlrTrainer__nnUNetPlans_{name}__3d_fullres" for name in NAMES}
    plans = json.loads((root / "models" / "liver" / "another_seed" / "plans.json").read_text())
    assert plans["flrplan"]["architecture"] == "nnunet"


def test_a_variant_that_was_changed_is_not_taken_for_trained(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(root, "another_seed")) == 0
    assert "liver/another_seed/0 (1 of 1): trained before" in capsys.readouterr().err
    (root / "b.yaml").write_text(YAML.replace("seed: 1", "seed: 2"))
    status = main(command(root, "another_seed"))
    (root / "b.yaml").write_text(YAML)
    assert status == 1
    assert "another_seed/fold_0: the model there was made of something else (variant.training.seed was 1, is 2)" in (
        capsys.readouterr().err
    )


def test_a_case_without_the_other_label(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost = next((root / "other" / "labels").iterdir())
    moved = lost.rename(tmp_path / lost.name)
    words = command(root, "apart")
    words[words.index("--models") + 1] = str(tmp_path / "models")
    status = main(words)
    moved.rename(lost)
    assert status == 1
    assert f"{root}/other: expected labels/<case>.nii.gz or masks/<case>/<structure>.nii.gz of every case; 1 have none: " in (
        capsys.readouterr().err
    )


def test_a_name_that_no_variant_has(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(root, "another")) == 1
    assert "another_seed, apart, got 'liver/another/0'" in capsys.readouterr().err
    words = [
        "train",
        "--cases",
        str(root / "cohort"),
        "--stage",
        "liver",
        "--work",
        str(root / "w"),
        "--architecture",
        "another",
    ]
    assert main(words) == 1
    assert "--architecture: unknown 'another'; known are nnunet, swinunetr, stunet" in (error := capsys.readouterr().err)
    assert "variants need --variants FILE" in error
