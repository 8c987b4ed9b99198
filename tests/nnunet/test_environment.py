"""nnU-Net's own listing of files and ours agree; ours forks nothing."""

from __future__ import annotations

import multiprocessing.context
from pathlib import Path

import pytest
from nnunetv2.utilities import utils

from flrplan.nnunet.environment import files_listed_in_process


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "imagesTr").mkdir()
    for name in ("b_0000", "a_0001", "a_0000", "a_1_0000", "a.b_0000"):
        (tmp_path / "imagesTr" / f"{name}.nii.gz").touch()
    (tmp_path / "imagesTr" / "a_0000.txt").touch()
    return tmp_path


def test_the_same_files_as_nnunet_without_a_process(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {"file_ending": ".nii.gz"}
    theirs = utils.get_filenames_of_train_images_and_targets(str(raw), described)
    assert [Path(p).name for p in theirs["a"]["images"]] == ["a_0000.nii.gz", "a_0001.nii.gz"]

    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "_Popen", staticmethod(refuse))
    with files_listed_in_process():
        ours = utils.get_filenames_of_train_images_and_targets(str(raw), described)
    assert ours == theirs
