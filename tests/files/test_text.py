"""Recipes, splits, layouts, benchmarks and tables as Windows saves them, empty, doubled, or not text at all: every reader of them."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

import pytest

from flrplan.errors import FlrError
from flrplan.files import read_json, read_table, read_text, read_yaml
from flrplan.method import Recipe
from flrplan.nnunet.model.model_folder import read_json_object
from flrplan.preparation import read_layout
from flrplan.preparation.draw import read_strata
from flrplan.preparation.tcia import read_series_table
from flrplan.workflow import read_benchmark
from flrplan.workfolder import read_record, read_split

READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "split": (read_split, '{"test": ["é1"], "folds": [["a"], ["b"]]}'),
    "recipe": (lambda path: Recipe.from_yaml(path, "liver"), "# é\ncommon:\n  training: {epochs: 3}\n"),
    "layout": (read_layout, "structures:\n  liver: ['é/{case}.nii.gz']\n"),
    "benchmark": (read_benchmark, "# é\narchitectures: [nnunet]\nstages: [liver]\n"),
    "strata": (read_strata, "case,tumours,slice_spacing_mm\né1,3,2.5\n"),
    "tcia": (read_series_table, "Subject ID,Modality,File Location\né1,CT,./a/b\n"),
    "model": (read_json_object, '{"labels": {"é": 1}}'),
    "run record": (read_record, '{"train_ids": ["é"]}'),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_takes_a_mark_and_names_what_is_not_utf_8(name: str, tmp_path: Path) -> None:
    read, text = READERS[name]
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    expected = read(path)
    windows = text.replace("\n", "\r\n")
    for content in (
        codecs.BOM_UTF8 + text.encode(),
        windows.encode("utf-16"),
        codecs.BOM_UTF16_BE + windows.encode("utf-16-be"),
        windows.encode("utf-32"),
    ):
        path.write_bytes(content)
        assert read(path) == expected
    for content in (text.encode("cp1252"), text.encode("utf-16-le"), b"\x1f\x8b\x08\x00\xff"):
        path.write_bytes(content)
        with pytest.raises(FlrError, match=f"{path} is not UTF-8; save it as UTF-8"):
            read(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FlrError, match=f"{tmp_path / 'folder'} is a folder, expected a file"):
        read(tmp_path / "folder")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("liver: {}\ncommon: {}\nliver: {}\n", r"line 3: the key 'liver' occurs twice"),
        ("common:\n  training: {epochs: 2, epochs: 3}\n", r"line 2: the key 'epochs' occurs twice"),
        ("common:\n\ttraining: {}\n", r"line 2: it is indented with a tab; use spaces"),
        ("a: [", r"line 1: expected"),
        ("[" * 5000, r"expected a recipe, but it cannot be read"),
    ],
)
def test_yaml_that_a_reader_would_guess_at(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(FlrError, match=message):
        read_yaml(path, "a recipe")


def test_yaml_merges_are_no_doubles_and_an_empty_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, x: 2}\n")
    assert read_yaml(path, "anything") == {"a": {"x": 1}, "b": {"x": 2}}
    path.write_text("")
    assert read_yaml(path, "anything") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"test": ["a"], "test": []}', "the key 'test' occurs twice"),
        ("", "it is empty"),
        ('{"a": ', "expected a split, but it cannot be read: Expecting value"),
        ("[" * 100000, "cannot be read: maximum recursion"),
    ],
)
def test_json_that_a_reader_would_guess_at(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(FlrError, match=message):
        read_json(path, "a split")


def test_tables_as_spreadsheets_save_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for apart in ",;\t":
        path.write_text(f' case {apart}tumours\r\na{apart}"3"\r\n\r\nb\r\n', newline="")
        assert read_table(path) == [{"case": "a", "tumours": "3"}, {"case": "b", "tumours": ""}]
    path.write_text("case,case\na,b\n")
    with pytest.raises(FlrError, match="the column 'case' occurs twice"):
        read_table(path)
    path.write_text("")
    assert read_table(path) == []


def test_old_macintosh_line_ends(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"a\rb\r\nc\n")
    assert read_text(tmp_path / "t") == "a\nb\nc\n"
