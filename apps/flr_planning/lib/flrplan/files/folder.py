"""A folder that takes another's place whole, so that whoever looks finds the old one or the new one."""

from __future__ import annotations

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from flrplan.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""From Linux's ``renameat2(2)``."""


def make_writable(folder: Path, advice: str) -> None:
    """Makes a folder, where it is not there, and tries to write into it.

    Raises: OutputError ending in ``advice``, which says what to do where it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made or written to ({error.strerror or error}); {advice}") from error


def replace_folder(beside: Path, target: Path) -> None:
    """``beside`` takes the place of ``target``, which is removed; both lie on one file system.

    On Linux the two change places in one step, so a kill at any moment leaves one of them whole at ``target``. Where the
    system cannot do that, two renames follow each other; if the second fails, what was there is put back.
    Raises: OutputError where it cannot be renamed; then the old folder is in its place.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            beside.rename(target)
        elif exchange(beside, target):
            shutil.rmtree(beside, ignore_errors=True)
        else:
            _rename_twice(beside, target)
    except OSError as error:
        raise OutputError(
            f"could not replace {target}: {error.strerror or error}; check that the folder is writable and on one file system"
        ) from error


def exchange(first: Path, second: Path) -> bool:
    """Swaps two paths in one step; False, and nothing is moved, where system or file system cannot or one is not there."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)


def _rename_twice(beside: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        beside.rename(target)
    except OSError:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
