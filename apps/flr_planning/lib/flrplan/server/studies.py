"""What this app asks of a datastore beside what MONAI Label does, and its datastore of a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from flrplan.active_learning import LabelFile
from flrplan.anatomy import PlanningLabel
from flrplan.image import CT
from flrplan.server.doors import ids_checked
from flrplan.server.durable import DurableDatastore, folder_options
from flrplan.server.label_check import checked_upload
from flrplan.server.label_table import read_stored_label
from flrplan.studies.review import CaseReview


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

    @property
    def score_folder(self) -> Path:
        """Where scores of its images are kept (:mod:`flrplan.active_learning.cache`)."""

    def at_hand(self, image_id: str) -> Path | None:
        """The image's files, as :meth:`source_of`; None where they would have to be downloaded first."""

    def original(self, image_id: str) -> LabelFile | None:
        """The label that an image came with, or that a model made of it; None where there is none."""

    def get_unlabeled_images(self) -> list[str]:
        """Ids of the images without a ``final`` label."""

    def submitted(self, image_id: str) -> CaseReview:
        """The labels that people submitted of an image, and their reviews."""

    def label(self, image_id: str, tag: str, ct: CT) -> PlanningLabel | None:
        """A label by its tag, or None where there is none. Raises LabelError, GridError where it cannot be used."""

    def final_label(self, image_id: str, ct: CT) -> PlanningLabel | None:
        """The label that was submitted last, or None where there is none. Raises LabelError, GridError where it cannot be used."""

    def label_stamp(self, image_id: str) -> str | None:
        """Changes with the label that was submitted last; None where there is none."""

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


@ids_checked
class PlanningLocalDatastore(DurableDatastore):
    """The datastore of a folder. ``copied_names``: what the values of label files mean that somebody copied into it."""

    copied_names: Mapping[str, int] = MappingProxyType({})

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None) -> str:
        """Stores a label that was checked (:mod:`flrplan.server.label_check`). Raises ClientError where it is refused."""
        with checked_upload(self, image_id, label_filename, label_tag, label_info) as (file, info):
            return str(super().save_label(image_id, file, label_tag, info))

    def source_of(self, image_id: str, path: Path) -> Path:
        """The file itself."""
        return path

    def at_hand(self, image_id: str) -> Path | None:
        """The file itself."""
        return Path(self.get_image_uri(image_id))

    def original(self, image_id: str) -> LabelFile | None:
        """As :class:`PlanningDatastore`; what the values of a copied file mean, the setting says."""
        found = super().original(image_id)
        return found if found is None or found.names else replace(found, names=self.copied_names)

    def submitted(self, image_id: str) -> CaseReview:
        """As :class:`PlanningDatastore`."""
        return CaseReview.of(self.labels_of(image_id))

    def label(self, image_id: str, tag: str, ct: CT) -> PlanningLabel | None:
        """As :class:`PlanningDatastore`."""
        with self._folder.at_rest():  # a label and its names belong together
            stored = self._folder.label(image_id, tag)
            if stored is None:
                return None
            return read_stored_label(stored.path, stored.info, self.copied_names, ct.geometry, ct.source)

    def final_label(self, image_id: str, ct: CT) -> PlanningLabel | None:
        """As :class:`PlanningDatastore`."""
        newest = self.submitted(image_id).newest
        return None if newest is None else self.label(image_id, newest.tag, ct)

    def label_stamp(self, image_id: str) -> str | None:
        """Name, size and time of the file."""
        newest = self.submitted(image_id).newest
        stored = None if newest is None else self._folder.label(image_id, newest.tag)
        if newest is None or stored is None:
            return None
        stat = stored.path.stat()
        return f"{newest.tag} {stored.path.name} {stat.st_size} {stat.st_mtime_ns}"

    def patients_of(self, image_id: str) -> frozenset[str]:
        """No one: a file does not tell."""
        return frozenset()

    def known_ids(self) -> set[str]:
        """The ids alone."""
        return set(self.list_images())

    def forget_lists(self) -> None:
        """Nothing: its lists follow the folder."""


def open_studies(folder: str, copied_names: Mapping[str, int] = MappingProxyType({})) -> PlanningLocalDatastore:
    """The datastore of a folder, with the host's own settings."""
    datastore = PlanningLocalDatastore(folder, **folder_options())
    datastore.copied_names = copied_names
    return datastore
