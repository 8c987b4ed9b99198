"""Uploads and their plans while they are kept: checked at once, planned one after another by models that stay loaded, then deleted."""

from __future__ import annotations

import logging
import os
import queue
import secrets
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from flrplan.anatomy import APPEARANCE
from flrplan.api.anonymous import keep_headers_out_of_warnings
from flrplan.api.plan import liver_state_named, plan
from flrplan.engine import Cascade
from flrplan.errors import FlrError, OutputError, SettingsError
from flrplan.files import replacing
from flrplan.method import CASCADE, stage_named
from flrplan.planner.settings import PlannerSettings
from flrplan.planner.upload import Choice, Upload, is_lone_zip, unpack
from flrplan.planning import LiverState, Plan
from flrplan.planning.patient import Patient

logger = logging.getLogger(__name__)

_MOST_JOBS = 50
_MOST_ANSWERS, _MOST_WAITING_ANSWERS = 20, 3
"""So many plans of :meth:`Jobs.keep` are kept, and wait in memory; the oldest are deleted first."""
_LOOK_EVERY_SECONDS = 10.0
_WAIT_AT_STOP_SECONDS = 5.0
_FOLDER, _UPLOAD, _UNPACKED, _PLAN = "flrplan-planner-", "upload", "unpacked", "plan"
_UNEXPECTED = (
    "something went wrong that should not have; the server's log says where. The administrator of this server can report it"
)


class State(StrEnum):
    """Where a job is. ``uploading``: not found by its id yet. ``choose``: the upload holds several CTs, and a person says which."""

    UPLOADING = "uploading"
    CHOOSE = "choose"
    WAITING = "waiting"
    PLANNING = "planning"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class PlanOptions:
    """What the page asks beside the CT; see :func:`flrplan.api.plan.plan`. Raises: SettingsError."""

    height_cm: float | None = None
    weight_kg: float | None = None
    liver_state: LiverState | None = None
    raw: bool = False
    anonymize: bool = False

    def __post_init__(self) -> None:
        Patient(self.height_cm, self.weight_kg)

    @classmethod
    def from_fields(cls, fields: dict[str, str]) -> PlanOptions:
        """The options of a form, whose values are texts; an empty one is unknown. Raises: SettingsError."""

        def number(name: str, title: str) -> float | None:
            text = fields.get(name, "")
            try:
                return float(text.replace(",", ".")) if text else None
            except ValueError:
                raise SettingsError(f"{title}: expected a number, got {text!r}; leave it out if it is unknown") from None

        state = fields.get("liver_state")
        return cls(
            number("height_cm", "height in cm"),
            number("weight_kg", "weight in kg"),
            liver_state_named(state) if state else None,
            bool(fields.get("raw")),
            bool(fields.get("anonymize")),
        )


class _Deleted(Exception):
    """A job that was deleted while it was planned."""


@dataclass(eq=False)
class Job:
    """One upload and its plan. id: random, and all that is needed to see it. folder: private; ``plan`` in it is what the page offers.

    is_answer: not of an upload, but of what another part of the server has planned; ``planned`` until it is written.
    """

    id: str
    folder: Path
    deleted_at: datetime
    upload: Upload
    options: PlanOptions = field(default_factory=PlanOptions)
    choices: list[Choice] = field(default_factory=list)
    state: State = State.UPLOADING
    step: str = ""
    steps_done: int = 0
    error: str = ""
    deleted: bool = False
    planned: Plan | None = None
    is_answer: bool = False
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """What the case is called in files and logs."""
        return f"plan-{self.id[-6:]}"

    def files(self) -> dict[str, int]:
        """The files of the finished plan by their path below its folder, with their bytes; none before, and once it is deleted."""
        if self.state is not State.DONE:
            return {}
        folder = self.folder / _PLAN
        with self.guard:  # or they could be deleted meanwhile
            found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
            return {p.relative_to(folder).as_posix(): p.stat().st_size for p in found}

    def open(self, name: str) -> BinaryIO | None:
        """One of :meth:`files`, to be read to its end even if the job is deleted meanwhile; None for every other name."""
        if name not in self.files():
            return None
        with suppress(FileNotFoundError):  # deleted since
            return (self.folder / _PLAN / name).open("rb")
        return None


STEPS = 2 + len(CASCADE)
"""Reading, the stages, writing."""


class Jobs:
    """All jobs of one server.

    cascade: makes the models and how they run; called once, by the first plan. turn: entered for as long as a plan is computed, such as a lock
        that others share who compute.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        cascade: Callable[[], Cascade] = Cascade,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.settings = settings
        self.largest_bytes = int(settings.max_upload_gib * 2**30)
        self._cascade = cascade
        self._turn = turn or nullcontext()
        self._jobs: dict[str, Job] = {}
        self._changing = threading.Lock()
        """Of which jobs there are, and of each until it waits."""
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._stopped = threading.Event()
        self._folder: Path | None = None
        self._lock: FileLock | None = None
        self._worker: threading.Thread | None = None

    def start(self) -> None:
        """Deletes what servers that were killed have left behind, and begins to plan. Raises: OutputError."""
        keep_headers_out_of_warnings()  # they would stand in the server's log
        root = self.settings.folder or Path(tempfile.gettempdir())
        try:
            root.mkdir(parents=True, exist_ok=True)
            _remove_left_behind(root)
            made = Path(tempfile.mkdtemp(prefix=f".new-{_FOLDER}", dir=root))  # nobody else may look into it
        except OSError as error:
            raise OutputError(
                f"{root}: uploads cannot be kept there ({error.strerror or error}); choose another folder"
            ) from error
        self._lock = FileLock(made / ".lock")
        self._lock.acquire()
        self._folder = made.rename(root / made.name.removeprefix(".new-"))
        self._worker = threading.Thread(target=self._work, name="planner", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Deletes all uploads and plans."""
        self._stopped.set()
        for job in list(self._jobs.values()):
            job.deleted = True  # a plan that is being made ends at its next step
        self._waiting.put(None)
        if self._worker is not None:
            self._worker.join(_WAIT_AT_STOP_SECONDS)
        if self._lock is not None:
            self._lock.release()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def new(self) -> Job:
        """A job with an empty folder for its upload, not found until :meth:`take`. Raises: SettingsError where too many are kept."""
        self._delete_old()
        with self._changing:
            if sum(not job.is_answer for job in self._jobs.values()) >= _MOST_JOBS:
                raise SettingsError(f"this server keeps {_MOST_JOBS} plans at most; delete one that you no longer need")
            job = self._made()
            self._jobs[job.id] = job
        return job

    def keep(self, planned: Plan) -> str:
        """Has a plan that is made already written, to be read and taken away; returns its place below the server's address."""
        job = self._made()
        job.planned, job.is_answer, job.state = planned, True, State.WAITING
        job.choices = [Choice(job.upload.folder, None, planned.ct.name)]
        with self._changing:
            self._jobs[job.id] = job
            self._waiting.put(job)
            answers = [job for job in self._jobs.values() if job.is_answer]
        waiting = [job for job in answers if job.state is State.WAITING]
        for old in {*answers[:-_MOST_ANSWERS], *waiting[:-_MOST_WAITING_ANSWERS]}:
            self.delete(old)
        return f"planner/plans/{job.id}/"

    def take(self, job: Job, options: PlanOptions) -> None:
        """Looks what was uploaded, and has it planned, or asks which CT. Raises: FlrError where there is none."""
        if is_lone_zip(job.upload):
            unpacked = Upload(job.folder / _UNPACKED, self.largest_bytes)
            packed, job.upload = job.upload, unpacked
            try:
                unpack(packed, unpacked)
            finally:
                shutil.rmtree(packed.folder)
        job.options, job.choices = options, job.upload.choices()
        job.state = State.CHOOSE
        if len(job.choices) == 1:
            self.choose(job, 0)

    def choose(self, job: Job, number: int) -> None:
        """Has one of the choices planned. Raises: SettingsError where there is no such choice, or one was made, or the job is deleted."""
        with self._changing:
            if job.id not in self._jobs or job.state is not State.CHOOSE or not 0 <= number < len(job.choices):
                raise SettingsError("this choice is no longer open; go back to the plan's page")
            job.choices = [job.choices[number]]
            job.state = State.WAITING
            self._jobs[job.id] = self._jobs.pop(job.id)  # behind those that wait already
            self._waiting.put(job)
        logger.info("%s waits", job.name)

    def find(self, identity: str) -> Job | None:
        """A job that is kept."""
        self._delete_old()
        with self._changing:
            job = self._jobs.get(identity)
        return None if job is None or job.state is State.UPLOADING else job

    def delete(self, job: Job) -> None:
        """Deletes an upload with its plan, now. A plan that is being written is waited for."""
        job.deleted, job.planned = True, None
        with self._changing:
            self._jobs.pop(job.id, None)
        with job.guard:
            shutil.rmtree(job.folder, ignore_errors=True)
        logger.info("%s deleted", job.name)

    def before(self, job: Job) -> int:
        """How many plans are made before this one."""
        with self._changing:
            kept = list(self._jobs.values())
        earlier = takewhile(lambda other: other is not job, kept)
        return sum(other.state is State.PLANNING for other in kept) + sum(other.state is State.WAITING for other in earlier)

    def _made(self) -> Job:
        identity = secrets.token_hex(16)
        if self._folder is None:
            raise OutputError("the server is not ready yet; try again")
        folder = self._folder / identity
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror or error}); make room on that disk") from error
        until = datetime.now(timezone.utc) + timedelta(hours=self.settings.keep_hours)
        return Job(identity, folder, until, Upload(folder / _UPLOAD, self.largest_bytes))

    def _delete_old(self) -> None:
        with suppress(OSError):
            os.utime(self._folder or "")  # those who tidy temporary folders shall see that this one is used
        now = datetime.now(timezone.utc)
        for job in list(self._jobs.values()):
            if job.deleted_at < now and job.state not in (State.UPLOADING, State.PLANNING):
                self.delete(job)

    def _work(self) -> None:
        cascade: Cascade | None = None
        while not self._stopped.is_set():
            self._delete_old()
            with suppress(queue.Empty):
                job = self._waiting.get(timeout=_LOOK_EVERY_SECONDS)
                if job is None or job.deleted:
                    continue
                try:
                    cascade = cascade or self._cascade()
                    self._plan(job, cascade)
                except _Deleted:
                    continue
                except FlrError as error:
                    self._fail(job, str(error), type(error).__name__)
                except Exception as error:  # whatever it is, the next upload is planned
                    if job.deleted:  # its files went while they were read
                        continue
                    # Not its message, which may hold what a header says of a patient.
                    logger.error(
                        "%s: %s\n%s", job.name, type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
                    )
                    self._fail(job, _UNEXPECTED, type(error).__name__)

    def _plan(self, job: Job, cascade: Cascade) -> None:
        choice, options = job.choices[0], job.options

        def begin(step: str, goes_on: bool = False) -> None:
            if job.deleted or self._stopped.is_set():
                raise _Deleted
            job.steps_done += bool(job.step) and not goes_on
            job.step = step

        def stage(text: str) -> None:
            name, after, opinion = text.rpartition(": ")[2].partition(", ")
            targets = stage_named(name).targets
            found = ", ".join(APPEARANCE[t].title.lower() for t in targets)
            begin(f"looking for: {found}{after}{opinion}", goes_on=bool(opinion))

        if job.planned is not None:
            job.state = State.PLANNING
            begin("writing the report")
            self._save(job, job.planned)
            return
        with self._turn:
            started = time.perf_counter()
            job.state = State.PLANNING
            begin("reading the CT")
            planned = plan(
                choice.path,
                series=choice.series,
                name=job.name,
                cascade=cascade,
                on_step=stage,
                raw=options.raw,
                height_cm=options.height_cm,
                weight_kg=options.weight_kg,
                liver_state=options.liver_state,
                anonymize=options.anonymize,
            )
        begin("measuring, and writing the report")
        self._save(job, planned)
        logger.info("%s done in %.0f s", job.name, time.perf_counter() - started)

    def _save(self, job: Job, planned: Plan) -> None:
        with job.guard:
            if job.deleted:
                raise _Deleted
            plan_folder = job.folder / _PLAN
            planned.save(plan_folder)
            with replacing(plan_folder / f"{job.name}.zip") as part:
                shutil.move(shutil.make_archive(str(job.folder / job.name), "zip", plan_folder), part)
            shutil.rmtree(job.upload.folder, ignore_errors=True)
            job.planned, job.state = None, State.DONE

    def _fail(self, job: Job, message: str, kind: str) -> None:
        with job.guard:
            if job.deleted:
                return
            job.error = job.upload.in_words(message)
            shutil.rmtree(job.upload.folder, ignore_errors=True)
            shutil.rmtree(job.folder / _PLAN, ignore_errors=True)
            job.planned, job.state = None, State.FAILED
        logger.info("%s failed: %s", job.name, kind)


def _remove_left_behind(root: Path) -> None:
    """Deletes the folders of this user's servers that no longer run: those whose lock nobody holds."""
    for folder in root.glob(f"{_FOLDER}*"):
        try:
            if folder.is_symlink() or not folder.is_dir() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
                continue
            with FileLock(folder / ".lock", timeout=0):
                pass
        except (Timeout, OSError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
