"""What this app asks of a datastore beside what MONAI Label does, and its datastore of a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from monailabel.config import settings as host_settings
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag

from flrplan.anatomy import PlanningLabel
from flrplan.files import is_junk
from flrplan.image import CT
from flrplan.image.segmentation import read_segmentation
from flrplan.server.label_check import checked_upload
from flrplan.server.label_table import names_sent


class PlanningDatastore(Protocol):
    """A datastore of MONAI Label (of a folder, or :mod:`flrplan.server.dicomweb`) that knows its labels as structures."""

    def list_images(self) -> list[str]:
        """Ids of all images."""

    def get_labeled_images(self) -> list[str]:
        """Ids of the images with a ``final`` label."""

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image."""

    def source_of(self, image_id: str, path: Path) -> Path:
        """What is read in place of the image's ``path``: files that nobody has converted, where there are any."""

    def final_label(self, image_id: str, ct: CT) -> PlanningLabel | None:
        """The ``final`` label, or None where there is none. Raises LabelError, GridError where it cannot be used."""

    def label_stamp(self, image_id: str) -> str | None:
        """Changes with the ``final`` label; None where there is none."""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is kept beside an image."""

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Keeps more beside an image."""

    def patients_of(self, image_id: str) -> frozenset[str]:
        """PatientIDs of an image, as far as they are known."""

    def known_ids(self) -> set[str]:
        """Ids and PatientIDs of all images."""

    def forget_lists(self) -> None:
        """The next lists are asked of the source, not taken from a cache."""


def label_of_file(path: Path, info: Mapping[str, Any], ct: CT) -> PlanningLabel:
    """A stored label file as structures, by the names that came with it. Raises LabelError, GridError, ImageError."""
    held = read_segmentation(path)
    return held.label(ct.geometry, ct.source, {} if held.names is not None else names_sent(info, str(path)))


class PlanningLocalDatastore(LocalDatastore):  # type: ignore[misc]  # monailabel is untyped
    """The host's datastore, but for these points of 0.8.5:

    - it takes every file with the ending of an image for one: ``._case.nii.gz``, which macOS lays beside each file on a foreign
      disk, was offered as the first sample and could not be opened. Junk (:func:`is_junk`) is left out, also where an earlier
      server has written it into ``datastore_v2.json``;
    - ``CASE.NII.GZ`` was not found at all.
    """

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        found: dict[str, str] = super()._list_files(path, patterns)
        return {name: file for name, file in found.items() if not is_junk(Path(path, file))}

    def _remove_non_existing(self) -> int:
        removed: int = super()._remove_non_existing()
        junk = [i for i, known in self._datastore.objects.items() if is_junk(Path(self._filename(i, known.image.ext)))]
        for image_id in junk:
            del self._datastore.objects[image_id]
        return removed + len(junk)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Stores a label that was checked (:mod:`flrplan.server.label_check`). Raises ClientError where it is refused."""
        with checked_upload(self, image_id, label_filename, label_tag, label_info) as (file, info):
            return str(super().save_label(image_id, file, label_tag, info))

    def source_of(self, image_id: str, path: Path) -> Path:
        """The file itself."""
        return path

    def final_label(self, image_id: str, ct: CT) -> PlanningLabel | None:
        """As :class:`PlanningDatastore`."""
        uri = self.get_label_uri(image_id, DefaultLabelTag.FINAL)
        if not uri or not Path(uri).is_file():
            return None
        return label_of_file(Path(uri), self.get_label_info(image_id, DefaultLabelTag.FINAL), ct)

    def label_stamp(self, image_id: str) -> str | None:
        """Name, size and time of the file."""
        path = Path(self.get_label_uri(image_id, DefaultLabelTag.FINAL))
        return f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" if path.is_file() else None

    def patients_of(self, image_id: str) -> frozenset[str]:
        """No one: a file does not tell."""
        return frozenset()

    def known_ids(self) -> set[str]:
        """The ids alone."""
        return set(self.list_images())

    def forget_lists(self) -> None:
        """Nothing: its lists follow the folder."""


def open_studies(folder: str) -> PlanningLocalDatastore:
    """The datastore of a folder with the host's own settings (``MONAI_LABEL_DATASTORE_*``), as ``MONAILabelApp`` builds it."""
    endings = host_settings.MONAI_LABEL_DATASTORE_FILE_EXT
    return PlanningLocalDatastore(
        folder,
        extensions=list(dict.fromkeys([*endings, *(e.upper() for e in endings)])),
        auto_reload=host_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=host_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    )
