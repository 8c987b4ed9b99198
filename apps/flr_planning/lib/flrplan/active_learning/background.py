"""Keeps scores up to date beside a server: what is there is known at once, what is missing is measured in the background, a case at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flrplan.active_learning.cache import ERROR, ScoreCache, key_of
from flrplan.active_learning.process import ScoringProcess
from flrplan.active_learning.strategies import Known, Part
from flrplan.active_learning.voters import Voters, find_voters
from flrplan.engine import ModelStore
from flrplan.errors import FlrError, ImageError, ModelError, OutputError, ServiceError
from flrplan.files import sha256_of_file, stamp_of

if TYPE_CHECKING:
    from flrplan.engine import CascadeSettings

_LOG = logging.getLogger(__name__)
_TRIES = 2
"""How often a process may end over a case: once may be somebody's kill."""


@dataclass(frozen=True)
class LabelFile:
    """The label that a case came with, and what its values mean, where its header does not say."""

    file: Path
    names: Mapping[str, int]

    @property
    def key(self) -> str:
        """Changes with the content of the file and with the names. Raises OSError."""
        return key_of([_content(self.file, stamp_of(self.file)), dict(self.names)])


@cache
def _content(file: Path, stamp: str) -> str:
    """Hash of a label, read once while its stamp is the same; of one that cannot be read, the stamp, and the scoring says that it cannot."""
    try:
        return sha256_of_file(file)
    except OSError:
        return stamp


class Studies(Protocol):
    """The cases of a server."""

    def cases(self) -> list[str]:
        """All of them."""

    def to_score(self) -> list[str]:
        """Those without a label that nobody has in hand."""

    def at_hand(self, case: str) -> Path | None:
        """The image's files; None where they would have to be fetched first."""

    def fetch(self, case: str) -> Path:
        """The image's files, fetched where they must be."""

    def original(self, case: str) -> LabelFile | None:
        """The label that a case came with."""


@dataclass(frozen=True)
class State:
    """How far the scores are. skipped: cases that cannot be scored, and why. models: between whom they disagree, or why they say nothing."""

    running: bool
    scored: Mapping[str, int]
    of: int
    skipped: Mapping[str, str]
    models: str


class Scores:
    """The scores of a server's cases. folder: of the cache. store, settings: the models, and how they run."""

    def __init__(self, folder: Path, store: ModelStore, settings: CascadeSettings, studies: Studies) -> None:
        self._cache = ScoreCache(folder)
        self._store = store
        self._settings = settings
        self._studies = studies
        self._guard = threading.Lock()
        self._wanted: set[Part] = set()
        self._woken = self._running = False
        self._given_up: dict[tuple[str, str | None], str] = {}
        self._deaths: dict[str, int] = {}
        self._models_error: tuple[str, str] | None = None
        self._stopped = ""
        self._process: ScoringProcess | None = None

    def known(self, cases: Iterable[str], parts: Collection[Part] = tuple(Part)) -> dict[str, Known]:
        """What is known of each case; nothing is measured, and no image is read."""
        found = {}
        for case, measured in self._measured(cases, parts):
            found[case] = Known(**{p.value: content for p, content in measured.items() if content and ERROR not in content})
        return found

    def have_labels(self, cases: Iterable[str]) -> bool:
        """Whether any of these cases came with a label."""
        return any(self._studies.original(case) is not None for case in cases)

    def why_no_models(self) -> str:
        """Why the models cannot score, in a sentence; empty where they can."""
        voters = self._voters()
        if isinstance(voters, str):
            return voters
        return self._models_error[1] if self._models_error and self._models_error[0] == voters.stamp else ""

    @property
    def why_stopped(self) -> str:
        """Why scoring ended before all was scored, in a sentence; empty where it did not, or was told to."""
        return self._stopped

    def skipped(self, cases: Iterable[str], parts: Collection[Part] = tuple(Part)) -> dict[str, str]:
        """Which of these cases cannot be scored, and why."""
        found = {}
        for case, measured in self._measured(cases, parts):
            reasons = [str(content[ERROR]) for content in measured.values() if content and ERROR in content]
            reasons += [why for why in [self._given_up.get((case, self._stamp(case)))] if why]
            if reasons:
                found[case] = reasons[0]
        return found

    def state(self) -> State:
        """How far the scores of the cases without a label are."""
        cases = self._studies.to_score()
        known = self.known(cases)
        voters = self._voters()
        words = self.why_no_models() or (voters.words if isinstance(voters, Voters) else voters)
        scored = {part.value: sum(bool(getattr(k, part.value)) for k in known.values()) for part in Part}
        return State(self._running, scored, len(cases), self.skipped(cases), self._stopped or words)

    def start(self, parts: Collection[Part] = tuple(Part), again: bool = False) -> None:
        """Measures these parts of the cases without a label, and the images of the others, in a thread that ends when all is done.

        Returns at once. again: also what was given up.
        """
        with self._guard:
            if again:
                self._given_up.clear()
                self._deaths.clear()
                self._models_error = None
            self._wanted |= {Part.IMAGE, *parts}
            self._woken = True
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="case scores", daemon=True).start()

    def stop(self) -> None:
        """Ends what is being measured; the next :meth:`start` goes on."""
        with self._guard:
            self._wanted.clear()
            self._woken = False
            process = self._process
        if process is not None:
            process.kill()

    def _run(self) -> None:
        self._process = process = ScoringProcess(self._cache.folder, self._store, self._settings)
        try:
            while self._go_on():
                asked: set[str] = set()
                while (request := self._next(asked)) is not None:
                    self._measure(process, *request)
                self._stopped = ""
        except Exception as error:  # a thread has nobody to tell; scores are of use, not needed
            self._stopped = f"scoring stopped: {error}"
            (_LOG.warning if isinstance(error, FlrError) else _LOG.exception)("%s", self._stopped)
            with self._guard:
                self._running = False
        finally:
            process.close()

    def _go_on(self) -> bool:
        with self._guard:
            self._woken, self._running = False, self._woken
            return self._running

    def _next(self, asked: set[str]) -> tuple[str, str | None, dict[str, Any]] | None:
        """The next case to measure: what is cheap of all cases first. asked: what was asked for already, so that nothing is asked for ever."""
        voters = self._voters()
        failed = self._models_error is not None and isinstance(voters, Voters) and self._models_error[0] == voters.stamp
        key = self._models_key()
        wanted = self._wanted - (set() if isinstance(voters, Voters) and not failed else {Part.MODELS})
        cases = sorted(self._studies.to_score())
        others = sorted({*self._studies.cases()} - {*cases}) if wanted else []
        rounds: list[tuple[list[str], set[Part]]] = [
            (cases, wanted - {Part.MODELS}),
            ([c for c in others if self._studies.at_hand(c) is not None], wanted & {Part.IMAGE}),
            (cases, wanted & {Part.MODELS}),
        ]
        for of_round, parts in rounds:
            for case in of_round if parts else ():
                stamp = self._stamp(case)
                missing = sorted(p for p, m in self._parts(case, stamp, parts, key).items() if m is None)
                if not missing or (case, stamp) in self._given_up:
                    continue
                request: dict[str, Any] = {"case": case, "parts": missing}
                if Part.LABEL in missing and (label := self._studies.original(case)) is not None:
                    request["label"] = {"file": str(label.file), "names": dict(label.names), "key": label.key}
                once = key_of([request, stamp, key, voters.stamp if isinstance(voters, Voters) else ""])
                if once not in asked:
                    asked.add(once)
                    return case, stamp, request
        return None

    def _measure(self, process: ScoringProcess, case: str, stamp: str | None, request: dict[str, Any]) -> None:
        voters = self._voters()
        try:
            image = self._studies.fetch(case)
            stamp = stamp or stamp_of(image)
            answer = process.measure({**request, "image": str(image)})
        except OutputError:
            raise
        except ServiceError as error:
            if not self._wanted:  # it was stopped
                return
            self._deaths[case] = self._deaths.get(case, 0) + 1
            if self._deaths[case] >= _TRIES:
                self._give_up(case, stamp, error)
            self._woken = True
            return
        except Exception as error:  # a download, a file that is gone: it costs its case, not the others
            self._give_up(case, stamp, error)
            return
        self._stopped = ""
        self._cache.note_image(case, stamp, answer["digest"])
        if models := answer.get("models"):
            self._cache.note_models(models["stamp"], models["key"])
        if reason := answer.get("models_error"):
            self._models_error = (voters.stamp, str(reason)) if isinstance(voters, Voters) else None
            _LOG.warning("cases are not scored by the models: %s", reason)

    def _give_up(self, case: str, stamp: str | None, error: Exception) -> None:
        self._given_up[case, stamp] = str(getattr(error, "detail", None) or error)
        _LOG.warning("case %s is not scored: %s", case, self._given_up[case, stamp])

    def _voters(self) -> Voters | str:
        try:
            return find_voters(self._store, self._settings)
        except (ModelError, OSError) as error:  # OSError: replaced this very moment
            return str(error)

    def _stamp(self, case: str) -> str | None:
        try:
            path = self._studies.at_hand(case)
            return None if path is None else stamp_of(path)
        except (OSError, ImageError):  # gone, or not to be read: who measures it says so
            return None

    def _measured(
        self, cases: Iterable[str], parts: Collection[Part]
    ) -> Iterator[tuple[str, dict[Part, Mapping[str, Any] | None]]]:
        key = self._models_key() if Part.MODELS in parts else None
        for case in cases:
            yield case, self._parts(case, self._stamp(case), parts, key)

    def _models_key(self) -> str | None:
        voters = self._voters()
        return self._cache.models_key(voters.stamp) if isinstance(voters, Voters) else None

    def _parts(
        self, case: str, stamp: str | None, parts: Collection[Part], models_key: str | None
    ) -> dict[Part, Mapping[str, Any] | None]:
        """These parts of a case; None for one that was not measured, without one that there is nothing to measure of."""
        digest = self._cache.digest(case, stamp)
        keys: dict[Part, str | None] = {part: models_key if part is Part.MODELS else key_of(None) for part in parts}
        if Part.LABEL in keys:
            label = self._studies.original(case)
            keys[Part.LABEL] = None
            with suppress(OSError):  # deleted this very moment
                keys[Part.LABEL] = None if label is None else label.key
            if keys[Part.LABEL] is None:
                del keys[Part.LABEL]
        return {p: None if digest is None or key is None else self._cache.read(digest, p, key) for p, key in keys.items()}
