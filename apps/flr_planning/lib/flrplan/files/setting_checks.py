"""Checks of settings that people write in YAML or Python, against the types and bounds that their dataclass declares."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from flrplan.errors import SettingsError

_NUMBER_IN_WORDS = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_SAID = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
_SAID_MANY = {int: "whole numbers", float: "numbers"}


def with_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with numbers such as 1e-3 or 1E-3, which YAML reads as a text, as numbers."""
    return {
        name: float(value) if isinstance(value, str) and _NUMBER_IN_WORDS.fullmatch(value) else value
        for name, value in values.items()
    }


def require_types(settings: Any) -> None:
    """Takes lists as tuples, then raises SettingsError unless each field of a frozen dataclass has its declared type.

    Known are bool, int, float (finite; also an int), str, enums, tuples of numbers, and unions of them.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(settings, name, value)
        if not _is(value, kind):
            raise SettingsError(f"{name} must be {_said(kind)}, got {value!r}")


def take_paths(settings: Any) -> None:
    """Takes text as a path in those fields of a frozen dataclass that are declared to be one, and may not be text as well."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, str) and "Path" in str(field.type) and "str" not in str(field.type):
            object.__setattr__(settings, field.name, Path(value))


def require_bounds(settings: Any, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Raises SettingsError where a number, or one of a tuple, lies outside its inclusive bounds; None lies inside."""
    for name, (least, most) in bounds.items():
        value = getattr(settings, name)
        numbers = () if value is None else value if isinstance(value, tuple) else (value,)
        if not all(least <= number <= most for number in numbers):
            wanted = f"be at least {least:g}" if most == math.inf else f"lie in {least:g}..{most:g}"
            raise SettingsError(f"{name} must {wanted}, got {value}")


def _is(value: Any, kind: Any) -> bool:
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        many = parts[1:] == (...,)
        return isinstance(value, tuple) and (many or len(value) == len(parts)) and all(_is(v, parts[0]) for v in value)
    if parts:
        return any(_is(value, part) for part in parts)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _said(kind: Any) -> str:
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        return f"{'a list of' if parts[1:] == (...,) else len(parts)} {_SAID_MANY[parts[0]]}"
    if parts:
        return " or ".join(map(_said, parts))
    return " or ".join(str(member.value) for member in kind) if issubclass(kind, Enum) else _SAID[kind]


def check_whole_number(name: str, value: object, low: int, high: int) -> int:
    """The value, once it is known to be an int within ``low..high``. Raises: SettingsError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"{name} must be a whole number in {low}..{high}, got {value!r}")
    return value


def check_share(name: str, value: object) -> float:
    """The value as a float, once it is known to be a number within 0..1. Raises: SettingsError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SettingsError(f"{name} must be a share of the cases in 0..1, got {value!r}")
    return float(value)
