"""The clinical sheet: which row is whose, what is missing, and how a mistake in it is told."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flrplan.errors import SettingsError
from flrplan.evaluation import subgroups
from flrplan.preparation import PrepareSettings, SourceKind, find_tcia_cases, prepare
from flrplan.preparation.clinical import CLINICAL, read_clinical

HEAD = ["Patient-ID", "De-identify Scout Name", "age", "steatosis_yesno", "chemo_before_liver_resection", "bilobar_disease"]
ROWS: list[list[object]] = [
    ["CRLM-CT-1001", "CRLM-1", 61, 1, 0, -999],
    ["CRLM-CT-1002", "CRLM-2", 55, 0.0, "Yes", None],
    ["CRLM-CT-1999", "CRLM-3", 70, 1, 1, 1],
]
CASES = ["CRLM-CT-1001", "CRLM-CT-1002", "CRLM-CT-1003"]
KNOWN = {
    "CRLM-CT-1001": {"steatosis": "yes", "chemotherapy": "no", "bilobar": ""},
    "CRLM-CT-1002": {"steatosis": "no", "chemotherapy": "yes", "bilobar": ""},
}


def as_csv(path: Path, head: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def as_xlsx(path: Path, head: list[str], rows: list[list[object]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["Name", "Description"])  # a dictionary of the columns comes first
    book.active.append(["age", "years"])
    sheet = book.create_sheet("TCIA_n=197")
    for row in (head, *rows, [None] * len(head)):
        sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize(("write", "name"), [(as_csv, "c.csv"), (as_xlsx, "c.xlsx")])
def test_rows_are_found_by_id_and_all_that_does_not_fit_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, write: Callable[..., Path], name: str
) -> None:
    path = write(tmp_path / name, HEAD, ROWS)
    with caplog.at_level(logging.WARNING):
        assert read_clinical(path, CASES) == KNOWN
    assert f"{path}: no row for CRLM-CT-1003; what it says of them is not known" in caplog.text
    assert f"{path}: rows of no case here: CRLM-CT-1999" in caplog.text


def test_the_ids_may_stand_in_another_column_and_a_column_may_be_absent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = as_csv(tmp_path / "c.csv", ["n", "Scout Name", "Bilobar disease"], [[1, "CRLM-CT-1001", 1], [2, "CRLM-CT-1002", 0]])
    with caplog.at_level(logging.WARNING):
        assert read_clinical(path, CASES[:2]) == {CASES[0]: {"bilobar": "yes"}, CASES[1]: {"bilobar": "no"}}
    assert "no column steatosis_yesno, chemo_before_liver_resection; it stays blank" in caplog.text


@pytest.mark.parametrize(
    ("head", "rows", "said"),
    [
        (
            HEAD,
            [["CRLM-CT-1001", "a", 61, 2, 0, 0]],
            "CRLM-CT-1001, steatosis_yesno: expected 0, 1, yes, no or -999, found '2'",
        ),
        (HEAD, [*ROWS, ROWS[0]], "two rows of CRLM-CT-1001; remove one"),
        (HEAD, [["1001", "a", 61, 0, 0, 0]], "no column holds ids of the cases, such as CRLM-CT-1001; columns: patient_id"),
        (["Patient-ID", "age"], [["CRLM-CT-1001", 61]], "expected a column of steatosis_yesno, chemo_before_liver_resection"),
        ([], [], "expected a column of steatosis_yesno"),
    ],
)
def test_a_sheet_that_cannot_be_used(tmp_path: Path, head: list[str], rows: list[list[object]], said: str) -> None:
    path = as_csv(tmp_path / "c.csv", head, rows)
    with pytest.raises(SettingsError) as caught:
        read_clinical(path, CASES)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_damaged_or_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"expected the clinical sheet \(\.xlsx, or \.csv in UTF-8\), but it cannot be read"
    ):
        read_clinical(tmp_path / "none.csv", CASES)
    (tmp_path / "c.csv").write_bytes("Patient-ID,bilobar_disease\nJürgen,1\n".encode("utf-16"))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_clinical(tmp_path / "c.csv", CASES)
    pytest.importorskip("openpyxl")
    (tmp_path / "c.xlsx").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(SettingsError, match="expected a workbook, but it is damaged"):
        read_clinical(tmp_path / "c.xlsx", CASES)


def test_dataset_csv_has_it_keeps_it_and_a_bad_sheet_is_told_before_the_work(tree: Any, tmp_path: Path) -> None:
    tree.add("CRLM-CT-1001")
    root, out = tree.save(), tmp_path / "W"
    sheet = as_csv(tmp_path / "c.csv", HEAD, ROWS)

    def run(**settings: Any) -> dict[str, str]:
        prepare(find_tcia_cases(root), PrepareSettings(out, SourceKind.TCIA, progress=False, **settings))
        with (out / "dataset.csv").open() as file:
            return next(csv.DictReader(file))

    with pytest.raises(SettingsError, match="found '7'"):
        run(clinical=as_csv(tmp_path / "bad.csv", HEAD, [["CRLM-CT-1001", "a", 61, 7, 0, 0]]))
    assert not list((out / "images").glob("*"))
    assert [run()[name] for name in CLINICAL] == ["", "", ""]
    assert [run(clinical=sheet)[name] for name in CLINICAL] == ["yes", "no", ""]
    assert [run()[name] for name in CLINICAL] == ["yes", "no", ""], "what is known stays"
    assert subgroups.read_clinical(out, {"CRLM-CT-1001"}) == {
        "CRLM-CT-1001": {"steatosis": "yes", "chemotherapy": "no", "bilobar": "not known"}
    }


def test_names_that_are_written_twice_agree() -> None:
    assert tuple(CLINICAL) == subgroups.CLINICAL
