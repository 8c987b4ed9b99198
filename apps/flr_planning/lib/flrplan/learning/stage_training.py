"""One retraining of one stage: cases, hold-out, training in a work folder, comparison, and the new model in its place.

Everything happens in ``<models>/.refinement/<stage>/work``, which is removed before the first write and after the last: what a killed
training left neither disturbs nor fills the disk.
The serving model is never touched: the new one becomes its next version, at the very end (:func:`flrplan.files.publish_version`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flrplan.api.train import TrainingRequest, train
from flrplan.engine import FoundModel, ModelStore
from flrplan.engine.models import FROM_DEMO
from flrplan.errors import ModelError
from flrplan.files import write_json
from flrplan.hardware import choose_device
from flrplan.learning.annotations import StageCases
from flrplan.learning.comparison import Decision, decide, score_current, score_model
from flrplan.learning.holdout import HoldOut, Parts
from flrplan.learning.progress import STATS_NAME, Progress, Run, read_stats, write_shown
from flrplan.learning.settings import RetrainingSettings, Start, TrainingChoice
from flrplan.method import Recipe, Stage
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME, read_json_object, trained_ids
from flrplan.nnunet.prepare.architecture_plan import PLAN_TAKEN_OVER
from flrplan.nnunet.prepare.fine_tuning import recipe_like
from flrplan.nnunet.train import EpochReport
from flrplan.nnunet.train.provenance import require_unseen
from flrplan.nnunet.train.publishing import replace_model
from flrplan.workfolder import RUN_NAME, Split

logger = logging.getLogger(__name__)

FOLDER_NAME = ".refinement"
RECORD_NAME = "training.json"
_LOCK_SECONDS = 10.0  # loader processes of a killed training hold the lock for a few seconds more


@dataclass(frozen=True)
class RetrainingFolder:
    """Where the trainings of a model root work and leave their records."""

    models: Path

    @property
    def root(self) -> Path:
        """The hidden folder beside the models, on the same disk."""
        return self.models / FOLDER_NAME

    def stage(self, name: str) -> Path:
        """Records of the last training of a stage, and its work folder."""
        return self.root / name

    def work(self, stage: str) -> Path:
        """Data, checkpoints and the new model of a training that runs, or was killed."""
        return self.stage(stage) / "work"

    def stats(self, name: str) -> Path:
        """The file behind ``train_stats`` of one training task."""
        return self.stage(name) / STATS_NAME

    def lock(self, stage: str) -> FileLock:
        """Held by the process that trains the stage; the system frees it when that process ends, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / f"{stage}.lock")

    def is_locked(self, stage: str) -> bool:
        """Whether a process trains the stage at this moment."""
        if not (self.root / f"{stage}.lock").is_file():
            return False
        try:
            with self.lock(stage).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def is_held_by(self, run: object, stages: Iterable[str]) -> bool:
        """Whether the run, as stats name it (:class:`Run` as a mapping), trains at this moment and has one of these stages."""
        return any(read_stats(self._holder(stage)) == run and self.is_locked(stage) for stage in stages)

    def _holder(self, stage: str) -> Path:
        """Names the run that locked the stage last; not the lock file itself, which every attempt to lock it empties."""
        return self.root / f"{stage}.holder.json"

    @contextmanager
    def locked(self, stages: Sequence[Stage], task: str = "") -> Iterator[Run]:
        """Holds the locks of the stages, whose work folders are removed first: a killed training may have filled the disk.

        Yields the run, to be named in the stats. task: its name; empty: the first stage's.
        Raises: ModelError where another training has one: it does not wait.
        """
        run = Run(task or stages[0].name)
        with ExitStack() as held:
            for stage in stages:
                try:
                    held.enter_context(self.lock(stage.name).acquire(timeout=_LOCK_SECONDS))
                except Timeout:
                    raise ModelError(
                        f"stage {stage} is being trained by another process in {self.models}; wait for it, or stop that training "
                        "(DELETE /train/), then start again"
                    ) from None
                shutil.rmtree(self.work(stage.name), ignore_errors=True)
                write_shown(self._holder(stage.name), asdict(run))
            yield run


@dataclass
class StageTraining:
    """One training in the making; call :meth:`run` with the stage's lock held.

    cases: what the annotations give for this stage. progress: told after each step. record: what ``training.json`` says beforehand.
    """

    cases: StageCases
    store: ModelStore
    settings: RetrainingSettings
    choice: TrainingChoice
    progress: Progress
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> Stage:
        """The stage that is trained."""
        return self.cases.stage

    def run(self) -> dict[str, Any]:
        """Trains, compares and publishes; returns what ``training.json`` holds (``published``, ``reason``, ids, scores).

        Raises: LabelError for too few cases or empty targets; ModelError where the new model is not whole, or the current one
            cannot be started from; SettingsError; OutputError. Whatever is raised, the current model still serves, and stats
            or a record that cannot be written do not take its place.
        """
        folder = RetrainingFolder(self.store.root)
        file = folder.stage(self.stage.name) / RECORD_NAME
        self.record |= {
            "stage": self.stage.name,
            "architecture": self.choice.architecture,
            "started": _now(),
            "start": self.choice.start.value,
            "device": self.choice.device,
            "left_out": [asdict(entry) for entry in self.cases.left_out],
        }
        try:
            with _emptied(folder.work(self.stage.name)) as work:
                write_json(file, self.record)  # without "ended": it runs, or was killed
                decision = self._train(work)
            self.progress.update(state="done", published=decision.publish, message=str(decision))
        except Exception as error:  # whatever it was, the viewer and the record say so, and it goes on
            self.record |= {"published": False, "error": str(error)}
            self.progress.update(state="failed", message=str(error))
            raise
        finally:
            self.record["ended"] = _now()
            write_shown(file, self.record)
        return self.record

    def _train(self, work: Path) -> Decision:
        self.cases.require_enough()
        found, why_none = self._current()
        start = found if self.choice.start is Start.CURRENT else None
        if self.choice.start is Start.CURRENT and start is None:
            self._say(f"{why_none}: starts anew")
        if start is not None:
            checkpoint = start.folder.checkpoint(start.folder.folds[0])
            require_unseen(trained_ids(checkpoint), f"start=current: {start.folder.path}", self.cases.held_out)
        parts = self._divide(found)
        recipe = self.settings.recipe_of(self.stage, self.choice.epochs)
        if start is not None:
            recipe = recipe_like(start.folder, recipe)
        plan = {} if start is None else {"plan": PLAN_TAKEN_OVER}
        self.record |= {"recipe": {**recipe.to_json(), **plan}, "train_ids": parts.training, "holdout_ids": parts.holdout}
        candidate = self._new_model(work, parts, recipe, start)
        decision = self._compare(candidate, found, why_none, parts)
        self.record |= {
            "started_from": _origin(start),
            FROM_DEMO: start is not None and (start.demo or start.from_demo),
            "pretrained": read_json_object(candidate / "fold_0" / RUN_NAME).get("pretrained"),
            "published": decision.publish,
            "verdict": decision.verdict,
            "reason": decision.reason,
        }
        if not decision.publish:
            self._say(f"{decision}; the current model stays")
            return decision
        write_json(candidate / PUBLISHED_NAME, {**self.record, "when": _now()})
        place = replace_model(candidate, self.store.folder(self.stage, self.choice.architecture))
        self._say(f"{decision}; in {place}")
        return decision

    def _current(self) -> tuple[FoundModel | None, str]:
        """The model that serves now. One that is there but damaged counts only where it need not be started from."""
        try:
            found = self.store.find_any(self.stage, self.choice.architecture)
        except ModelError as error:
            if self.choice.start is Start.CURRENT:
                raise ModelError(f"start=current: the current model cannot be used ({error}); choose start=anew") from error
            return None, f"the current model cannot be used ({error})"
        return found, "" if found else f"there is no {self.choice.architecture} model of stage {self.stage} yet"

    def _divide(self, found: FoundModel | None) -> Parts:
        ids = [a.case.case_id for a in self.cases.cases]
        trained = {i for k in found.folder.folds for i in found.folder.training_cases(k)} if found else set()
        memory = HoldOut(RetrainingFolder(self.store.root).root / "kept.json")
        parts = memory.divide(ids, self.settings.kept_share, trained, self.cases.showing)
        self.record["holdout_that_trained_the_current_model"] = sorted(trained & set(parts.holdout))
        self.record["holdout_that_shows_the_target"] = sorted(self.cases.showing & set(parts.holdout))
        self.cases.require_target(parts.training)
        self._say(
            f"{len(parts.training)} cases train, {len(parts.holdout)} are held out of training ({', '.join(parts.holdout)})"
        )
        if found is not None and not self.record["holdout_that_shows_the_target"]:
            logger.warning(
                "%s: no hold-out case shows %s, so the new model will not replace the current one; label more images that show it",
                self.stage,
                self.stage.target,
            )
        self._say(self.cases.describe_left_out())
        self.progress.update(cases=len(parts.training), holdout=len(parts.holdout), left_out=len(self.cases.left_out))
        return parts

    def _new_model(self, folder: Path, parts: Parts, recipe: Recipe, start: FoundModel | None) -> Path:
        request = TrainingRequest(
            self.stage,
            fold=0,
            cases=[a.case for a in self.cases.cases],
            work=folder,
            models=folder / "model",
            architecture=self.choice.architecture,
            recipe=recipe,
            split=Split((parts.holdout, parts.training)),  # fold 0 trains on the second part and looks at the first
            like=start.folder if start else None,
            held_out=self.cases.held_out,
            validation_seen=True,  # holdout_that_trained_the_current_model says which
            device=choose_device(self.choice.device),
        )
        self._say(
            f"training {recipe.training.epochs} epochs on {request.device}, {'anew' if start is None else start.folder.path}"
        )
        train(request, self._epoch, self.progress.iteration)
        return request.model_folder

    def _epoch(self, report: EpochReport) -> None:
        self.progress.epoch(report)
        left = (report.epochs - report.epoch - 1) * report.seconds
        self._say(
            f"epoch {report.epoch + 1}/{report.epochs}: loss {report.train_loss:.4f}, pseudo Dice {report.pseudo_dice:.3f}, "
            f"{report.seconds:.1f} s, about {left / 60:.0f} min left"
        )

    def _compare(self, candidate: Path, found: FoundModel | None, why_none: str, parts: Parts) -> Decision:
        self.progress.update(state="comparing")
        holdout = [a.case for a in self.cases.cases if a.case.case_id in parts.holdout]
        device = choose_device(self.choice.device)
        new = score_model(ModelFolder.open(candidate), holdout, device)
        current = None
        if found is not None:
            current, why_none = score_current(found.folder, holdout, device)
        self.record["holdout_dice"] = {"new": new, "current": current}
        self.record["margin"] = self.settings.margin
        decision = decide(new, current, self.settings.margin, why_none, self.cases.showing)
        self.progress.update(holdout_dice=self.record["holdout_dice"], best_metric=round(decision.score, 4))
        return decision

    def _say(self, text: str) -> None:
        logger.info("%s: %s", self.stage, text)


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Removes the folder before and after the block, however that ends."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _origin(start: FoundModel | None) -> dict[str, Any] | None:
    if start is None:
        return None
    return {"folder": start.folder.name, "demo": start.demo, "fold": start.folder.folds[0]}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
