"""The process that measures cases: of low priority, one case at a time, one core, and gone when whoever asked it is.

A process of its own, since reading an image holds Python's lock for seconds, and ``next`` must not wait for that. It loads torch where the models
are asked, and not before.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.active_learning.cache import ERROR, ScoreCache, image_digest, key_of
from flrplan.active_learning.measure import UNREADABLE, measure_image, measure_label
from flrplan.active_learning.strategies import Part
from flrplan.active_learning.voters import decisive, find_voters
from flrplan.engine import ModelStore
from flrplan.errors import FlrError, ImageError, LabelError, ModelError, OutputError, ServiceError
from flrplan.image import CT, read_ct
from flrplan.image.segmentation import read_segmentation

if TYPE_CHECKING:
    from flrplan.engine import Cascade, CascadeSettings

_LOG = logging.getLogger(__name__)
_LOW = 10


class Measurer:
    """Measures the parts of a case that are not in the cache. Models stay open between cases.

    settings: those of :class:`flrplan.engine.cascade.CascadeSettings`.
    """

    def __init__(self, cache: ScoreCache, store: ModelStore, settings: Mapping[str, Any]) -> None:
        self.cache = cache
        self._store = store
        self._settings = settings

    @cached_property
    def _cascade(self) -> Cascade:
        from flrplan.engine import Cascade, CascadeSettings

        return Cascade(self._store, CascadeSettings(**self._settings))

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """``{"digest", "models": {"stamp", "key"}, "models_error"}`` of ``{"case", "image", "parts", "label": {"file", "names", "key"}}``.

        What cannot be measured is kept with its reason. Raises: ImageError where the image cannot be opened; OutputError.
        """
        image, parts = Path(request["image"]), [Part(p) for p in request["parts"]]
        try:
            digest = image_digest(image)
        except OSError as error:
            raise ImageError(f"{image}: {error.strerror or error}; check that the file is there and can be read") from error
        answer: dict[str, Any] = {"digest": digest}
        read: list[CT] = []

        def ct() -> CT:
            if not read:
                read.append(read_ct(image))
            return read[0]

        def keep(part: Part, key: str, measured: Any) -> None:
            if self.cache.read(digest, part, key) is None:
                self.cache.require_writable()
                self.cache.write(digest, part, key, _or_reason(measured))

        if Part.IMAGE in parts:
            keep(Part.IMAGE, key_of(None), lambda: measure_image(ct()))
        if Part.LABEL in parts and (label := request.get("label")):
            keep(Part.LABEL, label["key"], lambda: _label(label, ct()))
        if Part.MODELS in parts:
            try:
                answer["models"] = self._by_models(digest, ct)
            except ModelError as error:  # it may be mended, and then every case is asked for again
                answer["models_error"] = str(error)
        return answer

    def _by_models(self, digest: str, ct: Any) -> dict[str, str]:
        cascade = self._cascade
        voters = find_voters(self._store, cascade.settings)
        key = self._key(voters.vote, voters.models(cascade))
        if self.cache.read(digest, Part.MODELS, key) is None:
            self.cache.require_writable()
            used: dict[str, Any] = {}

            def measured() -> dict[str, Any]:
                from flrplan.active_learning.predictions import measure_by_models

                found, models = measure_by_models(ct(), cascade, voters)
                used.update(models)
                return found

            content = _or_reason(measured)
            if find_voters(self._store, cascade.settings).stamp != voters.stamp:
                return {}  # replaced meanwhile: nobody knows which models this is of, and it is measured again
            self.cache.write(digest, Part.MODELS, self._key(voters.vote, used) if used else key, content)
        return {"stamp": voters.stamp, "key": key}

    def _key(self, vote: str, models: Mapping[str, Any]) -> str:
        return key_of([vote, {n: m.decides for n, m in sorted(models.items())}, decisive(self._cascade.settings)])


def _label(label: Mapping[str, Any], ct: CT) -> dict[str, Any]:
    """Label QC; a label that cannot be read is the worst."""
    try:
        held = read_segmentation(Path(label["file"]))
        names = {} if held.names is not None else label["names"]
        if held.names is None and not names:
            raise LabelError(f"{label['file']}: no label names came with it, so its values say nothing")
        return measure_label(held.label(ct.geometry, ct.source, names), ct)
    except FlrError as error:
        return {"qc": UNREADABLE, "messages": [str(error)]}


def _or_reason(measured: Any) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = measured()
        return found
    except (ModelError, OutputError):
        raise
    except FlrError as error:
        return {ERROR: str(error)}
    except Exception as error:  # one case never costs the others their scores
        _LOG.exception("measuring")
        return {ERROR: f"unexpected {type(error).__name__}: {error}"}


class ScoringProcess:
    """A :class:`Measurer` in a process of its own, started at its first case."""

    def __init__(self, folder: Path, store: ModelStore, settings: CascadeSettings) -> None:
        demo = None if store.demo is None else str(store.demo)
        self._given = {"folder": str(folder), "root": str(store.root), "demo": demo, "settings": asdict(settings)}
        self._process: subprocess.Popen[str] | None = None
        self._ended = False

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`Measurer.measure`. Raises: what that raises; ServiceError where the process ended over it."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        if self._ended:
            self._process.kill()
        stdin, stdout = self._process.stdin, self._process.stdout
        line = ""
        if stdin is not None and stdout is not None:
            with suppress(OSError):
                stdin.write(json.dumps(request, default=str) + "\n")
                stdin.flush()
                line = stdout.readline()
        if not line.endswith("\n"):
            self.close()
            self._ended = False
            raise ServiceError("the process that scores cases ended over it (killed, or no memory was left)")
        answer: dict[str, Any] = json.loads(line)
        if kind := answer.get("raises"):
            raise _RAISED[kind](answer["message"])
        return answer

    def kill(self) -> None:
        """Ends the process at once, from any thread, also one that is just starting; what it has not written is measured again another time."""
        self._ended = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """Ends the process, and lets go of it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        source_root = str(Path(__file__).resolve().parents[2])
        paths = [source_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", __name__, json.dumps(self._given)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


_RAISED: dict[str, type[FlrError]] = {e.__name__: e for e in (ImageError, OutputError, ServiceError)}


def _serve(given: Mapping[str, Any]) -> None:
    """Answers a line for each line; ends with whoever writes them."""
    if hasattr(os, "nice"):
        os.nice(_LOW)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    requests: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(0)  # also in the middle of a case: nothing is half written

    threading.Thread(target=listen, daemon=True).start()
    measurer: Measurer | None = None
    while True:
        request = json.loads(requests.get())
        try:
            if measurer is None:
                store = ModelStore(given["root"], None if given["demo"] is None else Path(given["demo"]), cache_mb=0)
                measurer = Measurer(ScoreCache(Path(given["folder"])), store, given["settings"])
            answer = measurer.measure(request)
        except FlrError as error:
            kind = type(error).__name__
            answer = {"raises": kind if kind in _RAISED else ServiceError.__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    _serve(json.loads(sys.argv[1]))
