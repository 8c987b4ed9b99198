"""The folder of results, tried before hours of scoring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flrplan.files import make_writable


@contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Makes a folder and tries to write into it, before hours of work; if the block fails, what it made and left empty is removed.

    Raises: OutputError where it cannot be made or written to.
    """
    made: list[Path] = []
    try:
        with suppress(OSError):  # a name that is too long, which is told below
            made += [path for path in (folder, *folder.parents) if not path.exists()]
        make_writable(folder, "give another folder with --out")
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
