"""A mistake in what ``flrplan train`` is asked for is told before anything is prepared or trained."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch

from flrplan.cli import main
from flrplan.files import write_json
from flrplan.method import Recipe
from flrplan.networks import PAPER, STUNET, TABLE
from flrplan.networks.stunet import STUNet
from flrplan.nnunet.prepare.network_cost import weight_names

Refused = Callable[..., str]


@pytest.fixture
def refused(
    tiny_cohort: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Gives ``flrplan train`` of stage flr with these words and returns its error; nothing may be prepared."""
    write_json(tmp_path / "recipe.yaml", {"common": {"training": tiny_recipe().to_json()["training"]}})

    def run(*words: object) -> str:
        paths = ["--cases", tiny_cohort, "--work", tmp_path / "work", "--models", tmp_path / "models"]
        given = [
            "train",
            *paths,
            "--stage",
            "flr",
            "--folds",
            2,
            "--device",
            "cpu",
            "--recipe",
            tmp_path / "recipe.yaml",
            *words,
        ]
        assert main([str(word) for word in given]) == 1
        assert not (tmp_path / "work").exists()
        return capsys.readouterr().err

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Weights as those that the authors of STU-Net publish, of size small."""
    path = tmp_path / "small_ep4k.model"
    network = STUNet(1, 105, **STUNET.sizes["small"], strides=[(1, 1, 1)] + [(2, 2, 2)] * 5)
    torch.save({"state_dict": network.state_dict()}, path)
    return path


def test_a_fold_that_does_not_exist(refused: Refused) -> None:
    assert "fold 7 does not exist; this split has folds 0 to 1" in refused("--fold", 0, "--fold", 7)


def test_weights_of_another_size_or_architecture(refused: Refused, small: Path) -> None:
    error = refused("--architecture", "stunet", "--size", "narrow", "--pretrained", small)
    assert "small_ep4k.model does not fit this stunet: the network is to have size narrow; the file holds stunet small" in error
    error = refused("--architecture", "swinunetr", "--pretrained", small)
    assert "small_ep4k.model holds no weight of swinunetr: expected names like swinViT.patch_embed.proj.weight" in error
    assert "found conv_blocks_context.0.0.conv1.weight" in error


def test_names_tell_the_architectures_apart() -> None:
    names = [{n for n in weight_names(row) if not n.startswith(row.heads)} for row in TABLE.values()]
    assert all(a - b for a in names for b in names if a is not b)
    assert not any(a & b for a, b in combinations(names[: len(PAPER)], 2)), (
        "resenc has the decoder of nnunet, the others share nothing"
    )


def test_a_models_folder_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    assert f"could not lock {tmp_path}/afile/flr/nnunet: Not a directory" in refused("--models", tmp_path / "afile")
    (tmp_path / "models" / "flr").mkdir(parents=True)
    (tmp_path / "models" / "flr" / "nnunet").touch()
    assert f"{tmp_path}/models/flr/nnunet: expected a folder that can be written to; give another" in refused()


def test_a_work_folder_that_cannot_be_made(refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "afile").touch()
    message = f"{tmp_path}/afile/flr: cannot be made or written to (Not a directory); give another --work"
    assert message in refused("--work", tmp_path / "afile")
    write_json(tmp_path / "splits.json", {"test": [], "folds": [["a"], ["b"]]})
    many = ["train-many", "--training", "flr/nnunet/0", "--split", tmp_path / "splits.json", "--work", tmp_path / "afile"]
    assert main([str(word) for word in many]) == 1
    assert message in capsys.readouterr().err


def test_random_weights_for_an_architecture_that_the_paper_pretrains_are_said_unless_they_are_meant(refused: Refused) -> None:
    words = ("--architecture", "stunet", "--size", "narrow", "--fold", 7)
    assert "stunet: the paper starts from published weights; without --pretrained FILE this starts at random" in refused(*words)
    assert "starts at random" not in refused(*words, "--pretrained", "scratch")
