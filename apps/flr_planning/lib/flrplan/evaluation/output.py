"""The folder of results, tried before hours of scoring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from flrplan.errors import OutputError


@contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Makes a folder and tries to write into it, before hours of work; if the block fails, what it made and left empty is removed.

    Raises: OutputError where it cannot be made or written to.
    """
    made: list[Path] = []
    try:
        try:
            made += [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be made or written to ({error.strerror or error}); give another folder with --out"
            ) from error
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise
