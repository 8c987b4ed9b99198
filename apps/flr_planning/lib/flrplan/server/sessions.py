"""MONAI Label's sessions (an image that a client uploads once and infers on often), kept inside their folder."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from monailabel.utils.sessions import Sessions

from flrplan.errors import ImageError
from flrplan.server.client_error import errors_for_client

MOST_UNPACKED = 8 * 2**30
"""Bytes that one archive may hold."""


class PlanningSessions(Sessions):  # type: ignore[misc]  # monailabel is untyped
    """The host's sessions, but for these points of 0.8.5: a session id was joined to the folder as it came, so ``../x`` was read
    and even removed; and a tar archive could write anywhere.
    """

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """The session of an id, or None. Raises ClientError for an id that leads out of the folder."""
        with errors_for_client():
            if os.path.basename(session_id) != session_id or session_id in (".", "..") or re.search(r"[\\\x00]", session_id):
                raise ImageError(f"{session_id!r:.80} is no session; PUT /session/ gives the id of one")
        return super().get_session(session_id, update_ts, fetch_cache)

    def add_session(self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: Any = None) -> Any:
        """Moves an upload into a session of its own. Raises ClientError where it is no file, or an archive that cannot be opened."""
        with errors_for_client():
            if not Path(data_file).exists():
                raise ImageError("no file was sent; send the image as the form's field files")
            if uncompress:
                data_file = _unpacked(Path(data_file))
        return super().add_session(data_file, expiry, False, session_id)


def _unpacked(archive: Path) -> str:
    """A new folder with what the archive holds; nothing is written beside it. Raises ImageError."""
    folder = tempfile.mkdtemp()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _require_size(sum(member.file_size for member in packed.infolist()), archive)
                packed.extractall(folder)  # takes out drives and .. itself
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as packed:
                _require_size(sum(member.size for member in packed.getmembers()), archive)
                for member in packed.getmembers():
                    _unpack(packed, member, Path(folder).resolve())
        else:
            raise ImageError(
                f"{archive.name} is neither a zip nor a tar archive; send it without uncompress, or as one of these"
            )
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ImageError(
            str(error) if isinstance(error, ImageError) else f"{archive.name} cannot be unpacked: {error}"
        ) from error
    return folder


def _unpack(packed: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Writes a file or makes a folder. By hand, since tarfile's own filter came with Python 3.11.4, and Debian 12 has 3.11.2. Raises ValueError."""
    path = (folder / member.name).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"{member.name!r} is outside the destination")
    content = packed.extractfile(member) if member.isreg() else None
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file)
    elif member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    else:
        raise ValueError(f"{member.name!r} is a link or a device; expected files and folders alone")


def _require_size(size: int, archive: Path) -> None:
    if size > MOST_UNPACKED:
        raise ImageError(
            f"{archive.name} holds {size / 2**30:.1f} GiB, more than the {MOST_UNPACKED / 2**30:.0f} that are taken"
        )
