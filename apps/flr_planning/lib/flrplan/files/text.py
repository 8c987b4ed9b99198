"""Text that a person wrote or saved: recipes, splits, layouts, tables. One way to read it, one sentence for what is wrong with it.

UTF-8, or UTF-16 and UTF-32 with the byte order mark that Windows writes. A name that occurs twice in one place is an error: YAML and
JSON readers would silently take the last.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from flrplan.errors import FlrError, SettingsError

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_text(path: Path, error: type[FlrError] = SettingsError) -> str:
    """The text of a file, without a byte order mark; its lines end with a newline alone.

    error: what is raised where the file is missing, a folder, not to be read, or neither UTF-8 nor marked as UTF-16 or UTF-32.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise error(f"{path} is a folder, expected a file; give the file in it") from None
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror or reason}") from reason
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # no text holds it; UTF-16 without a mark does in every second place
        raise error(f"{path} is not UTF-8; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plain_cell(text: str) -> str:
    """A text for a cell of a table: one that a spreadsheet would compute begins with an apostrophe."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def read_yaml(path: Path, what: str, error: type[FlrError] = SettingsError) -> Any:
    """The plain values of a YAML file; None for an empty one.

    what: words for what was expected, for messages. Raises ``error`` as :func:`read_text` and for what is not YAML or doubled.
    """
    text = read_text(path, error)
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as reason:
        raise error(f"{path}: expected {what}, but it cannot be read: {_yaml_reason(reason, text)}") from reason


def read_json(path: Path, what: str, error: type[FlrError] = SettingsError, finite: bool = False) -> Any:
    """The plain values of a JSON file.

    what: words for what was expected, for messages. finite: NaN and infinity, which Python reads though JSON has none, are refused.
    Raises ``error`` as :func:`read_text` and for what is not JSON or doubled.
    """
    text = read_text(path, error)
    try:
        number = _finite if finite else None
        return json.loads(text, object_pairs_hook=_once, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError) as reason:
        found = "it is empty" if not text.strip() else str(reason) or type(reason).__name__
        raise error(f"{path}: expected {what}, but it cannot be read: {found}") from reason


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"it holds {text}, expected finite numbers")
    return value


def read_table(path: Path, error: type[FlrError] = SettingsError) -> list[dict[str, str]]:
    """The lines of a table with a head; cells are apart by commas, or by semicolons or tabs as spreadsheets save them.

    Cells and names are stripped; a cell that is not there is "". Raises ``error`` as :func:`read_text` and for a broken table.
    """
    text = read_text(path, error)
    head = text.lstrip("\n").partition("\n")[0]
    apart = max(",;\t", key=head.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=apart))
    except csv.Error as reason:
        raise error(f"{path}: expected a table (CSV), but it cannot be read: {reason}") from reason
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    names = [name.strip() for name in lines[0]] if lines else []
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise error(f"{path}: the column {twice[0]!r} occurs twice; delete or rename one of them")
    return [dict(zip(names, [*(c.strip() for c in line), *[""] * len(names)], strict=False)) for line in lines[1:]]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key that occurs twice in one mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} occurs twice; delete one of them", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _yaml_reason(reason: Exception, text: str) -> str:
    mark = getattr(reason, "problem_mark", None)
    if mark is None:
        return " ".join(str(reason).split()) or type(reason).__name__
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    tab = "\t" in line[: len(line) - len(line.lstrip())]
    problem = "it is indented with a tab; use spaces" if tab else getattr(reason, "problem", None) or str(reason)
    return f"line {mark.line + 1}: {problem}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object; delete one of them")
    return found
