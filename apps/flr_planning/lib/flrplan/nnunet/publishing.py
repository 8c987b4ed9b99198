"""A trained fold takes its place among the folds of its model, if that is still the model that it was trained for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from flrplan.errors import ModelError, OutputError
from flrplan.files import replace_folder, write_json
from flrplan.nnunet.checkpoint import FINAL_NAME, published_content, require_finite, weights_sha256, write_checkpoint
from flrplan.nnunet.model_folder import PUBLISHED_NAME, RUN_NAME
from flrplan.nnunet.planning import CONFIGURATION
from flrplan.nnunet.trainer import FlrTrainer
from flrplan.nnunet.training_log import CURVE_NAME


@dataclass(frozen=True)
class ModelPlace:
    """A model folder as a training found it when it began.

    plans, dataset: what all folds of the folder share. published: content of its ``published.json``, which a training from the viewer
    leaves; None without one.
    """

    folder: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]
    published: bytes | None

    @classmethod
    def found(cls, folder: Path, plans: dict[str, Any], dataset: dict[str, Any]) -> ModelPlace:
        """The place as it is now. Raises ModelError where it holds folds of another model."""
        place = cls(folder, plans, dataset, _published(folder))
        place.require_same()
        return place

    def require_same(self) -> None:
        """Raises ModelError where the folder holds folds of another plan or data set, or was replaced from the viewer since."""
        for name, content in (("plans.json", self.plans), ("dataset.json", self.dataset)):
            path = self.folder / name
            if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != content:
                raise ModelError(
                    f"{path} belongs to another training (other plan, input or number of cases); choose another folder for the new model"
                )
        if _published(self.folder) != self.published:
            raise ModelError(
                f"{self.folder} was replaced by a training from the viewer while this one ran ({PUBLISHED_NAME} changed)"
            )


@contextmanager
def changing(model_folder: Path) -> Iterator[None]:
    """Holds the lock of a model folder: whoever publishes into it or replaces it waits for the other.

    It lies beside the folder, which may be replaced; the system frees it when its process ends.
    Raises: OutputError where nothing can be written there.
    """
    lock = FileLock(model_folder.with_name(f".{model_folder.name}.lock"))
    try:
        model_folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OutputError(
            f"could not lock {model_folder}: {error.strerror or error}; check that its folder is writable"
        ) from error
    try:
        yield
    finally:
        lock.release()


def require_writable(model_folder: Path) -> None:
    """Raises OutputError where nothing can be published into a model folder, which need not be there yet."""
    with changing(model_folder):
        if model_folder.exists() and not (model_folder.is_dir() and os.access(model_folder, os.W_OK)):
            raise OutputError(f"{model_folder}: expected a folder that can be written to; give another --models folder")


def publish_fold(trainer: FlrTrainer, record: dict[str, Any], place: ModelPlace, half: bool) -> None:
    """Writes the fold beside its place, then puts it there whole; plans and data set first, where they are not there yet.

    Raises: ModelError where weights are not finite, or the folder has become another model's; OutputError where it cannot be written.
    """
    what = f"stage {record['stage']} fold {trainer.fold}"
    weights = trainer.plain_weights()
    require_finite(weights, what)
    published = published_content(weights, CONFIGURATION, trainer.fold, trainer.settings.mirror_axes, half)
    require_finite(published["network_weights"], f"{what} in half precision")
    record = {**record, "weights_sha256": weights_sha256(published["network_weights"])}
    with changing(place.folder):
        try:
            place.require_same()
        except ModelError as error:
            raise ModelError(
                f"{what} is trained but not published: {error}. It is kept in {trainer.training_state}: give the same command with "
                "another --models folder, which publishes it there without training it again"
            ) from error
        _put(trainer, record, published, place)


def _put(trainer: FlrTrainer, record: dict[str, Any], published: dict[str, Any], place: ModelPlace) -> None:
    target = place.folder / f"fold_{trainer.fold}"
    beside = place.folder / f".{target.name}.{os.getpid()}.partial"
    for left_over in place.folder.glob(f".{target.name}.*.partial"):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        write_json(beside / RUN_NAME, record)
        trainer.draw_curve(beside / CURVE_NAME)
        write_checkpoint(beside / FINAL_NAME, published)
        for name, content in (("plans.json", place.plans), ("dataset.json", place.dataset)):
            if not (place.folder / name).is_file():
                write_json(place.folder / name, content)
        replace_folder(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _published(folder: Path) -> bytes | None:
    path = folder / PUBLISHED_NAME
    return path.read_bytes() if path.is_file() else None
