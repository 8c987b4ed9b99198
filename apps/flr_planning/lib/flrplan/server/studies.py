"""MONAI Label 0.8.5's datastore of a local folder, without hidden files and with endings in upper case."""

from __future__ import annotations

from pathlib import Path

from monailabel.config import settings as host_settings
from monailabel.datastore.local import LocalDatastore

from flrplan.files.listing import is_junk


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


def open_studies(folder: str) -> PlanningLocalDatastore:
    """The datastore of a folder with the host's own settings (``MONAI_LABEL_DATASTORE_*``), as ``MONAILabelApp`` builds it."""
    endings = host_settings.MONAI_LABEL_DATASTORE_FILE_EXT
    return PlanningLocalDatastore(
        folder,
        extensions=list(dict.fromkeys([*endings, *(e.upper() for e in endings)])),
        auto_reload=host_settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=host_settings.MONAI_LABEL_DATASTORE_READ_ONLY,
    )
