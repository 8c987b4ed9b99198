"""MONAI Label 0.8.5's datastore of a folder, on :class:`flrplan.studies.StudiesFolder`.

Points of the host's that are otherwise here:

- it writes its index, ``datastore_v2.json``, in place: a killed server left it at 0 bytes, did not start again, and all label names were
  in it. Here it is a cache: made anew from the files and the records beside them, whatever is in it;
- a ``final`` that is saved again was overwritten; here it stays as ``version_N`` (:mod:`flrplan.studies.folder`);
- the ids of ``1.2.840.113.nii.gz`` and of ``x.seg.nrrd`` lost what follows a dot, one image could have several label files, of which a
  deleted or an older one came back, and hidden files were offered as images;
- its constructor makes folders, so that a folder that cannot be written could not be served at all.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from monailabel.config import settings as host_settings
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

from flrplan.active_learning import LabelFile
from flrplan.errors import FlrError, ImageError, LabelError, OutputError
from flrplan.files import read_json, write_text
from flrplan.image.volume_file import read_volume
from flrplan.server.client_error import errors_for_client
from flrplan.server.label_table import names_sent, read_label
from flrplan.server.user import current_user
from flrplan.studies import ORIGINAL, StudiesFolder
from flrplan.studies.names import IMAGE_ENDINGS, split_name, tag_order
from flrplan.studies.stored import StoredImage, StoredLabel
from flrplan.studies.submission import LEASE, review, submit

logger = logging.getLogger(__name__)

INDEX = "datastore_v2.json"
_WATCHED = (*IMAGE_ENDINGS, ".json")
_CALM_SECONDS = 0.3
"""How long changes of files are gathered before they are looked at."""
_FIRST_LOOK_SECONDS = 2.0
"""What changes while the watch begins is not told."""


class DurableDatastore(LocalDatastore):  # type: ignore[misc]  # monailabel is untyped
    """The host's datastore; what it serves is in memory, what it stores is at once on the disk. Errors reach the client as sentences."""

    def __init__(
        self,
        datastore_path: str,
        images_dir: str = ".",
        labels_dir: str = "labels",
        datastore_config: str = INDEX,
        extensions: tuple[str, ...] = tuple(f"*{e}" for e in IMAGE_ENDINGS),
        auto_reload: bool = False,
        read_only: bool = False,
    ) -> None:
        root = Path(datastore_path)
        with suppress(OSError):  # one that cannot be written is served all the same
            for tag in (DefaultLabelTag.ORIGINAL, DefaultLabelTag.FINAL):
                (root / labels_dir / tag.value).mkdir(parents=True, exist_ok=True)
        if not root.is_dir():
            raise ImageError(f"studies: no folder {root}; expected one with <case>.nii.gz files, or a DICOMweb URL")
        wanted = {e.lower().lstrip("*") for e in extensions}
        self._datastore_path = str(root)
        self._datastore_config_path = str(root / datastore_config)
        self._extensions = list(extensions)
        self._auto_reload = auto_reload
        self._read_only = read_only
        self._folder = StudiesFolder(root, [e for e in IMAGE_ENDINGS if e in wanted] or IMAGE_ENDINGS, read_only)
        self._datastore = LocalDatastoreModel(
            name="new-dataset", description="New Dataset", images_dir=images_dir, labels_dir=labels_dir, base_path=str(root)
        )
        self._written = ""
        self._take_over()
        self.refresh()
        if auto_reload:
            self._watch(root)

    @property
    def score_folder(self) -> Path:
        """Hidden, beside the images."""
        return self._folder.root / ".scores"

    def original(self, image_id: str) -> LabelFile | None:
        """The label that an image came with, or that a model made of it; None where there is none."""
        stored = self._folder.label(image_id, ORIGINAL)
        if stored is None:
            return None
        try:
            names = names_sent(stored.info, str(stored.path))
        except LabelError:  # the scoring says that the values mean nothing
            names = {}
        return LabelFile(stored.path, names)

    # What is in memory

    def refresh(self) -> None:
        """Reads the folder anew. A record that was damaged since is written again."""
        with self._folder.at_rest():
            self._folder.recover()
            self._keep(self._datastore)
            self._datastore.objects = {i: _model(image) for i, image in sorted(self._folder.scan().items())}
            self._update_datastore_file()

    def _reload(self, image_id: str) -> None:
        """Reads one image and its labels anew."""
        old = self._datastore.objects[image_id]
        labels = self._folder.labels_of(image_id)
        image = DataModel(ext=old.image.ext, info=self._folder.image_info(image_id) or old.image.info)
        new = ImageLabelModel(image=image, labels={t: _label_model(label) for t, label in labels.items()})
        self._datastore.objects = {**self._datastore.objects, image_id: new}
        self._update_datastore_file()

    def _update_datastore_file(self, lock: bool = True) -> None:
        """The index, for other programs that read it. It is a cache: where it cannot be written, nothing is lost."""
        text = self._datastore.model_dump_json(exclude={"base_path"}, indent=2)
        if text == self._written or self._read_only:
            return
        path = Path(self._datastore_config_path)
        try:
            write_text(path, text)
            self._written = text
        except OutputError as error:
            logger.warning("%s; it is made anew from the files, so nothing is lost", error)

    def _take_over(self) -> None:
        """Gives every label without a record (of an earlier server), or with a damaged one, what the index says of it; name and description
        as well.
        """
        path = Path(self._datastore_config_path)
        if not path.is_file():
            return
        try:
            known = LocalDatastoreModel.model_validate(read_json(path, "MONAI Label's index"))
        except (FlrError, ValueError) as error:
            logger.warning("%s is left out and made anew: %s", path, " ".join(str(error).split())[:300])
            return
        self._datastore.name, self._datastore.description = known.name, known.description
        self._keep(known)

    def _keep(self, known: LocalDatastoreModel) -> None:
        try:
            self._folder.adopt(
                {
                    i: (o.image.info, {t: (label.ext, label.info) for t, label in o.labels.items()})
                    for i, o in known.objects.items()
                }
            )
        except OutputError as error:
            logger.warning("%s", error)

    # What clients ask for

    def _to_id(self, file: str) -> tuple[str, str]:
        found = split_name(file)
        if found is None:
            raise ImageError(f"{file}: expected a name that ends in {', '.join(IMAGE_ENDINGS)}")
        return found

    def add_image(self, image_id: str | None, image_filename: str, image_info: dict[str, Any] | None) -> str:
        """Stores an image that can be read. Raises: ClientError."""
        path = Path(image_filename)
        with errors_for_client():
            image_id = image_id or self._to_id(path.name)[0]
            read_volume(path)
            info = {
                key: value for key, value in (image_info or {}).items() if key != LEASE
            }  # nobody takes a case by uploading it
            stored = self._folder.save_image(image_id, path, {**info, "ts": _seconds(path)})
            with self._folder.at_rest():
                ending = stored.name[len(image_id) :]
                self._datastore.objects = {**self._datastore.objects, image_id: ImageLabelModel(image=DataModel(ext=ending))}
                self._reload(image_id)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Deletes an image; its labels are set aside. Raises: ClientError for an unknown id."""
        with errors_for_client():
            self._require(image_id)
            with self._folder.at_rest():
                self._folder.remove_image(image_id)
                self._datastore.objects = {i: o for i, o in self._datastore.objects.items() if i != image_id}
                self._update_datastore_file()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Stores a label; what the tag held stays as a version. Raises: ClientError; then nothing changed."""
        with errors_for_client():
            tag = str(getattr(label_tag, "value", label_tag))
            self._submit(image_id, Path(label_filename), tag, label_info or {}, current_user())
        return image_id

    def _submit(self, image_id: str, file: Path, tag: str, info: dict[str, Any], user: str | None) -> None:
        """user: the author, where a password proved the name."""
        self._require(image_id)
        with self._folder.at_rest():
            submit(self._folder, image_id, tag, file, info, read_label, user)
            self._reload(image_id)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Takes a label away; nothing comes back in its place. Raises: ClientError."""
        with errors_for_client():
            self._require(label_id)
            with self._folder.at_rest():
                self._folder.remove_label(label_id, str(getattr(label_tag, "value", label_tag)))
                self._reload(label_id)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Keeps more of an image. Raises: ClientError."""
        with errors_for_client():
            self._require(image_id)
            with self._folder.at_rest():
                known = self._folder.image_info(image_id) or self._datastore.objects[image_id].image.info
                self._folder.update_image(image_id, {**known, **info})
                self._reload(image_id)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Keeps more beside a label: a review. Raises: ClientError."""
        with errors_for_client():
            self._require(label_id)
            with self._folder.at_rest():
                review(self._folder, label_id, str(getattr(label_tag, "value", label_tag)), info, current_user())
                self._reload(label_id)

    def labels_of(self, image_id: str) -> dict[str, dict[str, Any]]:
        """What is kept beside each label of an image, by tag."""
        known = self._datastore.objects.get(image_id)
        return {} if known is None else {tag: label.info for tag, label in known.labels.items()}

    def set_name(self, name: str) -> None:
        """The name that clients see."""
        self._datastore.name = name
        self._update_datastore_file()

    def _require(self, image_id: str) -> None:
        if image_id not in self._datastore.objects:
            raise LabelError(f"no image {image_id!r:.100} in this server's studies; ask /datastore/ for the ids, or upload it")

    # What others change in the folder

    def _watch(self, root: Path) -> None:
        handler = FileSystemEventHandler()  # watchdog's patterns are of names or of whole paths, by its version
        changed = threading.Event()

        def note(event: FileSystemEvent) -> None:
            names = [os.path.basename(os.fsdecode(p)).lower() for p in (event.src_path, getattr(event, "dest_path", "")) if p]
            told = event.event_type != "modified" if event.is_directory else any(n.endswith(_WATCHED) for n in names)
            if told and not all(name.startswith(".") for name in names):
                changed.set()

        handler.on_created = handler.on_deleted = handler.on_modified = handler.on_moved = note  # type: ignore[method-assign]

        def look() -> None:
            changed.wait(_FIRST_LOOK_SECONDS)
            while True:
                changed.clear()
                time.sleep(_CALM_SECONDS)
                try:
                    self.refresh()
                except Exception:  # a thread has nobody to tell, and the next change is looked at again
                    logger.exception("%s could not be read anew", root)
                changed.wait()

        self._handler = handler
        self._observer = PollingObserver() if self._is_on_mount(str(root)) else Observer()
        try:
            self._observer.schedule(handler, recursive=True, path=str(root))
            self._observer.start()
        except OSError as error:
            logger.error("changes of files in %s are not seen until the server starts again: %s", root, error)
            return
        threading.Thread(target=look, name="studies", daemon=True).start()


def folder_options() -> dict[str, Any]:
    """The host's own settings of a folder (``MONAI_LABEL_DATASTORE_*``), as ``MONAILabelApp`` hands them on."""
    return {
        "extensions": tuple(host_settings.MONAI_LABEL_DATASTORE_FILE_EXT),
        "auto_reload": host_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        "read_only": host_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    }


def _model(image: StoredImage) -> ImageLabelModel:
    labels = {tag: _label_model(image.labels[tag]) for tag in sorted(image.labels, key=tag_order)}
    info = image.info or {"name": image.path.name, "ts": _seconds(image.path)}
    return ImageLabelModel(image=DataModel(ext=image.ending, info=info), labels=labels)


def _label_model(label: StoredLabel) -> DataModel:
    return DataModel(ext=label.ending, info=label.info)


def _seconds(path: Path) -> int:
    return int(path.stat().st_mtime)
