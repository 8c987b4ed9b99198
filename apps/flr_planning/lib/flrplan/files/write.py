"""Files that are either whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from flrplan.errors import OutputError
from flrplan.files.folder import nobody_writes_in, writing_in
from flrplan.files.listing import not_utf8

PART = ".part-"
"""How the name begins of a file that is being written; of a process that was killed it stays."""

_HOST = sha256(os.fsencode(platform.node())).hexdigest()[:8]
"""Whose part it is: where machines share a folder, such as by NFS, its lock is of each machine alone."""
_PART = re.compile(rf"{re.escape(PART)}(?:[0-9a-f]{{8}}){{1,2}}-.")
_LEFT_SECONDS = 24 * 3600.0
"""Of another machine, and where folders cannot be locked: a part that nobody has touched for so long was left by a process that was killed."""


def part_path(path: Path) -> Path:
    """A new name beside ``path``, for what takes its place once it is whole."""
    return path.with_name(f"{PART}{_HOST}{uuid4().hex[:8]}-{path.name}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` with the same ending; takes its place if the block succeeds, vanishes if not.

    Missing folders are made, and parts that killed processes left there are removed (:func:`sweep`), once by each process.
    Raises: OutputError for every OSError and for SimpleITK's RuntimeError: a full disk, no permission.
    """
    path = Path(path)
    if shown := not_utf8(path):
        raise OutputError(f"{shown} cannot be written: its name is not UTF-8; choose another name")
    part = part_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        with writing_in(path.parent):
            yield part
            _flush(part)
            part.replace(path)
        _flush(path.parent)
    except OutputError:
        raise
    except (OSError, RuntimeError) as error:
        if path.is_dir():
            raise OutputError(f"could not write {path}: a folder is in its place; delete or rename it") from error
        reason = getattr(error, "strerror", None) or " ".join(str(error).strip().splitlines()[-1:]) or type(error).__name__
        raise OutputError(
            f"could not write {path}: {reason}; check that the disk has room and the folder is writable"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def part_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder beside ``path``, to be renamed once it is whole; what remains of it at the end of the block is removed.

    Of a process that is killed :func:`sweep` removes it. Raises: OSError.
    """
    part = part_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    with writing_in(path.parent):
        part.mkdir()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """``new`` (beside it) is from now on what lies at ``path``; the folder there before goes only then. Raises: OSError, with the old one in place."""
    old = part_path(path)
    there = path.is_dir()
    if there:
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if there:
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def link(source: Path, path: Path) -> None:
    """A second name for a file, in one step; a copy where the file system has no hard links. Raises: OutputError."""
    with replacing(path) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text; a byte of a path that is not UTF-8 as an escape, which JSON reads back as it was.

    Raises: OutputError; then the old file, if there was one, is untouched.
    """
    with replacing(Path(path)) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, obj: Any) -> None:
    """Writes an object as JSON; NaN and infinity become null, numpy values, paths and enums plain ones.

    Raises: OutputError as :func:`write_text`; TypeError for an object that JSON cannot hold.
    """
    write_text(path, json.dumps(_plain(obj), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def sweep(folder: Path) -> None:
    """Removes the files and folders that killed processes left half written in a folder, where no process writes in it now.

    What another machine wrote, and where folders cannot be locked, goes once it is a day old.
    """
    with suppress(OSError):
        parts = [path for path in folder.iterdir() if _PART.match(path.name) and not path.is_symlink()]
        if not parts:
            return
        with nobody_writes_in(folder) as certain:  # who begins meanwhile is not among the parts
            for part in [] if certain is False else parts:
                with suppress(OSError):
                    if (certain and part.name.startswith(PART + _HOST)) or _is_old(part):
                        shutil.rmtree(part) if part.is_dir() else part.unlink()


_sweep_once = lru_cache(1024)(sweep)


def _is_old(part: Path) -> bool:
    state = part.stat()
    return time.time() - max(state.st_mtime, state.st_ctime) > _LEFT_SECONDS  # a link has the times of what it links


def _flush(path: Path) -> None:
    if os.name == "nt":
        return  # Windows flushes no folder, and no file that is open for reading
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
