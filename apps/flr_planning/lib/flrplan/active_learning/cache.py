"""Scores on disk. ``<image hash>-<part>-<key>.score`` (JSON) is written once and never changed: another image, label or model has another name.

``index.score`` says which image a case is, and which models some files are, by sizes and times, so that nobody must read them to know. It is
a cache of the cache: without it, hashes are computed again. Files are not called ``.json``: a datastore reads its folder anew when such a one changes.
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
from flrplan.errors import SettingsError
from flrplan.files import read_json, sha256_of_file, write_json
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
    """The scores of a folder. One process writes parts, one writes the index; any number read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._parts: dict[Path, Mapping[str, Any]] = {}
        try:
            content = read_json(folder / INDEX_NAME, "an index of scores") if (folder / INDEX_NAME).is_file() else {}
            self._images: dict[str, list[str]] = {str(c): [str(s) for s in e] for c, e in content.get("images", {}).items()}
            self._models: dict[str, str] = {str(s): str(k) for s, k in content.get("models", {}).items()}
        except (SettingsError, AttributeError, TypeError) as error:
            _LOG.warning("%s is made anew: %s", folder / INDEX_NAME, error)
            self._images, self._models = {}, {}

    def digest(self, case: str, stamp: str | None) -> str | None:
        """Hash of a case's image; None where it is not known, or its files are others by now. stamp: None where they are not at hand."""
        known = self._images.get(case)
        return known[1] if known and len(known) == 2 and stamp in (None, known[0]) else None

    def note_image(self, case: str, stamp: str, digest: str) -> None:
        """Keeps the hash of a case's image. Raises OutputError."""
        self._note(self._images, case, [stamp, digest])

    def models_key(self, stamp: str) -> str | None:
        """Key of the models whose files have this stamp (:class:`flrplan.active_learning.voters.Voters`); None where nobody opened them yet."""
        return self._models.get(stamp)

    def note_models(self, stamp: str, key: str) -> None:
        """Keeps the key of models. Raises OutputError."""
        self._note(self._models, stamp, key)

    def _note(self, kept: dict[str, Any], name: str, value: Any) -> None:
        with self._lock:
            if kept.get(name) != value:
                kept[name] = value
                write_json(self.folder / INDEX_NAME, {"images": self._images, "models": self._models})

    def read(self, digest: str, part: Part, key: str) -> Mapping[str, Any] | None:
        """A part of an image; None where it was not measured."""
        path = self._path(digest, part, key)
        if path not in self._parts:
            if not path.is_file():
                return None
            try:
                content = read_json(path, "a score")
            except SettingsError as error:
                _LOG.warning("measured again: %s", error)
                return None
            if not isinstance(content, Mapping):
                return None
            self._parts[path] = content
        return self._parts[path]

    def write(self, digest: str, part: Part, key: str, content: Mapping[str, Any]) -> None:
        """Keeps a part. Raises OutputError."""
        write_json(self._path(digest, part, key), content)

    def _path(self, digest: str, part: Part, key: str) -> Path:
        return self.folder / f"{digest}-{part.value}-{key}.score"
