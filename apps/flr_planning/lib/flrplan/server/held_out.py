"""Which split file holds for the studies of this server, and whether it fits them at all."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from flrplan.server.studies import PlanningDatastore
from flrplan.workfolder import WorkFolder

IMAGES = "images"
"""Name of the images' folder in a work folder of the benchmark; its split file lies beside it."""


def split_of(given: Path | None, studies: str) -> Path | None:
    """The split file that was given, else the one in the studies folder or, where that is ``W/images``, ``W/splits.json``."""
    if given is not None:
        return given
    folder = Path(studies)
    places = [folder, folder.resolve().parent] if folder.name == IMAGES else [folder]
    return next((WorkFolder(place).splits for place in places if WorkFolder(place).splits.is_file()), None)


def warning_of(split: Path | None, test: Collection[str], datastore: PlanningDatastore) -> str | None:
    """A sentence where a split holds ids out and none of them is an image, or a patient, of the datastore; else None."""
    if split is None or not test:
        return None
    if datastore.known_ids() & set(test):
        return None
    return (
        f"{split.name} calls {len(test)} ids test (such as {min(test)}), but none is the id or the PatientID of an image of these "
        f"studies ({len(set(datastore.list_images()))} images), so it holds nothing out: is it the split of other cases?"
    )
