from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flrplan.errors import ImageError
from flrplan.image import case_name, case_names, find_cases, natural_key, read_ct
from flrplan.image.cases import safe_name


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


def test_a_link_to_nothing_is_a_case_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "b.nii.gz").symlink_to("gone.nii.gz")
    (tmp_path / "round.nii.gz").symlink_to("round.nii.gz")
    assert [path.name for path in find_cases([tmp_path])] == ["a.nii.gz", "b.nii.gz", "round.nii.gz"]
    with pytest.raises(ImageError, match=r"b\.nii\.gz: a link to a file that is not there; check the path"):
        read_ct(tmp_path / "b.nii.gz")


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


def names_of(*paths: Path) -> dict[str, str]:
    """Case names by path below the first common folder."""
    root = Path(os.path.commonpath(paths))
    return {p.relative_to(root).as_posix(): name for p, name in case_names(find_cases(list(paths))).items()}


def touch(*paths: Path) -> tuple[Path, ...]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_files_of_one_name_take_that_of_their_folder(tmp_path: Path) -> None:
    found = names_of(*touch(*(tmp_path / name for name in ("s0001/ct.nii.gz", "s0002/ct.nii.gz", "s0003/CT.nii.gz", "p7.nii"))))
    assert found == {"p7.nii": "p7", "s0001/ct.nii.gz": "s0001", "s0002/ct.nii.gz": "s0002", "s0003/CT.nii.gz": "s0003"}
    found = names_of(*touch(tmp_path / "a" / "s1" / "ct.nii.gz", tmp_path / "b" / "s1" / "ct.nii.gz"))
    assert found == {"a/s1/ct.nii.gz": "a_s1", "b/s1/ct.nii.gz": "b_s1"}
    assert names_of(*touch(tmp_path / "s0001" / "ct.nii.gz", tmp_path / "other.nii")) == {
        "s0001/ct.nii.gz": "ct",
        "other.nii": "other",
    }


@pytest.mark.parametrize("names", [("ct.nii", "ct.nrrd"), ("x/ct.nii", "x/CT.nii.gz"), ("x/ct.nii", "y/ct.nii", "x.nii")])
def test_two_cases_of_one_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ImageError, match=rf"two inputs are called '(ct|CT|x)'.*{tmp_path}.* and .*{tmp_path}.*; rename"):
        find_cases(list(touch(*(tmp_path / name for name in names))))


def test_a_dicom_case_is_called_after_its_patient(tmp_path: Path, write_slice: Callable[..., Path], hu: Any) -> None:
    def folder(name: str, patient: str | None, **tags: Any) -> Path:
        for z in range(2):
            write_slice(tmp_path / name / f"{z}.dcm", hu[z], z=z, PatientID=patient, **tags)
        return tmp_path / name

    one, two = folder("a/dcm", "CRLM-CT-1001"), folder("b/dcm", "1002/7 ..:x ")
    assert names_of(one, two) == {"a/dcm": "CRLM-CT-1001", "b/dcm": "1002_7_.._x"}
    blank = folder("c/dcm", "  "), folder("d/dcm", None), folder("e", "../..")
    assert names_of(*blank) == {"c/dcm": "c_dcm", "d/dcm": "d_dcm", "e": "e"}
    phases = folder("f/portal", "P1", SeriesInstanceUID="1.2.7"), folder("f/late", "P1", SeriesInstanceUID="1.2.8")
    assert names_of(*phases) == {"late": "P1_late", "portal": "P1_portal"}
    assert names_of(folder("g", "A/B"), folder("h", "A_B")) == {"g": "A_B_g", "h": "A_B_h"}  # two patients, one safe name
    assert names_of(folder("j", "con"), *touch(tmp_path / "P1.nii")) == {"j": "con_", "P1.nii": "P1"}


def test_a_chosen_series_gives_the_name(tmp_path: Path, write_slice: Callable[..., Path], hu: Any) -> None:
    for n, patient in enumerate(("A", "B")):
        for z in range(2):
            write_slice(tmp_path / f"{n}{z}.dcm", hu[z], z=z, PatientID=patient, SeriesInstanceUID=f"1.2.{n}")
    assert case_names([tmp_path], "1.2.1") == {tmp_path: "B"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P 1", "P_1"),
        ("Müller^Jörg", "Müller_Jörg"),
        ("..", ""),
        (" /\\ ", ""),
        ("-x", "x"),
        ("LPT1", "LPT1_"),
        ("a" * 90, "a" * 64),
    ],
)
def test_a_text_as_a_safe_name(text: str, expected: str) -> None:
    assert safe_name(text) == expected


def test_hidden_files_and_folders_are_no_cases(tmp_path: Path, write_series: Callable[..., Path]) -> None:
    write_series(tmp_path / "P1")
    write_series(tmp_path / "__MACOSX")
    write_series(tmp_path / ".Trash")
    (tmp_path / "._a.nii.gz").touch()
    assert find_cases([tmp_path]) == [tmp_path / "P1"]


def test_parts_of_one_series_in_two_folders_are_one_case(tmp_path: Path, hu: Any, write_slice: Callable[..., Path]) -> None:
    for z, plane in enumerate(hu):
        write_slice(tmp_path / f"S{z % 2}" / f"IM{z}", plane, z=2.5 * z, PatientID="P1")
    assert find_cases([tmp_path]) == [tmp_path]
    for z in range(2):
        write_slice(tmp_path / "T" / f"IM{z}", hu[z], z=z, SeriesInstanceUID="1.2.9")
    with pytest.raises(ImageError, match="S0, S1 hold slices of one series, so each would be planned as a part of its CT"):
        find_cases([tmp_path])


def test_a_seg_beside_the_ct_is_no_case(tmp_path: Path, hu: Any, write_series: Callable[..., Path], write_slice: Any) -> None:
    write_series(tmp_path / "P1" / "CT", PatientID="P1")
    write_slice(tmp_path / "P1" / "SEG" / "1.dcm", hu[0], Modality="SEG", PatientID="P1", SeriesInstanceUID="1.2.9")
    assert case_names(find_cases([tmp_path / "P1"])) == {tmp_path / "P1" / "CT": "P1"}
    assert find_cases([tmp_path / "P1" / "SEG"]) == [tmp_path / "P1" / "SEG"]  # asked for by name; reading it says what it is


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
