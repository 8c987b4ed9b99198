"""Settings that people write, in YAML, JSON or Python: frozen dataclasses that pydantic checks, once, where they come in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import field, fields, is_dataclass
from functools import wraps
from numbers import Real
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass

from flrplan.errors import SettingsError

T = TypeVar("T")

_NUMBER_IN_WORDS = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_UNKNOWN = "unexpected_keyword_argument"
_MUST_BE = {
    "int_type": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "path_type": "a path",
    "tuple_type": "a list",
    "dict_type": "names with values",
    "mapping_type": "names with values",
    "dataclass_type": "names with values",
    "missing": "given",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "enum": "{expected}",
    "value_error": "{error}",
}


def _number(value: Any, check: Callable[[Any], float]) -> Any:
    """8 stays 8, in records as well; YAML reads 1e-3 as a text."""
    if isinstance(value, str) and _NUMBER_IN_WORDS.fullmatch(value):
        value = float(value)
    check(value)
    return value


Whole = Annotated[int, Field(strict=True)]
"""An int, which a bool is not."""
Number = Annotated[float, WrapValidator(_number), Field(strict=True, allow_inf_nan=False)]
"""A finite float or an int; text only as YAML hands on 1e-3."""
Flag = Annotated[bool, Field(strict=True)]
EmptyBlock = BeforeValidator(lambda value: {} if value is None else value)
"""For blocks of settings: one that YAML leaves empty is one without settings."""


def require_number(name: str, value: object) -> float:
    """A number of a caller's own. Raises: SettingsError, by name, for a text, a truth value or what else is none."""
    if not isinstance(value, bool) and isinstance(value, Real):
        with suppress(OverflowError):  # of an int beyond all floats
            return float(value)
    raise SettingsError(f"{name}: expected a number, got {value!r:.80}")


def one_of(known: Iterable[object]) -> BeforeValidator:
    """The check of an ``Annotated[str, ...]`` that may be one of these texts, or of the values of an enum."""
    names = [str(getattr(name, "value", name)) for name in known]

    def check(value: Any) -> Any:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return value

    return BeforeValidator(check)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def checked(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass whose fields pydantic checks: lists are taken as tuples, texts as paths and enums, mappings as settings.

    What is made, by its constructor or :func:`settings_of`, raises SettingsError with a sentence of :func:`in_words`.
    """
    made: Any = dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))(cls)
    build = made.__init__

    @wraps(build)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            build(self, *args, **kwargs)
        except ValidationError as error:
            raise SettingsError(in_words(error, made)) from None

    made.__init__ = __init__
    return made  # type: ignore[no-any-return]


def settings_of(kind: type[T], values: Any, *where: str) -> T:
    """A :func:`checked` class, or a dict of them, from plain values; None is taken as no values. where: what messages begin with.

    Raises: SettingsError.
    """
    try:
        return TypeAdapter(kind).validate_python({} if values is None else values)
    except ValidationError as error:
        raise SettingsError(in_words(error, kind, *where)) from None


def in_words(error: ValidationError, kind: Any, *start: str) -> str:
    """One sentence for what is wrong first: where, what was expected or is known, what was found. kind: what was to be made."""
    found = error.errors(include_url=False)
    wrong = next((e for e in found if e["type"] == _UNKNOWN), found[0])
    where, owner, kind = _place(kind, wrong["loc"], start)
    if wrong["type"] == _UNKNOWN:
        return ": ".join([*where[:-1], f"unknown {where[-1]}; known are {', '.join(f.name for f in fields(owner))}"])
    context = wrong.get("ctx", {})
    if isinstance(reason := context.get("error"), SettingsError) or not where:
        return ": ".join([*where, str(reason or wrong["msg"])])
    words = _MUST_BE.get(wrong["type"])
    expected = words.format(**context) if words else wrong["msg"].removeprefix("Input should be ")
    null = " or null" if type(None) in get_args(kind) else ""
    return f"{': '.join(where)} must be {expected}{null}, got {wrong['input']!r:.200}"


def _place(kind: Any, loc: Iterable[int | str], start: Iterable[str]) -> tuple[list[str], Any, Any]:
    """The names on the way to a value, the last dataclass on it and the type there; without pydantic's names for keys and unions."""
    names, owner = [*start], None
    for part in loc:
        members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        inside = next((k for k in members if is_dataclass(k) or get_origin(k)), kind)
        origin = get_origin(inside)
        if part == "[key]":
            break
        if origin is tuple:
            names[-1] += f"[{part}]"
            kind = get_args(inside)[0]
        elif origin in (Mapping, dict):
            names.append(str(part))
            kind = get_args(inside)[-1]
        elif is_dataclass(inside):
            names.append(fields(inside)[part].name if isinstance(part, int) else part)
            owner, kind = inside, get_type_hints(inside).get(names[-1])
        else:
            break
    return names, owner, kind
