"""Files that are either whole or absent: written beside their place, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flrplan.errors import OutputError


@contextmanager
def rename_into_place(path: Path) -> Iterator[Path]:
    """A path beside ``path``, with the same ending, that takes its place if the block succeeds and vanishes if not.

    Raises: OutputError where the folder cannot be written to.
    """
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"could not write {path}: {error}; check that the folder is writable and the disk has room"
        ) from error
    finally:
        part.unlink(missing_ok=True)
