"""A folder that can be written to, and one with versions, of which a pointer says which one counts.

The first version lies in the folder itself and has the number 0, later ones are ``versions/<number>``. The file ``current`` holds the
number that counts; without it that is 0. A version is never changed, so whoever reads one reads it whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile

from flrplan.errors import ModelError, OutputError
from flrplan.files.listing import not_utf8
from flrplan.files.text import read_text

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

POINTER_NAME = "current"
VERSIONS_NAME = "versions"
_alone: set[tuple[int, int]] = set()
"""Device and inode of the folders that this process is alone in."""
KEPT_VERSIONS = 3
"""So many of the newest stay, the current one among them, beside the first."""


def make_writable(folder: Path, advice: str) -> None:
    """Makes a folder, where it is not there, and tries to write into it.

    Raises: OutputError ending in ``advice``, which says what to do where it cannot be made or written to.
    """
    if shown := not_utf8(folder):
        raise OutputError(f"{shown}: its name is not UTF-8, so nothing can be written there; {advice}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made or written to ({error.strerror or error}); {advice}") from error
    from flrplan.files.write import sweep  # as in _point

    sweep(folder)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process or thread is within such a block of a folder, or writes there.

    Nothing is left there, and a killed process lets go of it. Nobody waits on Windows, on file systems that lock no folders, and for
    another machine that shares the folder, such as by NFS. A process that is started within the block, and waited for, must not write there.
    """
    with _locked(folder):
        this = _identity(folder)
        _alone.add(this)
        try:
            yield
        finally:
            _alone.discard(this)


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Within the block, :func:`nobody_writes_in` is not true of a folder. Waits while another process is alone in it."""
    with nullcontext() if _identity(folder) in _alone else _locked(folder, shared=True):
        yield


@contextmanager
def nobody_writes_in(folder: Path) -> Iterator[bool | None]:
    """Whether no process of this machine writes in a folder, without waiting; None where its file system cannot tell.

    Who wants to begin waits for the block.
    """
    with _locked(folder, wait=False) as locked:
        yield locked


@contextmanager
def _locked(folder: Path, shared: bool = False, wait: bool = True) -> Iterator[bool | None]:
    """Locks a folder; False where another has it and ``wait`` is not asked, None where folders cannot be locked."""
    descriptor, got = None, None
    if fcntl is not None:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            got = True
        except BlockingIOError:
            got = False
        except OSError:
            pass
    try:
        yield got
    finally:
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile has the descriptor as well
            os.close(descriptor)


def _identity(folder: Path) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def versions(folder: Path) -> list[int]:
    """Numbers of the versions that are there, ascending; none where the folder is not there."""
    later = sorted(int(path.name) for path in folder.glob(f"{VERSIONS_NAME}/*") if path.name.isdecimal())
    return [0, *later] if folder.is_dir() else []


def current_version(folder: Path) -> Path:
    """The version of a folder that counts, be the folder there or not. Raises: ModelError where its pointer names none that is there."""
    pointer = folder / POINTER_NAME
    if not pointer.is_file():
        return folder
    return _version(folder, read_text(pointer, ModelError).strip(), f"{pointer} names")


def use_version(folder: Path, number: str) -> Path:
    """Makes another version the current one, in one step. Raises: ModelError where it is not there, OutputError."""
    version = _version(folder, number, f"{folder}: you asked for")
    _point(folder, number)
    return version


def publish_version(new: Path, folder: Path) -> Path:
    """The folder ``new`` becomes the current version of ``folder``, in one step; both lie on one file system. Returns its new place.

    Whoever looks, and whatever instant the process is killed at, finds the version before or the new one. Of old ones
    :data:`KEPT_VERSIONS` stay. Only one process may do this at a time.
    Raises: OutputError where it cannot be put there, ModelError for a broken pointer; then the version before counts.
    """
    before, target = current_version(folder), folder
    numbers = versions(folder)
    if folder.exists() and not numbers:
        raise OutputError(f"could not put a new version into {folder}: it is a file, expected a folder; move it away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            target = folder / VERSIONS_NAME / str(numbers[-1] + 1)
            target.parent.mkdir(exist_ok=True)
        new.rename(target)
    except OSError as error:
        raise OutputError(
            f"could not put a new version into {folder}: {error.strerror or error}; the current one stays. Check that the folder is "
            "writable and on one file system"
        ) from error
    if target != folder:
        _point(folder, target.name)
    for number in numbers[1 : 1 - KEPT_VERSIONS]:
        if (old := target.with_name(str(number))) != before:
            shutil.rmtree(old, ignore_errors=True)
    return target


def _point(folder: Path, number: str) -> None:
    from flrplan.files.write import write_text  # with SimpleITK, which who only asks where a model lies does not need

    write_text(folder / POINTER_NAME, number)


def _version(folder: Path, number: str, who: str) -> Path:
    there = [str(n) for n in versions(folder)]
    if number not in there:
        raise ModelError(f"{who} version {number!r}, expected one of {', '.join(there) or 'none: nothing is there'}")
    return folder if number == "0" else folder / VERSIONS_NAME / number
