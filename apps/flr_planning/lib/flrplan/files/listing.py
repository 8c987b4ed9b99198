"""What a folder holds for a user: everything but hidden files and what systems leave behind. Every folder is listed here."""

from __future__ import annotations

import os
from pathlib import Path

from flrplan.errors import ImageError

_JUNK_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir"})
"""Of Windows and macOS; a DICOMDIR lists the files of a medium and is no image."""

_JUNK_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
"""Of macOS's archives, Synology, Windows and Linux."""


def is_junk(path: Path) -> bool:
    """True for a hidden file or folder (``.name``; ``._name`` is macOS's), and for what a system leaves in folders."""
    name = path.name.lower()
    if name.startswith((".", "~$")) or name.endswith(":zone.identifier"):
        return True
    return name in _JUNK_FOLDERS or (name in _JUNK_FILES and not path.is_dir())


def not_utf8(path: str | os.PathLike[str]) -> str | None:
    """A path whose bytes are not UTF-8, such as one copied from an old system, or a text with one, in letters that are; None for every other.

    ITK ends the process at such a path, and no record can hold it.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return os.fspath(path).encode("utf-8", "backslashreplace").decode()
    return None


def readable(text: str | os.PathLike[str]) -> str:
    """A path or text in letters that every file, page and message can hold: as it is, or as :func:`not_utf8` shows it."""
    return not_utf8(text) or os.fspath(text)


def entries(folder: Path) -> list[Path]:
    """Files and folders of one folder, sorted, without junk. Raises ImageError where it cannot be read."""
    try:
        return sorted(p for p in folder.iterdir() if not is_junk(p))
    except FileNotFoundError:
        raise ImageError(f"{folder}: no such folder") from None
    except OSError as error:
        raise ImageError(f"{folder}: the folder cannot be read ({error.strerror or error}); check its permissions") from error


def files_below(folder: Path, hidden: bool = False) -> list[Path]:
    """Every file of a folder and its subfolders, sorted, without junk; links to folders are followed, each folder once.

    ``hidden``: hidden files and other junk as well, but not what lies in hidden folders. Links to nothing are among the files.
    Raises: ImageError naming a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise ImageError(
            f"{error.filename}: the folder cannot be read ({error.strerror}), so files may be missing; check its permissions"
        ) from error

    found: list[Path] = []
    seen: set[str] = set()
    for name, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here, real = Path(name), os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not is_junk(here / f)]
        found += [here / f for f in files if hidden or not is_junk(here / f)]
    return sorted(found)
