"""A temporary folder of the server's own: only its user reads it, and it is emptied at the start, at the end, and of what is old."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flrplan.errors import OutputError

logger = logging.getLogger(__name__)

KEPT_SECONDS = 2 * 3600.0
"""The oldest file of a request; MONAI Label leaves some behind. A client that waits for its turn has sent its image long before."""
_SWEEP_SECONDS = 600.0


@contextmanager
def private_temp(name: str) -> Iterator[Path]:
    """While the block runs, ``tempfile`` makes files in a folder of this name (one server each), mode 0700, which is gone afterwards.

    Processes that are started in the block have a folder beside it (``TMPDIR``): a training may need its files for days.
    What a server that was killed left there is removed first. Raises: OutputError where the folder is another user's.
    """
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    folder = Path(tempfile.gettempdir(), f"flrplan-{name}")
    _own(folder)
    _empty(folder, 0)
    requests, tasks = folder / "requests", folder / "tasks"
    for part in (requests, tasks):
        part.mkdir(mode=0o700)
    tempfile.tempdir, os.environ["TMPDIR"] = str(requests), str(tasks)
    ended = threading.Event()
    threading.Thread(target=_sweep, args=(requests, ended), name="private_temp", daemon=True).start()
    try:
        yield requests
    finally:
        ended.set()
        tempfile.tempdir = before[0]
        os.environ.pop("TMPDIR")
        if before[1] is not None:
            os.environ["TMPDIR"] = before[1]
        shutil.rmtree(folder, ignore_errors=True)


def _own(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise OutputError(
            f"cannot make the temporary folder {folder}: {error.strerror}; set TMPDIR to a folder that you can write to"
        ) from error
    if folder.is_symlink() or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise OutputError(
            f"the temporary folder {folder} belongs to somebody else; have it removed, or set TMPDIR to a folder of your own"
        )
    folder.chmod(0o700)


def _sweep(folder: Path, ended: threading.Event) -> None:
    while not ended.wait(_SWEEP_SECONDS):
        _empty(folder, KEPT_SECONDS)


def _empty(folder: Path, older_than_seconds: float) -> None:
    """Removes what has not changed for so long."""
    for path in folder.iterdir():
        try:
            if time.time() - path.lstat().st_mtime < older_than_seconds:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            logger.warning("%s was not removed: %s", path, error)
