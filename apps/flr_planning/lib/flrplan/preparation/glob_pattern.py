"""Glob patterns with ``{case}`` in them, matched against paths relative to a folder."""

from __future__ import annotations

import re

from flrplan.errors import SettingsError
from flrplan.image.volume_file import IMAGE_SUFFIXES

_TOKENS = re.compile(r"\{[a-z]*\}|\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.")
_EXT = "(?:" + "|".join(re.escape(s) for s in IMAGE_SUFFIXES) + ")"


def compile_pattern(pattern: str, case_id: str) -> re.Pattern[str]:
    """A regular expression for whole relative paths with ``/``; upper and lower case are the same.

    ``*`` and ``?`` stay within a folder name, ``**/`` is any number of folders, ``[...]`` one of these characters.
    ``{case}`` is the case id, ``{number}`` its last digits (``CRLM-CT-1001``: 1001), neither as part of a longer one;
    ``{ext}`` is the ending of any image file.

    Raises: SettingsError for another name in braces, and for ``{number}`` with an id that does not end in digits.
    """
    number = _number(case_id, pattern) if "{number}" in pattern else ""
    return _compile(pattern, re.escape(case_id), number)


def compile_open_pattern(pattern: str) -> re.Pattern[str]:
    """The same for any case: the groups ``case`` and ``number``, where the pattern has them, are what stands in their place.

    Raises: SettingsError for another name in braces.
    """
    return _compile(pattern, r"(?P<case>[^\W_][^/\\]*)", r"(?P<number>\d+)")


def _compile(pattern: str, case: str, number: str) -> re.Pattern[str]:
    """``case``, ``number``: regular expressions; a named group that comes again must hold the same."""
    parts: list[str] = []
    for token in _TOKENS.findall(pattern):
        if token == "{case}":
            again = any("(?P<case>" in part for part in parts)
            parts.append(rf"(?<![0-9A-Za-z]){'(?P=case)' if again else case}(?!\d)")
        elif token == "{number}":
            again = any("(?P<number>" in part for part in parts)
            parts.append(rf"(?<!\d){'(?P=number)' if again else number}(?!\d)")
        elif token == "{ext}":
            parts.append(_EXT)
        elif token.startswith("{"):
            raise SettingsError(f"pattern {pattern!r}: unknown {token}; known are {{case}}, {{number}}, {{ext}}")
        elif token == "**/":
            parts.append("(?:.*/)?")
        elif token == "**":
            parts.append(".*")
        elif token in ("*", "?"):
            parts.append("[^/]*" if token == "*" else "[^/]")
        elif len(token) > 1:
            parts.append("[" + token[1:-1].replace("\\", "\\\\").replace("!", "^", 1 if token[1] == "!" else 0) + "]")
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts), re.IGNORECASE)


def _number(case_id: str, pattern: str) -> str:
    digits = re.search(r"\d+$", case_id)
    if digits is None:
        raise SettingsError(
            f"pattern {pattern!r}: {{number}} needs a case id that ends in digits, got {case_id!r}; use {{case}}"
        )
    return digits.group()
