"""Checksums of files, and what tells without reading them that they changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flrplan.files.listing import files_below


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of the bytes of a file. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(path: Path) -> str:
    """Changes when a file, or one of a folder's, is written, replaced, added or taken away; none is read.

    By names, sizes and times, among them that of the last change which the system notes itself: a file of the same size whose own time was copied
    along has another stamp. So has a copy of the file, and the file itself once it is renamed, linked or given other rights: the same stamp says that
    nothing changed, another one that the content must be looked at. Raises: OSError where there is no file, ImageError for a folder that cannot be read.
    """
    files = files_below(path) if path.is_dir() else [path]
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    content = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]
