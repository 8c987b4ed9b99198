"""Trainings are started and stopped on one queue: stand-ins for the process, the host's own queue."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from monailabel.utils.async_tasks import utils as host_tasks

from flrplan.anatomy import PlanningLabel, Structure
from flrplan.errors import LabelError
from flrplan.image import CT
from flrplan.learning import AnnotatedImage, require_enough_of
from flrplan.method import CRLM, LIVER
from flrplan.server import train_queue
from flrplan.server.train import StageTrainTask
from flrplan.server.train_queue import start_all, start_one, stop_all


@pytest.fixture
def app(
    tmp_path: Path, make_studies: Callable[[Path], Path], make_app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Any:
    (tmp_path / "models").mkdir()
    app = make_app(make_studies(tmp_path / "studies"), {"device": "cpu", "models": str(tmp_path / "models")})
    monkeypatch.setattr(train_queue, "app_instance", lambda: app)
    monkeypatch.setattr("monailabel.utils.async_tasks.task.app_instance", lambda: app)
    return app


@pytest.fixture
def queue(app: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every stage can be trained, and a training is a process that sleeps; what was started, in order."""
    started: list[str] = []
    real = subprocess.Popen

    def sleep(command: list[str], **more: Any) -> subprocess.Popen[str]:
        started.append(command[-1])
        return real([sys.executable, "-c", "import time; time.sleep(60)"], **more)

    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(host_tasks.subprocess, "Popen", sleep)
    monkeypatch.setattr(StageTrainTask, "require_trainable", lambda *_: None)
    for kept in (host_tasks.background_tasks, host_tasks.background_processes, host_tasks.background_executors):
        monkeypatch.delitem(kept, "train", raising=False)
    yield started
    stop_all()
    for kept in (host_tasks.background_tasks, host_tasks.background_processes, host_tasks.background_executors):
        kept.pop("train", None)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def states() -> list[str]:
    return [task["status"] for task in host_tasks.tasks("train")]


def test_update_model_queues_each_stage_once_and_stop_ends_all(queue: list[str]) -> None:
    found = start_all({"device": "cpu"})
    assert list(found) == ["liver", "crlm", "flr", "flr_e2e"]  # the cascade would train the first three again
    wait_for(lambda: "RUNNING" in states())
    ended = stop_all()
    assert ended is not None
    assert (ended["request"]["model"], ended["status"]) == ("liver", "STOPPED")
    assert states() == ["STOPPED"] * 4
    time.sleep(0.3)
    assert len(queue) == 1, "nothing that waited was started"
    start_one("crlm")
    wait_for(lambda: states()[-1] == "RUNNING")  # the queue goes on


def test_a_stop_at_once_leaves_none_behind(queue: list[str]) -> None:
    for _ in range(5):
        start_all()
        stop_all()
        assert set(states()) == {"STOPPED"}
        assert not host_tasks.processes("train")


def test_one_at_a_time_unless_it_is_queued(queue: list[str]) -> None:
    start_one("liver")
    with pytest.raises(HTTPException, match="a training runs already") as caught:
        start_one("crlm")
    assert caught.value.status_code == 429
    assert start_one("crlm", enqueue=True)["status"] == "SUBMITTED"
    assert stop_all() is not None
    assert stop_all() is None


def test_nothing_starts_without_labels_or_with_unknown_options(app: Any) -> None:
    for start in (lambda: start_one("cascade"), start_all):
        with pytest.raises(
            HTTPException, match=r"no image has a final label, so nothing can be learned\. Draw a structure"
        ) as caught:
            start()
        assert caught.value.status_code == 400
    with pytest.raises(HTTPException, match="unknown training options max_epochs; known are"):
        start_one("liver", {"max_epochs": 3})
    with pytest.raises(HTTPException, match="no model 'heart' here; known are liver"):
        start_one("heart")
    assert host_tasks.tasks("train") == []


def test_labels_are_read_until_there_are_enough(small_ct: CT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flrplan.learning.annotations.read_ct", lambda _: small_ct)
    read: list[str] = []

    def image(name: str, *holds: Structure) -> AnnotatedImage:
        def label(_: CT) -> PlanningLabel:
            read.append(name)
            if not holds:
                raise LabelError("it is no label")
            masks = {s: np.ones((2, 2, 2), bool) for s in holds}
            return PlanningLabel(masks)

        return AnnotatedImage(name, tmp_path / name, label)

    livers = [image(f"{n}", Structure.LIVER) for n in range(6)]
    require_enough_of(livers, (LIVER, CRLM))
    assert read == ["0", "1", "2", "3"]
    with pytest.raises(LabelError) as caught:
        require_enough_of([*livers[:4], image("broken")], (LIVER, CRLM), held_out={"2"})
    assert "stage liver: 3 cases can train it, at least 4 are needed" in str(caught.value)
    assert "2: held out by the split file; broken: it is no label" in str(caught.value)
    assert "stage crlm: 0 cases can train it" in str(caught.value)
    assert "its label does not hold crlm; it holds liver" in str(caught.value)
