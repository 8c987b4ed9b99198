"""Where commands write to the user: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from typing import TextIO

from flrplan.files import readable


def say(text: str = "") -> None:
    """One line of the command's result, on standard output."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """One line about what is going on, on standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    stream.write(f"{readable(text)}\n")
    stream.flush()
