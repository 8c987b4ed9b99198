"""Settings that people write: what is taken as what, and the one sentence for what is wrong."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from flrplan.errors import SettingsError
from flrplan.files.checked import EmptyBlock, Flag, Number, Whole, checked, one_of, settings_of


class Mode(str, Enum):
    FAST = "fast"
    EXACT = "exact"


@checked
class Part:
    margin_mm: Annotated[Number, Field(ge=0, lt=10)] = 1.5
    spacing: tuple[Number, Number, Number] | None = None
    mode: Annotated[str, one_of(Mode)] = Mode.FAST.value

    def __post_init__(self) -> None:
        if self.margin_mm == 3:
            raise SettingsError("a margin of 3 needs a spacing")


@checked
class Settings:
    cases: Annotated[Whole, Field(ge=1)] = 3
    mode: Mode = Mode.FAST
    folder: Path | None = None
    start: Path | str | None = None
    flag: Flag = True
    part: Annotated[Part, EmptyBlock] = field(default_factory=Part)
    parts: Mapping[Mode, Part] = field(default_factory=dict)


def test_plain_values_become_what_is_declared() -> None:
    made = settings_of(
        Settings,
        {"folder": "a/b", "mode": "exact", "part": {"margin_mm": 8, "spacing": [1, "1e-3", 2.5]}, "parts": {"fast": {}}},
    )
    assert made == Settings(folder=Path("a/b"), mode=Mode.EXACT, part=Part(8, (1, 0.001, 2.5)), parts={Mode.FAST: Part()})
    assert repr(asdict(made.part)["margin_mm"]) == "8", "records say what was said"
    assert settings_of(Settings, None) == settings_of(Settings, {"part": None}) == Settings()


def test_arguments_by_position_are_named() -> None:
    with pytest.raises(SettingsError, match=r"^cases must be a whole number, got 'a'$"):
        Settings("a")  # type: ignore[arg-type]


def test_they_are_frozen_dataclasses_in_every_other_way() -> None:
    part = Part(2, (1, 1, 1))
    assert hash(part) == hash(Part(2.0, (1, 1, 1)))
    assert replace(part, margin_mm=4) == Part(4, (1, 1, 1))
    assert pickle.loads(pickle.dumps(part)) == part
    with pytest.raises(AttributeError):
        part.margin_mm = 3.0  # type: ignore[misc]
    with pytest.raises(SettingsError, match=r"^margin_mm must be at least 0, got -1$"):
        replace(part, margin_mm=-1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"case": 1}, "x: unknown case; known are cases, mode, folder, start, flag, part, parts"),
        ({"cases": True}, "x: cases must be a whole number, got True"),
        ({"cases": 0}, "x: cases must be at least 1, got 0"),
        ({"cases": "1e3"}, "x: cases must be a whole number, got '1e3'"),
        ({"mode": "slow"}, "x: mode must be 'fast' or 'exact', got 'slow'"),
        ({"folder": 3}, "x: folder must be a path or null, got 3"),
        ({"start": 3}, "x: start must be a path or null, got 3"),
        ({"flag": 1}, "x: flag must be true or false, got 1"),
        ({"part": 5}, "x: part must be names with values, got 5"),
        ({"part": {"margin": 5, "spacing": 1}}, "x: part: unknown margin; known are margin_mm, spacing, mode"),
        ({"part": {"margin_mm": float("nan")}}, "x: part: margin_mm must be a number, got nan"),
        ({"part": {"margin_mm": "1"}}, "x: part: margin_mm must be a number, got '1'"),
        ({"part": {"spacing": [1, 2]}}, "x: part: spacing[2] must be given, got [1, 2]"),
        ({"part": {"spacing": [1, "b", 3]}}, "x: part: spacing[1] must be a number, got 'b'"),
        ({"part": {"mode": None}}, "x: part: mode must be one of fast, exact, got None"),
        ({"part": {"margin_mm": 3}}, "x: part: a margin of 3 needs a spacing"),
        ({"parts": {"slow": {}}}, "x: parts: slow must be 'fast' or 'exact', got 'slow'"),
        ({"parts": {"fast": {"margin": 5}}}, "x: parts: fast: unknown margin; known are margin_mm, spacing, mode"),
        ([1], "x must be names with values, got [1]"),
    ],
)
def test_one_sentence_says_where_what_was_expected_and_what_was_found(values: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(Settings, values, "x")
    assert str(caught.value) == said
