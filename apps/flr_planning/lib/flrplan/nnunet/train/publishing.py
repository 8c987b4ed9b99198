"""A trained fold takes its place among the folds of its model, if that is still the model that it was trained for.

A model grows by folds: one that was not there is added to the version that serves. What is there is never changed: a fold trained anew
makes a new version, of which the other folds are hard links.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from flrplan.errors import ModelError, OutputError
from flrplan.files import current_version, link, publish_version, use_version, versions, write_json
from flrplan.files.folder import POINTER_NAME, VERSIONS_NAME
from flrplan.nnunet.model import load_checkpoint, write_checkpoint
from flrplan.nnunet.model.checkpoint import published_content, require_finite, weights_sha256
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME
from flrplan.nnunet.prepare import CONFIGURATION
from flrplan.nnunet.train.trainer import FlrTrainer
from flrplan.nnunet.train.training_log import CURVE_NAME
from flrplan.workfolder import FINAL_CHECKPOINT, RUN_NAME, read_record, require_same, write_record


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

    @property
    def shared(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Names and content of the files that all folds share."""
        return (("plans.json", self.plans), ("dataset.json", self.dataset))

    def require_same(self) -> None:
        """Raises ModelError where the folder holds folds of another plan or data set, or was replaced from the viewer since."""
        for name, content in self.shared:
            path = current_version(self.folder) / name
            if path.is_file():
                remedy = "choose another folder for the new model"
                require_same(read_record(path, ModelError), content, f"{path}: the model there", remedy, ModelError)
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


def replace_model(new: Path, model_folder: Path) -> Path:
    """The folder ``new`` (on the same disk) becomes the model that serves (:func:`flrplan.files.publish_version`). Returns its place.

    A training that publishes a fold there is waited for, and waits. Raises: OutputError, ModelError; then the old model serves.
    """
    with changing(model_folder):
        return publish_version(new, model_folder)


@contextmanager
def replacing_models(new: Mapping[str, Path], root: Path) -> Iterator[dict[str, Path]]:
    """Folders become the models that serve, by ``<stage>/<architecture>`` below ``root``: all of them, or none. Gives their places.

    Trainings wait until the block ends. Whatever ends it early, Ctrl-C too: those that served before do so again, and the new ones are gone.
    Raises as :func:`replace_model`.
    """
    with ExitStack() as locks, ExitStack() as undo:
        for name in sorted(new):
            locks.enter_context(changing(root / name))
        taken = {}
        for name, folder in new.items():
            undo.callback(_restore, root / name, current_version(root / name), versions(root / name))
            taken[name] = publish_version(folder, root / name)
        yield taken
        undo.pop_all()


def _restore(model_folder: Path, serving: Path, there: Collection[int]) -> None:
    """A model folder as it was: with these versions and no other, and none where none was there."""
    if not there:
        shutil.rmtree(model_folder, ignore_errors=True)
    elif serving == model_folder:
        (model_folder / POINTER_NAME).unlink(missing_ok=True)  # the first one serves without it; a full disk cannot hinder that
    elif current_version(model_folder) != serving:
        use_version(model_folder, serving.name)
    for number in {*versions(model_folder)} - {*there}:
        shutil.rmtree(model_folder / VERSIONS_NAME / str(number), ignore_errors=True)


def require_writable(model_folder: Path) -> None:
    """Raises OutputError where nothing can be published into a model folder, which need not be there yet."""
    with changing(model_folder):
        if model_folder.exists() and not (model_folder.is_dir() and os.access(model_folder, os.W_OK)):
            raise OutputError(f"{model_folder}: expected a folder that can be written to; give another --models folder")


def publish_fold(
    trainer: FlrTrainer, record: dict[str, Any], place: ModelPlace, half: bool, published: Mapping[str, Any] | None = None
) -> None:
    """Writes a model of this fold beside the model folder; the fold is moved into the current version, or all becomes a new one.

    Where the current version has this fold with these weights, nothing is done. published: what ``published.json`` says of the new version.
    Raises: ModelError where weights are not finite, or the folder has become another model's; OutputError where it cannot be written.
    """
    what = f"stage {record['stage']} fold {trainer.fold}"
    weights = trainer.plain_weights()
    require_finite(weights, what)
    content = published_content(weights, CONFIGURATION, trainer.fold, trainer.settings.mirror_axes, half)
    require_finite(content["network_weights"], f"{what} in half precision")
    record = {**record, "weights_sha256": weights_sha256(content["network_weights"])}
    with changing(place.folder):
        try:
            place.require_same()
        except ModelError as error:
            raise ModelError(
                f"{what} is trained but not published: {error}. It is kept in {trainer.training_state}: give the same command with "
                "another --models folder, which publishes it there without training it again"
            ) from error
        if not _is_there(current_version(place.folder) / f"fold_{trainer.fold}", record["weights_sha256"]):
            _put(trainer, record, content, place, published)


def _is_there(fold: Path, digest: str) -> bool:
    """Whether a published fold is whole and has these weights."""
    try:
        return (fold / RUN_NAME).is_file() and weights_sha256(
            load_checkpoint(fold / FINAL_CHECKPOINT)["network_weights"]
        ) == digest
    except (ModelError, KeyError, TypeError, AttributeError):
        return False


def _put(
    trainer: FlrTrainer, record: dict[str, Any], content: dict[str, Any], place: ModelPlace, published: Mapping[str, Any] | None
) -> None:
    fold, current = f"fold_{trainer.fold}", current_version(place.folder)
    beside = place.folder.with_name(f".{place.folder.name}.fold.partial")  # only one process publishes here at a time
    shutil.rmtree(beside, ignore_errors=True)
    try:
        write_record(beside / fold / RUN_NAME, record)
        trainer.draw_curve(beside / fold / CURVE_NAME)
        write_checkpoint(beside / fold / FINAL_CHECKPOINT, content)
        if published is None and all((current / name).is_file() for name, _ in place.shared) and not (current / fold).exists():
            (beside / fold).rename(current / fold)
            return
        if current.exists():
            others = shutil.ignore_patterns(fold, VERSIONS_NAME, POINTER_NAME)
            shutil.copytree(current, beside, ignore=others, copy_function=_link, dirs_exist_ok=True)
        for name, shared in place.shared:
            write_json(beside / name, shared)
        if published is not None:
            write_json(beside / PUBLISHED_NAME, published)
        publish_version(beside, place.folder)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"could not publish {fold} in {place.folder}: {error.strerror or error}; the current model stays"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _link(source: str, path: str) -> None:
    link(Path(source), Path(path))


def _published(folder: Path) -> bytes | None:
    path = current_version(folder) / PUBLISHED_NAME
    return path.read_bytes() if path.is_file() else None
