"""How far a training is, as a file that the server reads while another process trains. Keys as MONAI Label's clients know them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from time import time
from typing import Any

from flrplan.errors import OutputError
from flrplan.files import write_json
from flrplan.nnunet.train import EpochReport

logger = logging.getLogger(__name__)

STATS_NAME = "train_stats.json"
_SECONDS_BETWEEN = 2.0
"""Between two writes: a step may take milliseconds."""
ENDED = ("done", "failed", "stopped")
"""States after which nothing more comes; ``stopped``: the process that trained is gone, or its cascade ended before the stage."""


@dataclass(frozen=True)
class Run:
    """One run of a training task: ``pid`` of its process, which a later one may have as well, and ``since`` (seconds since 1970)."""

    task: str
    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time)


def write_shown(path: Path, content: Mapping[str, Any]) -> None:
    """Writes what is only shown as JSON; a failure goes to the log, since it must not end a training or hide why one ended."""
    try:
        write_json(path, content)
    except OutputError as error:
        logger.warning("%s", error)


class Progress:
    """The ``train_stats`` of one stage: ``epoch, total_epochs, start_ts, total_time, best_metric`` (3D Slicer shows these) and more.

    ``run``: the :class:`Run` that writes them. ``iteration, total_iterations`` of the whole training, written every few seconds.
    ``best_metric`` is the mean Dice on the hold-out by which the new model is compared, 0..1, 0 before; ``pseudo_dice`` the best of an
    epoch's patches, which is another number.
    """

    def __init__(
        self, path: Path, epochs: int, on_change: Callable[[Mapping[str, Any]], None] | None = None, run: Run | None = None
    ) -> None:
        self.path = path
        self.on_change = on_change
        self._started = time()
        self.values: dict[str, Any] = {
            "state": "preparing",
            "epoch": 0,
            "total_epochs": epochs,
            "iteration": 0,
            "total_iterations": 0,
            "start_ts": int(self._started),
            "total_time": "0:00:00",
            "best_metric": 0.0,
            "pseudo_dice": 0.0,
            "run": asdict(run) if run else None,
        }
        self.update()

    def update(self, **values: Any) -> None:
        """Sets some values and writes the file (:func:`write_shown`)."""
        now = time()
        self.values |= {**values, "updated_ts": now, "total_time": str(timedelta(seconds=int(now - self._started)))}
        write_shown(self.path, self.values)
        if self.on_change is not None:
            self.on_change(self.values)

    def fail(self, message: str) -> None:
        """Ends it as ``failed``; nothing changes where it has ended."""
        if self.values["state"] not in ENDED:
            self.update(state="failed", message=message)

    def iteration(self, done: int, total: int) -> None:
        """Takes an optimizer step, the ``done``-th of ``total``; the file is written every few seconds, and at the first."""
        if done > 1 and time() - self.values["updated_ts"] < _SECONDS_BETWEEN:
            self.values |= {"iteration": done}
        else:
            self.update(state="training", iteration=done, total_iterations=total)

    def epoch(self, report: EpochReport) -> None:
        """Takes the report of a finished epoch."""
        dice = report.pseudo_dice if report.pseudo_dice == report.pseudo_dice else 0.0
        self.update(
            state="training",
            epoch=report.epoch + 1,
            total_epochs=report.epochs,
            pseudo_dice=round(max(self.values["pseudo_dice"], dice), 4),
            train_loss=report.train_loss,
            validation_loss=report.validation_loss,
        )


def read_stats(path: Path) -> dict[str, Any]:
    """What a training wrote last; empty where none has run, or the file is damaged (it is only shown)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class JoinedProgress:
    """The ``train_stats`` of several stages, one after the other, as one, with those of each stage in ``stages``.

    Epochs and iterations are added up; ``best_metric`` is the lowest of the stages whose new model has been compared; ``message`` says of each
    stage that has ended how.
    """

    def __init__(self, path: Path, epochs: Mapping[str, int], run: Run | None = None) -> None:
        self.path = path
        self.run = run
        self._error: str | None = None
        self._started = time()
        self._stages: dict[str, Mapping[str, Any]] = {
            name: {
                "state": "waiting",
                "epoch": 0,
                "total_epochs": count,
                "iteration": 0,
                "total_iterations": 0,
                "best_metric": 0.0,
            }
            for name, count in epochs.items()
        }
        self._write()

    def listener(self, stage: str) -> Callable[[Mapping[str, Any]], None]:
        """What the :class:`Progress` of a stage calls."""

        def listen(values: Mapping[str, Any]) -> None:
            self._stages[stage] = dict(values)
            self._write()

        return listen

    def fail(self, message: str) -> None:
        """Ends it as ``failed``, and the stages that have not ended as ``stopped``."""
        self._error = message
        self._stages = {name: stopped(values) for name, values in self._stages.items()}
        self._write()

    def _write(self) -> None:
        stages = list(self._stages.values())
        write_shown(
            self.path,
            {
                "state": _state([s["state"] for s in stages]) if self._error is None else "failed",
                "epoch": sum(s["epoch"] for s in stages),
                "total_epochs": sum(s["total_epochs"] for s in stages),
                "iteration": sum(s["iteration"] for s in stages),
                "total_iterations": sum(s["total_iterations"] for s in stages),
                "start_ts": int(self._started),
                "updated_ts": time(),
                "total_time": str(timedelta(seconds=int(time() - self._started))),
                "best_metric": min((s["best_metric"] for s in stages if "holdout_dice" in s), default=0.0),
                "stages": self._stages,
                "run": asdict(self.run) if self.run else None,
                **self._message(),
            },
        )

    def _message(self) -> dict[str, str]:
        if self._error is not None:
            return {"message": self._error}
        ended = [f"{name}: {values['message']}" for name, values in self._stages.items() if "message" in values]
        return {"message": "; ".join(ended)} if ended else {}


class TaskProgress:
    """All that a task tells: of each stage in its own file, and of several stages also joined in the file of the task.

    file: of which task or stage; epochs: of each stage, in order. The first stage begins at once, so that nobody sees what a run before
    left while labels are read.
    """

    def __init__(self, file: Callable[[str], Path], epochs: Mapping[str, int], run: Run) -> None:
        self._file, self._epochs, self._run = file, epochs, run
        self._joined = JoinedProgress(file(run.task), epochs, run) if len(epochs) > 1 else None
        self._stage = next(iter(epochs))
        self._progress = self._begin()

    def of(self, stage: str) -> Progress:
        """The progress of a stage, which begins with the first call."""
        if stage != self._stage:
            self._stage = stage
            self._progress = self._begin()
        return self._progress

    def fail(self, message: str) -> None:
        """Ends what has not ended as ``failed``."""
        self._progress.fail(message)
        if self._joined is not None:
            self._joined.fail(message)

    def _begin(self) -> Progress:
        listener = self._joined.listener(self._stage) if self._joined is not None else None
        return Progress(self._file(self._stage), self._epochs[self._stage], listener, self._run)


def stopped(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Stats of which nothing more comes: a state that has not ended becomes ``stopped``, in ``stages``, too."""
    told = dict(stats)
    if told.get("state") not in ENDED:
        told["state"] = "stopped"
    if isinstance(told.get("stages"), dict):
        told["stages"] = {name: stopped(values) for name, values in told["stages"].items()}
    return told


def _state(states: Sequence[str]) -> str:
    """The state of the stage at work; ``failed`` or ``done`` once all have ended."""
    at_work = [s for s in states if s not in ENDED]
    if at_work:
        return at_work[0]
    return "failed" if "failed" in states else "done"
