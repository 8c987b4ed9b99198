"""What differs between two records is told by name, and a record of another form is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flrplan.errors import SettingsError
from flrplan.workfolder import read_record, require_same, write_record


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"a": {"b": 2, "c": 1}}, {"a": {"b": 4, "c": 1}}, "a.b was 2, is 4"),
        ({"cases": ["c1", "c2"]}, {"cases": ["c2", "c3"]}, "cases: without c1; cases: new c3"),
        ({"norm": ["ct", "none"]}, {"norm": ["ct", "none", "none"]}, "norm was ['ct', 'none'], is ['ct', 'none', 'none']"),
        ({"norm": ["ct", "none"]}, {"norm": ["none", "ct"]}, "norm was ['ct', 'none'], is ['none', 'ct']"),
        ({}, {"variant": "x"}, "variant was None, is 'x'"),
        ({"n": [1, 2]}, {"n": (2, 1)}, "n was [1, 2], is [2, 1]"),
    ],
)
def test_what_differs_is_named(before: dict[str, Any], now: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        require_same(before, now, "W: what is there", "delete it")
    assert str(raised.value) == f"W: what is there was made of something else ({said}); delete it"


def test_the_same_in_another_form_is_the_same() -> None:
    before = {"ids": ["a", "b"], "size": [1, 2], "absent": None, "path": "x"}
    require_same(before, {"ids": ["a", "b"], "size": (1, 2), "path": Path("x")}, "W", "delete it")


def test_a_record_has_the_version_of_its_form(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert read_record(path) == {}
    write_record(path, {"a": 1})
    assert read_record(path)["a"] == 1
    path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(SettingsError, match="expected form 1, found 99"):
        read_record(path)
    path.write_text("[]")
    with pytest.raises(SettingsError, match="is damaged: expected a JSON object"):
        read_record(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_record_with_a_number_that_is_none_is_damaged(tmp_path: Path, number: str) -> None:
    """What is written has null in its place, so somebody else wrote it; an interval that was computed from it would end at NaN."""
    path = tmp_path / "calibration.json"
    path.write_text(f'{{"true_flr_ml": [1.5, {number}]}}')
    with pytest.raises(SettingsError, match=rf"calibration.json is damaged: .*it holds {number}, expected finite numbers"):
        read_record(path)
    path.write_text('{"true_flr_ml": [1.5, -2e3, 7]}')
    assert read_record(path) == {"true_flr_ml": [1.5, -2000.0, 7]}
