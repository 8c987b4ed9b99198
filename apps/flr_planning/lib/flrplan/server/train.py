"""The training tasks: one per stage, and the cascade in order. MONAI Label runs them in a process of their own."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monailabel.interfaces.tasks.train import TrainTask

from flrplan.engine import ModelStore
from flrplan.errors import LabelError
from flrplan.learning import (
    Annotations,
    RetrainingFolder,
    StageTraining,
    TaskProgress,
    TrainingChoice,
    read_annotations,
    read_stats,
    require_enough_of,
)
from flrplan.learning.annotations import LEAST_CASES
from flrplan.learning.progress import ENDED, stopped
from flrplan.method import CASCADE, PAPER_STAGES, Stage
from flrplan.server.annotations import annotated_images
from flrplan.server.held_out import split_of, warning_of
from flrplan.server.infer import CASCADE_TASK
from flrplan.server.settings import AppSettings
from flrplan.server.studies import PlanningDatastore
from flrplan.server.train_options import train_config, training_choice
from flrplan.workfolder import read_split

logger = logging.getLogger(__name__)

_TOLD = ("verdict", "published", "reason", "error", "holdout_dice")
"""Of a stage's record, what the host prints as the result of the task."""


@dataclass(frozen=True)
class TrainService:
    """What all training tasks share. ``studies``: the server's studies folder, or a URL."""

    settings: AppSettings
    store: ModelStore
    studies: str = ""

    @property
    def remote(self) -> bool:
        """True where the studies are a DICOMweb server's."""
        return self.studies.startswith(("http://", "https://"))

    @property
    def folder(self) -> RetrainingFolder:
        """Where trainings of this model root work and leave their records."""
        return RetrainingFolder(self.store.root)

    def held_out(self, datastore: PlanningDatastore) -> tuple[frozenset[str], str | None]:
        """The ids that the split file of these studies calls ``test``, and a warning where they fit no image.

        Raises: SettingsError where the file cannot be read.
        """
        split = split_of(self.settings.training.split, self.studies)
        test = frozenset(read_split(split).test) if split else frozenset[str]()
        warning = warning_of(split, test, datastore)
        if split:
            logger.info("%s holds %d ids out", split, len(test))
        if warning:
            logger.warning("%s", warning)
        return test, warning


class StageTrainTask(TrainTask):  # type: ignore[misc]  # monailabel is untyped
    """Trains stages, one after the other, on the ``final`` labels of the datastore, each published on its own.

    A stage that cannot be trained with these labels is skipped with its reason, unless no stage can.
    """

    def __init__(self, name: str, stages: Sequence[Stage], service: TrainService) -> None:
        super().__init__(f"train {', then '.join(stage.name for stage in stages)} on the final labels")
        self.name = name
        self.stages = tuple(stages)
        self._service = service

    def config(self) -> dict[str, Any]:
        """The options that the viewers show."""
        return train_config(self._service.settings)

    def stats(self) -> dict[str, Any]:
        """``train_stats`` as 3D Slicer shows them; a training is ``stopped`` unless the run that wrote them still trains."""
        folder = self._service.folder
        stats = read_stats(folder.stats(self.name))
        if not stats or stats.get("state") in ENDED or folder.is_held_by(stats.get("run"), [s.name for s in self.stages]):
            return stats
        return stopped(stats)

    def require_trainable(self, request: dict[str, Any], datastore: PlanningDatastore) -> None:
        """Raises FlrError, before a process is started, for options that are unknown, and where no stage has labels enough.

        Of a DICOMweb server, which would have to send all its images first, labels are counted, and read only where they are few.
        """
        training_choice(request, self.config(), train_task_names())
        held_out, _ = self._service.held_out(datastore)
        datastore.forget_lists()
        if self._service.remote and len(set(datastore.get_labeled_images()) - held_out) >= LEAST_CASES:
            return
        require_enough_of(annotated_images(datastore, self._service.settings.train_labels)[0], self.stages, held_out)

    def __call__(self, request: dict[str, Any], datastore: PlanningDatastore) -> dict[str, Any]:
        """What became of each stage; all of it stands in its ``training.json``. Raises FlrError, whose message is meant for the user."""
        choice = training_choice(request, self.config(), train_task_names())
        held_out, warning = self._service.held_out(datastore)
        folder = self._service.folder
        epochs = {s.name: self._service.settings.training.recipe_of(s, choice.epochs).training.epochs for s in self.stages}
        with folder.locked(self.stages, self.name) as run:
            masks = folder.stage(self.name) / "annotations"
            shutil.rmtree(masks, ignore_errors=True)
            progress = TaskProgress(folder.stats, epochs, run)
            try:
                images, unlabelled = annotated_images(datastore, self._service.settings.train_labels)
                logger.info("%s: %d images have a final label, %d have none", self.name, len(images), unlabelled)
                annotations = read_annotations(images, masks, held_out)
                return self._train(annotations, choice, progress, [warning] if warning else [])
            except Exception as error:  # whatever it was, the viewer sees that nothing more comes
                progress.fail(str(error))
                raise
            finally:
                shutil.rmtree(masks, ignore_errors=True)

    def _train(
        self, annotations: Annotations, choice: TrainingChoice, progress: TaskProgress, warnings: list[str]
    ) -> dict[str, Any]:
        settings, store = self._service.settings.training, self._service.store
        records, reasons = {}, []
        for stage in self.stages:
            told = progress.of(stage.name)
            training = StageTraining(annotations.for_stage(stage), store, settings, choice, told, {"warnings": warnings})
            try:
                records[stage.name] = training.run()
            except LabelError as error:
                logger.warning("%s", error)
                reasons.append(error)
                records[stage.name] = training.record
        if len(reasons) == len(self.stages):
            raise LabelError(" ".join(map(str, reasons))) from None
        return {name: {key: record[key] for key in _TOLD if key in record} for name, record in records.items()}


def train_task_names() -> tuple[str, ...]:
    """The stages of the paper, and the cascade."""
    return (*(stage.name for stage in PAPER_STAGES), CASCADE_TASK)


def train_tasks(service: TrainService) -> dict[str, StageTrainTask]:
    """All training tasks by name."""
    tasks = {stage.name: StageTrainTask(stage.name, (stage,), service) for stage in PAPER_STAGES}
    return {**tasks, CASCADE_TASK: StageTrainTask(CASCADE_TASK, CASCADE, service)}


def newest_first(stats: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """``train_stats`` with the training that was heard of last in front: 3D Slicer shows the first entry only."""
    return dict(sorted(stats.items(), key=lambda item: item[1].get("updated_ts", 0.0), reverse=True))
