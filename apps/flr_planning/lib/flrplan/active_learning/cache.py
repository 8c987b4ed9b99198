"""Scores on disk. ``<image hash>-<part>-<key>.score`` is written once and never changed: another image, label or model has another name.

``index.score`` says which image a case is, and which models some files are, by sizes and times, so that nobody must read them to know. It is
a cache of the cache: without it, hashes are computed again. Files are not called ``.json``: a datastore reads its folder anew when such a one changes.
The first line of a file is the SHA-256 of its name and of the JSON beneath, so one that was changed, cut short or renamed is measured again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flrplan.active_learning.strategies import Part
from flrplan.errors import OutputError, SettingsError
from flrplan.files import make_writable, read_text, sha256_of_file, write_text
from flrplan.workfolder.cases import files_of

INDEX_NAME = "index.score"
ERROR = "error"
"""Key of a part that could not be measured, with the reason: it is not tried again for the same bytes."""
MEASURES = 1
"""Raised when :mod:`flrplan.active_learning.measure` or :mod:`predictions` gives other numbers for the same case."""

_LOG = logging.getLogger(__name__)


def image_digest(path: Path) -> str:
    """Hex SHA-256 of the content of an image, be it a file or a series. Raises OSError."""
    return key_of([sha256_of_file(file) for file in files_of(path)])


def key_of(content: Any) -> str:
    """A key of plain values."""
    return hashlib.sha256(json.dumps([MEASURES, content], sort_keys=True, default=str).encode()).hexdigest()[:32]


class ScoreCache:
    """The scores of a folder. Any number of processes read and write; what two note in the index at the same instant, one may have to note again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._parts: dict[Path, Mapping[str, Any]] = {}
        self._images: dict[str, list[str]] = {}
        self._models: dict[str, str] = {}
        self._take_index()

    def digest(self, case: str, stamp: str | None) -> str | None:
        """Hash of a case's image; None where it is not known, or its files are others by now. stamp: None where they are not at hand."""
        known = self._images.get(case)
        return known[1] if known and stamp in (None, known[0]) else None

    def note_image(self, case: str, stamp: str, digest: str) -> None:
        """Keeps the hash of a case's image; in memory alone where the index cannot be written."""
        self._note(self._images, case, [stamp, digest])

    def models_key(self, stamp: str) -> str | None:
        """Key of the models whose files have this stamp (:class:`flrplan.active_learning.voters.Voters`); None where nobody opened them yet."""
        return self._models.get(stamp)

    def note_models(self, stamp: str, key: str) -> None:
        """Keeps the key of models; in memory alone where the index cannot be written."""
        self._note(self._models, stamp, key)

    def _note(self, kept: dict[str, Any], name: str, value: Any) -> None:
        with self._lock:
            if kept.get(name) != value:
                self._take_index()  # what another server has noted since stays
                kept[name] = value
                try:
                    _write(self.folder / INDEX_NAME, {"images": self._images, "models": self._models})
                except OutputError as error:
                    _LOG.warning("%s", error)

    def _take_index(self) -> None:
        index = _read(self.folder / INDEX_NAME) or {"images": {}, "models": {}}
        for kept, there in ((self._images, index["images"]), (self._models, index["models"])):
            kept.update({name: value for name, value in there.items() if name not in kept})

    def read(self, digest: str, part: Part, key: str) -> Mapping[str, Any] | None:
        """A part of an image; None where it was not measured."""
        path = self._path(digest, part, key)
        if path not in self._parts:
            content = _read(path)
            if content is None:
                return None
            self._parts[path] = content
        return self._parts[path]

    def require_writable(self) -> None:
        """Asked before anything is measured, so that nothing is measured for nothing. Raises OutputError."""
        make_writable(self.folder, "scores are kept there, so give the server a studies folder that it can write to")

    def write(self, digest: str, part: Part, key: str, content: Mapping[str, Any]) -> None:
        """Keeps a part. Raises OutputError."""
        _write(self._path(digest, part, key), content)

    def _path(self, digest: str, part: Part, key: str) -> Path:
        return self.folder / f"{digest}-{part.value}-{key}.score"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, sort_keys=True, default=str)
    write_text(path, f"{_seal(path, text)}\n{text}\n")


def _read(path: Path) -> dict[str, Any] | None:
    """What was written there; None where nothing was, or it is something else by now, which is logged."""
    if not path.exists():
        return None
    try:
        seal, _, text = read_text(path).partition("\n")
    except SettingsError as error:
        _LOG.warning("made anew: %s", error)
        return None
    if seal != _seal(path, text.removesuffix("\n")):
        _LOG.warning("%s is not what was written (its SHA-256 is another): made anew", path)
        return None
    found: dict[str, Any] = json.loads(text)
    return found


def _seal(path: Path, text: str) -> str:
    return hashlib.sha256(f"{path.name}\n{text}".encode()).hexdigest()
