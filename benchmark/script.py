"""What the measuring scripts share: an error of ours is one line, and numbers are checked where they come in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from flrplan.errors import FlrError


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number, so large at least."""

    def of(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more, got {text!r}")
        return int(text)

    return of


def run_script(main: Callable[[], int | None]) -> None:
    """Runs a script and ends the process: with what it returns, 1 after an error that is told on standard error, 130 after Ctrl-C."""
    try:
        status = main() or 0
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        status = 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        status = 130
    raise SystemExit(status)
