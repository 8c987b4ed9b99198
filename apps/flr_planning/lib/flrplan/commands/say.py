"""Where commands write to the user: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from io import StringIO

from flrplan.errors import OutputError
from flrplan.files import readable


def say(text: str = "") -> None:
    """One line of the command's result, on standard output. Raises: OutputError where it cannot be written."""
    if error := _write("stdout", text):
        raise OutputError(f"could not write to standard output: {error.strerror or error}; files that were written are whole")


def note(text: str) -> None:
    """One line about what is going on, on standard error; where that cannot be written there is nobody to tell, and the work goes on."""
    _write("stderr", text)


def _write(name: str, text: str) -> OSError | None:
    """Why it could not be written. A stream that was closed from the start is None."""
    stream = getattr(sys, name)
    try:
        if stream is not None:
            stream.write(f"{readable(text)}\n")
            stream.flush()
    except OSError as error:
        setattr(sys, name, StringIO())  # or Python flushes it as it ends, and fails once more
        return error
    return None
