"""A folder takes another's place whole; room is asked for before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flrplan.errors import OutputError
from flrplan.files import folder as folder_module
from flrplan.files import replace_folder, require_room


def make(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "a.txt").write_text(text)
    return path


@pytest.mark.parametrize("in_one_step", [True, False])
def test_the_new_folder_replaces_the_old_one(tmp_path: Path, in_one_step: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_one_step:
        monkeypatch.setattr(folder_module, "exchange", lambda first, second: False)
    target = make(tmp_path / "fold_0", "old")
    (target / "left over").write_text("")
    replace_folder(make(tmp_path / ".new", "new"), target)
    assert [p.name for p in tmp_path.iterdir()] == ["fold_0"]
    assert [p.read_text() for p in target.iterdir()] == ["new"]


def test_where_nothing_was(tmp_path: Path) -> None:
    replace_folder(make(tmp_path / ".new", "new"), tmp_path / "models" / "fold_0")
    assert (tmp_path / "models" / "fold_0" / "a.txt").read_text() == "new"


def test_what_cannot_be_renamed_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "exchange", lambda first, second: False)
    target = make(tmp_path / "fold_0", "old")
    with pytest.raises(OutputError, match=r"could not replace .*fold_0: No such file"):
        replace_folder(tmp_path / "none", target)
    assert (target / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["fold_0"]


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = shutil._ntuple_diskusage(100_000_000_000, 97_500_000_000, 2_500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    require_room(tmp_path / "not there yet" / "deeper", 2_000_000_000, "a copy")
    with pytest.raises(OutputError, match=r"work: preprocessing needs about 21 GB, but only 2.5 GB are free"):
        require_room(tmp_path / "work", 21_000_000_000, "preprocessing")
