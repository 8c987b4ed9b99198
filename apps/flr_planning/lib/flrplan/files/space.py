"""Whether a disk has room, asked before hours of work rather than after."""

from __future__ import annotations

import shutil
from pathlib import Path

from flrplan.errors import OutputError


def require_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises OutputError naming the folder, what is needed and what is free, unless ``needed_bytes`` fit there.

    ``folder`` need not exist yet; then the nearest one above it is asked.
    """
    there = next(f for f in (folder, *folder.absolute().parents) if f.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise OutputError(
            f"{folder}: {what} needs about {size(needed_bytes)}, but only {size(free)} are free on that disk; make room, or "
            "choose a folder on another disk"
        )


def size(count: int) -> str:
    """Bytes in words: ``1.4 GB``, ``12 MB``, ``800 kB``."""
    for unit, one in (("GB", 1e9), ("MB", 1e6)):
        if count >= one:
            return f"{count / one:.1f} {unit}" if count < 10 * one else f"{count / one:.0f} {unit}"
    return f"{count / 1e3:.0f} kB"
