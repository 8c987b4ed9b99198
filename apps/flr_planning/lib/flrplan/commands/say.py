"""Where commands write to the user: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys


def say(text: str = "") -> None:
    """One line of the command's result, on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line about what is going on, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
