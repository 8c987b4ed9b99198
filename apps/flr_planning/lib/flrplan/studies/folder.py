"""The files of a studies folder: images, labels by tag, and beside each label the record of what it is.

``<case>.nii.gz``; ``labels/<tag>/<case>.nii.gz`` and its record ``labels/<tag>/<case>.json``. Tags are MONAI Label's ``final`` and
``original``, and the ``version_N`` of 3D Slicer's MONAILabelReviewer. A label that another one replaces becomes the next ``version_N``;
one that is deleted goes to ``labels/.removed/``. ``labels/.images/<case>.json`` is what is known of an image.

A label and its record are two files, so a save has an order that a kill at any instant leaves readable: the new label is written beside
the old one; the old pair becomes a version, which is taken back where the save ends here; the new record is written as
``.next-<case>.json`` with the checksum of the new label; the label takes its place in one rename, by which the save has happened; then its
record does. A ``.next`` record counts if the label has its checksum, else the save never was.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flrplan.errors import FlrError, ImageError, LabelError, OutputError
from flrplan.files import is_junk, link, read_json, replacing, sha256_of_file, write_json
from flrplan.studies.names import (
    IMAGE_ENDINGS,
    LABEL_ENDINGS,
    ORIGINAL,
    VERSION,
    check_id,
    check_tag,
    is_id,
    is_tag,
    next_version,
    split_name,
    tag_order,
    version_number,
)
from flrplan.studies.stored import StoredImage, StoredLabel, check_info

logger = logging.getLogger(__name__)

SCHEMA = 1
LOCK_SECONDS = 60.0
_NEXT, _PART = ".next-", ".part-"


class StudiesFolder:
    """A studies folder on the disk. Every change is made under a lock that other processes respect; readers need none.

    endings: of images. read_only: nothing is ever written.
    """

    def __init__(self, root: Path, endings: Sequence[str] = IMAGE_ENDINGS, read_only: bool = False) -> None:
        self.root = Path(root)
        self.labels = self.root / "labels"
        self._endings = tuple(endings)
        self._images = self.labels / ".images"
        self._removed = self.labels / ".removed"
        self._read_only, self._recovered = read_only, False
        self._thread_lock = threading.RLock()
        self._file_lock = FileLock(self.root / ".lock", timeout=LOCK_SECONDS, thread_local=False)
        self._records: dict[Path, tuple[tuple[int, int], dict[str, Any] | None]] = {}
        self._told: set[str] = set()

    # Reading

    def scan(self) -> dict[str, StoredImage]:
        """All images with their labels, by id, sorted. Nothing here raises for one file.

        No images are: hidden and empty files, folders, links that lead out, and files whose name can be no id.
        """
        found: dict[str, StoredImage] = {}
        for name in self._files_of(self.root):
            parts = split_name(name, self._endings)
            if parts is None or name.lower().endswith(".seg.nrrd"):
                continue
            image_id, ending = parts
            path = self.root / name
            if not is_id(image_id):
                self._tell(f"{path} is left out: its name can be no id of an image; rename it, such as case-1{ending.lower()}")
                continue
            info = self.image_info(image_id)
            if not _has_bytes(path):
                self._tell(f"{path} is empty, so it is no image; copy it again")
            elif image_id in found and info.get("name") != name:
                self._tell(f"{path} is left out: {found[image_id].path.name} has the same id")
            else:
                found[image_id] = StoredImage(path, ending, info)
        for tag in self.tags():
            for image_id, label in self._labels_of_tag(tag).items():
                if image_id in found:
                    found[image_id].labels[tag] = label
                else:
                    self._tell(f"{label.path} is left out: there is no image {image_id}")
        return found

    def tags(self) -> list[str]:
        """The tags that have a folder, in :func:`tag_order`."""
        if not self.labels.is_dir():
            return []
        return sorted((p.name for p in self.labels.iterdir() if p.is_dir() and not is_junk(p)), key=tag_order)

    def label(self, image_id: str, tag: str) -> StoredLabel | None:
        """The label of an image under a tag: the file that its record names, else the newest one."""
        folder = self.labels / tag
        files = [folder / (image_id + e) for e in LABEL_ENDINGS]
        names = [p.name for p in files if p.is_file() and self._is_inside(p)]
        if not names:  # CASE.NII.GZ
            names = [n for n in self._files_of(folder) if (split_name(n) or ("",))[0] == image_id]
        return self._label(tag, image_id, names, (folder / f"{_NEXT}{image_id}.json").is_file())

    def labels_of(self, image_id: str) -> dict[str, StoredLabel]:
        """All labels of an image by tag, in :func:`tag_order`."""
        found = {tag: self.label(image_id, tag) for tag in self.tags()}
        return {tag: label for tag, label in found.items() if label is not None}

    def require_label(self, image_id: str, tag: str) -> StoredLabel:
        """As :meth:`label`. Raises: LabelError naming the labels that there are."""
        label = self.label(check_id(image_id), check_tag(tag))
        if label is None:
            there = ", ".join(self.labels_of(image_id)) or "none"
            raise LabelError(f"image {image_id} has no label {tag!r}; its labels are: {there}")
        return label

    def is_same_label(self, label: StoredLabel, source: Path, info: Mapping[str, Any]) -> bool:
        """True where a file holds the very bytes of a stored label, with the same names."""
        if label.path.stat().st_size != source.stat().st_size or label.info.get("label_info") != info.get("label_info"):
            return False
        return sha256_of_file(label.path) == sha256_of_file(source)

    def image_info(self, image_id: str) -> dict[str, Any]:
        """What is kept of an image; empty where nothing is."""
        record = self._record(self._images / f"{image_id}.json")
        return dict(record["info"]) if record else {}

    # Writing

    def save_label(self, image_id: str, tag: str, source: Path, info: Mapping[str, Any]) -> StoredLabel:
        """Stores a label; what the tag held becomes the next ``version_N`` (``original``, a prediction, is replaced).

        Raises: LabelError for names that are none and for a file that is no image; OutputError where it could not be stored (full
            disk, read-only folder): then the old label is as it was.
        """
        check_id(image_id), check_tag(tag)
        check_info(info, f"the label of {image_id}")
        parts = split_name(source.name)
        if parts is None:
            raise LabelError(f"the label of {image_id}: expected a file of {', '.join(LABEL_ENDINGS)}, found {source.name!r}")
        folder = self.labels / tag
        target, pending = folder / (image_id + parts[1]), folder / f"{_NEXT}{image_id}.json"
        with self.locked():
            before = self.label(image_id, tag)
            if target.is_file() and (before is None or target != before.path):  # an earlier server kept one of each ending
                self._set_aside(target, tag)
            try:
                with replacing(target) as part:
                    shutil.copyfile(source, part)
                    if before is not None and tag != ORIGINAL:
                        self._keep(image_id, before)
                    stored = {**info, "name": target.name}
                    write_json(pending, _record_of(target.name, stored, sha256_of_file(part)))
                pending.replace(folder / f"{image_id}.json")
            except BaseException:
                with suppress(OSError):
                    if not self._has_happened(pending, target):
                        pending.unlink(missing_ok=True)
                        self._take_back(image_id, before)
                raise
            for other in self._files(image_id, tag):
                if other == target:
                    continue
                if before is not None and other == before.path:
                    other.unlink(missing_ok=True)
                else:
                    self._set_aside(other, tag)
        return StoredLabel(target, parts[1], stored)

    def update_label(self, image_id: str, tag: str, info: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps more beside a label; returns all that is kept. Raises: LabelError where there is none, OutputError."""
        check_info(info, f"image {image_id}, {tag}")
        with self.locked():
            label = self.require_label(image_id, tag)
            merged = {**label.info, **info}
            path = label.path.with_name(f"{image_id}.json")
            known = self._record(path) or {}
            digest = known["sha256"] if known.get("file") == label.path.name else sha256_of_file(label.path)
            write_json(path, _record_of(label.path.name, merged, digest))
            return merged

    def remove_label(self, image_id: str, tag: str) -> None:
        """Takes a label away, with every file that could come back in its place; all go to ``labels/.removed/``."""
        with self.locked():
            for path in self._files(check_id(image_id), check_tag(tag)):
                self._set_aside(path, tag)
            with suppress(FileNotFoundError):
                (self.labels / tag / f"{image_id}.json").unlink()

    def save_image(self, image_id: str, source: Path, info: Mapping[str, Any]) -> Path:
        """Stores an image under an id that is new, or whose image has no labels yet.

        Raises: LabelError, ImageError for a name or a file that cannot be one, and where labels were drawn on another image; OutputError.
        """
        parts = split_name(source.name, self._endings)
        if parts is None:
            raise ImageError(f"image {image_id}: expected a file of {', '.join(self._endings)}, found {source.name!r}")
        target = self.root / (check_id(image_id) + parts[1])
        check_info(info, f"image {image_id}")
        with self.locked():
            old = [self.root / n for n in self._files_of(self.root) if (split_name(n, self._endings) or ("",))[0] == image_id]
            if old and self._tags_of(image_id) and not any(sha256_of_file(p) == sha256_of_file(source) for p in old):
                raise ImageError(
                    f"image {image_id} is there already and has labels, which were drawn on it; upload the new one under another id"
                )
            with replacing(target) as part:
                shutil.copyfile(source, part)
            self.update_image(image_id, {**info, "name": target.name})
            for path in old:
                if path != target:
                    path.unlink(missing_ok=True)
        return target

    def update_image(self, image_id: str, info: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps more of an image; returns all that is kept. Raises: LabelError, OutputError."""
        check_info(info, f"image {image_id}")
        with self.locked():
            merged = {**self.image_info(check_id(image_id)), **info}
            write_json(self._images / f"{image_id}.json", {"schema": SCHEMA, "info": merged})
            return merged

    def remove_image(self, image_id: str) -> None:
        """Deletes an image; its labels go to ``labels/.removed/``."""
        with self.locked():
            for tag in self._tags_of(check_id(image_id)):
                self.remove_label(image_id, tag)
            for name in self._files_of(self.root):
                if (split_name(name, self._endings) or ("",))[0] == image_id:
                    (self.root / name).unlink(missing_ok=True)
            (self._images / f"{image_id}.json").unlink(missing_ok=True)

    def adopt(self, known: Mapping[str, tuple[Mapping[str, Any], Mapping[str, tuple[str, Mapping[str, Any]]]]]) -> None:
        """Writes a record for each label, and each image, that has none, or a damaged one (which is set aside): by id what is known of the
        image, and by tag ending and info.

        Raises: OutputError.
        """
        labels = [
            (self.labels / tag / (image_id + ending), self.labels / tag / f"{image_id}.json", info)
            for image_id, (_, of_tags) in known.items()
            for tag, (ending, info) in of_tags.items()
            if is_id(image_id) and is_tag(tag)
        ]
        labels = [(path, record, info) for path, record, info in labels if path.is_file() and self._lacks(record, info)]
        images = {
            image_id: info
            for image_id, (info, _) in known.items()
            if is_id(image_id) and set(info) - {"ts", "name"} and not self.image_info(image_id)
        }
        if not labels and not images:
            return
        with self.locked():
            for path, record, info in labels:
                if record.exists():
                    self._removed.mkdir(parents=True, exist_ok=True)
                    record.replace(self._removed / (_aside(record.parent.name) + record.name))
                write_json(record, _record_of(path.name, info, sha256_of_file(path)))
            for image_id, info in images.items():
                self.update_image(image_id, info)

    def _lacks(self, path: Path, info: Mapping[str, Any]) -> bool:
        """True where there is no record, or one of no file that there is and ``info`` says more."""
        if not path.exists():
            return True
        record = self._record(path)
        tells = record is not None and record["file"] and (path.parent / record["file"]).is_file()
        return not tells and bool(set(info) - {"ts", "name"})

    def recover(self) -> None:
        """Ends what a killed process began. Does nothing in a folder that cannot be written."""
        with suppress(OutputError), self.locked():
            for tag in self.tags():
                folder = self.labels / tag
                for path in sorted(folder.glob(f"{_NEXT}*.json")):
                    record = self._record(path)
                    if record and self._has_happened(path, folder / record["file"]):
                        path.replace(folder / path.name.removeprefix(_NEXT))
                    else:
                        path.unlink(missing_ok=True)
                for path in folder.glob(f"{_PART}*"):
                    begun = split_name(path.name.removeprefix(_PART).partition("-")[2])
                    if begun is not None and tag != ORIGINAL:  # killed before its label took its place
                        self._take_back(begun[0], self.label(begun[0], tag))
                    path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While the block runs, no other thread or process changes the folder. Raises: OutputError where it cannot be written."""
        with self._thread_lock:
            if self._read_only:
                raise OutputError(f"{self.root}: opened read-only (MONAI_LABEL_DATASTORE_READ_ONLY); nothing was stored")
            if self._file_lock.is_locked:
                yield
                return
            try:
                self._file_lock.acquire()
            except Timeout:
                raise OutputError(
                    f"{self.root}: another process has held {self.root / '.lock'} for {LOCK_SECONDS:.0f} s; nothing was stored, try again"
                ) from None
            except OSError as error:
                raise OutputError(
                    f"{self.root} cannot be written ({error.strerror or error}); nothing was stored. Make the studies folder "
                    "writable for the user who runs the server, or free some room on its disk"
                ) from error
            try:
                if not self._recovered:  # before what a killed process left half written is removed
                    self._recovered = True
                    self.recover()
                yield
            except OutputError:
                raise
            except OSError as error:
                raise OutputError(
                    f"{self.root}: {error.strerror or error} ({error.filename}); check that the disk has room and the folder is writable"
                ) from error
            finally:
                self._file_lock.release()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """While the block runs, no other thread of this process changes the folder."""
        with self._thread_lock:
            yield

    def _files_of(self, folder: Path) -> list[str]:
        """Names of the files of a folder, sorted, without junk and links that lead out; nothing where it is missing."""
        try:
            found = [e for e in os.scandir(folder) if not is_junk(Path(e.path))]
        except FileNotFoundError:
            return []
        return sorted(
            e.name
            for e in found
            if (os.path.isfile(e.path) and self._is_inside(Path(e.path)) if e.is_symlink() else e.is_file())
        )

    def _is_inside(self, path: Path) -> bool:
        """False for a link to a file outside the studies: clients read and write what lies in them, and nothing else."""
        if not path.is_symlink():
            return True
        target = path.resolve()
        inside = any(target.is_relative_to(place.resolve()) for place in (self.root, path.parent))
        if not inside:
            self._tell(
                f"{path} is left out: it is a link that leads out of the studies; copy the file there, or link it with ln"
            )
        return inside

    def _tell(self, warning: str) -> None:
        if warning not in self._told:
            self._told.add(warning)
            logger.warning("%s", warning.encode(errors="backslashreplace").decode())

    def _keep(self, image_id: str, label: StoredLabel) -> None:
        """The next ``version_N``: first the record, so that no version is without one."""
        if self._kept(image_id, label) is not None:
            return
        folder = self.labels / next_version(self._tags_of(image_id))
        path = folder / label.path.name
        write_json(
            folder / f"{image_id}.json", _record_of(path.name, {**label.info, "name": path.name}, sha256_of_file(label.path))
        )
        link(label.path, path)

    def _kept(self, image_id: str, label: StoredLabel) -> StoredLabel | None:
        """The newest version of the image, if it is this very label, with the same record."""
        numbers = [n for tag in self._tags_of(image_id) if (n := version_number(tag)) is not None]
        version = self.label(image_id, f"{VERSION}{max(numbers)}") if numbers else None
        if version is None or version.path == label.path or {**version.info, "name": ""} != {**label.info, "name": ""}:
            return None
        return version if sha256_of_file(version.path) == sha256_of_file(label.path) else None

    def _take_back(self, image_id: str, label: StoredLabel | None) -> None:
        """Removes the version that a label became for a save that did not happen."""
        version = None if label is None else self._kept(image_id, label)
        if version is not None:
            version.path.unlink(missing_ok=True)
            version.path.with_name(f"{image_id}.json").unlink(missing_ok=True)

    def _set_aside(self, path: Path, tag: str) -> None:
        """Moves a label file, and a copy of its record, to where nothing looks for labels."""
        self._removed.mkdir(parents=True, exist_ok=True)
        stem = _aside(tag)
        parts = split_name(path.name)
        record = path.with_name(f"{parts[0]}.json") if parts else None
        if record is not None and record.is_file():
            shutil.copyfile(record, self._removed / (stem + record.name))
        path.replace(self._removed / (stem + path.name))

    def _has_happened(self, pending: Path, label: Path) -> bool:
        record = self._record(pending)
        return (
            record is not None
            and label.is_file()
            and record["file"] == label.name
            and record["sha256"] == sha256_of_file(label)
        )

    def _files(self, image_id: str, tag: str) -> list[Path]:
        return [self.labels / tag / n for n in self._files_of(self.labels / tag) if (split_name(n) or ("",))[0] == image_id]

    def _tags_of(self, image_id: str) -> list[str]:
        return [tag for tag in self.tags() if self._files(image_id, tag)]

    def _labels_of_tag(self, tag: str) -> dict[str, StoredLabel]:
        files: dict[str, list[str]] = {}
        for name in self._files_of(self.labels / tag):
            parts = split_name(name)
            if parts is not None:
                files.setdefault(parts[0], []).append(name)
        begun = {p.name for p in (self.labels / tag).glob(f"{_NEXT}*.json")}
        found = {i: self._label(tag, i, names, f"{_NEXT}{i}.json" in begun) for i, names in files.items()}
        return {i: label for i, label in found.items() if label is not None}

    def _label(self, tag: str, image_id: str, names: Sequence[str], begun: bool) -> StoredLabel | None:
        """Which of these files is the label; ``begun``: there is a ``.next`` record."""
        folder = self.labels / tag
        paths = [folder / n for n in names if _has_bytes(folder / n)]
        if not paths:
            return None
        record = self._record(folder / f"{image_id}.json")
        if begun:
            coming = self._record(folder / f"{_NEXT}{image_id}.json")
            if coming and self._has_happened(folder / f"{_NEXT}{image_id}.json", folder / coming["file"]):
                record = coming
        path = next((p for p in paths if record and p.name == record["file"]), None)
        info = dict(record["info"]) if record and path else {}
        path = path or max(paths, key=lambda p: p.stat().st_mtime_ns)
        parts = split_name(path.name)
        return StoredLabel(path, parts[1] if parts else "", info or {"name": path.name, "ts": int(path.stat().st_mtime)})

    def _record(self, path: Path) -> dict[str, Any] | None:
        """A record as it is on the disk, or None where there is none of ours. Read once as long as the file does not change."""
        try:
            stat = path.stat()
        except OSError:
            self._records.pop(path, None)
            return None
        stamp = (stat.st_mtime_ns, stat.st_ino)
        known = self._records.get(path)
        if known is None or known[0] != stamp:
            known = self._records[path] = (stamp, _read_record(path))
        return known[1]


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path, "the record of a label", LabelError)
    except FlrError as error:
        logger.warning("%s; it is left out", error)
        return None
    ours = isinstance(content, dict) and content.get("schema") == SCHEMA and isinstance(content.get("info"), dict)
    if not ours:
        logger.warning("%s is no record of this software (schema %d); it is left out", path, SCHEMA)
        return None
    # Without file and checksum, as of an image or of a record that was damaged, it says nothing of any label's file.
    said = {key: content[key] if isinstance(content.get(key), str) else "" for key in ("file", "sha256")}
    return {**content, **said}


def _record_of(name: str, info: Mapping[str, Any], sha256: str) -> dict[str, Any]:
    return {"schema": SCHEMA, "file": name, "sha256": sha256, "info": dict(info)}


def _aside(tag: str) -> str:
    """How the name of a file begins that was a label under ``tag``, or its record."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{tag}-"


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
