from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flrplan.errors import ImageError
from flrplan.io import case_name, find_cases, natural_key


@pytest.mark.parametrize(
    ("name", "expected"), [("a.b.nii.gz", "a.b"), ("a.nii", "a"), ("A.NII.GZ", "A"), ("x.nrrd", "x"), ("liver01", "liver01")]
)
def test_case_name(name: str, expected: str) -> None:
    assert case_name(Path("folder") / name) == expected


def test_case_name_of_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert case_name(Path()) == tmp_path.name


def test_a_folder_of_files_in_natural_order(tmp_path: Path) -> None:
    for name in ("case_10.nii.gz", "case_2.nii", "case_1.mha", "notes.txt", ".hidden.nii", "case_3.raw"):
        (tmp_path / name).touch()
    assert [p.name for p in find_cases([tmp_path])] == ["case_1.mha", "case_2.nii", "case_10.nii.gz"]


def test_any_two_names_have_an_order() -> None:
    names = ["b", "P1-2", "y²", "a1", "P10", "P1", "p1", "P2", "10", "9", "y", "٣"]
    assert sorted(names, key=natural_key) == ["a1", "b", "P1", "p1", "P1-2", "P2", "P10", "y", "y²", "٣", "9", "10"]


def test_a_folder_of_dicom_folders(tmp_path: Path, write_series: Callable[..., Path]) -> None:
    write_series(tmp_path / "P10" / "study" / "series")
    write_series(tmp_path / "P9")
    (tmp_path / "empty").mkdir()
    assert find_cases([tmp_path]) == [tmp_path / "P9", tmp_path / "P10"]
    assert find_cases([tmp_path / "P9"]) == [tmp_path / "P9"]


def test_all_files_of_a_dicom_folder_are_one_case(tmp_path: Path, write_series: Callable[..., Path]) -> None:
    folder = write_series(tmp_path / "P1")
    assert find_cases([*folder.iterdir(), folder]) == [folder]


def test_the_same_input_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nii").touch()
    monkeypatch.chdir(tmp_path)
    assert len(find_cases([Path("a.nii"), tmp_path / "a.nii", tmp_path])) == 1


def test_two_cases_of_one_name(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ct.nii.gz").touch()
    with pytest.raises(ImageError, match=rf"two inputs are called 'ct'.*x{os.sep}ct.nii.gz and .*y{os.sep}ct.nii.gz; rename"):
        find_cases([tmp_path / "x", tmp_path / "y"])


def test_inputs_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for inputs, message in (
        ([], "no input given"),
        ([tmp_path], "no CT in this folder"),
        ([tmp_path / "no"], "no such file or folder"),
        ([tmp_path / "notes.txt"], "neither an image nor a DICOM file"),
    ):
        with pytest.raises(ImageError, match=message):
            find_cases(inputs)
