"""Worker processes: seeded, reported when they die, replaced by fewer."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

from flrplan.errors import TrainingError
from flrplan.nnunet.train.batches import Batches, resolve_workers

HERE = os.getpid()


class Draws:
    """Batches of random numbers; ``fault`` happens in worker processes only, or everywhere."""

    def __init__(self, fault: str = "", everywhere: bool = False) -> None:
        self.fault = fault
        self.everywhere = everywhere

    def __next__(self) -> dict[str, Any]:
        if self.fault and (self.everywhere or os.getpid() != HERE):
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(f"{self.fault}: case_17.b2nd cannot be read")
        return {"data": torch.rand(2), "numpy": float(np.random.rand()), "pid": os.getpid()}


@pytest.mark.parametrize(
    ("setting", "device", "processes", "cores", "expected"),
    [
        ("auto", "cpu", 1, 32, 0),
        ("auto", "cuda", 1, 8, 7),
        ("auto", "cuda", 1, 64, 12),
        ("auto", "cuda", 2, 16, 7),
        ("auto", "cuda", 1, 1, 1),
        (3, "cpu", 1, 2, 3),
    ],
)
def test_how_many(
    setting: int | str, device: str, processes: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    assert resolve_workers(setting, torch.device(device), processes) == expected


def test_workers_draw_apart_and_the_same_again() -> None:
    runs = []
    for _ in range(2):
        batches = Batches(Draws(), 2, (3, 0))
        runs.append([next(batches) for _ in range(4)])
        batches.close()
    assert len({b["pid"] for b in runs[0]}) == 2
    assert HERE not in {b["pid"] for b in runs[0]}
    assert len({b["numpy"] for b in runs[0]}) == 4, "no two workers draw the same"
    assert len({tuple(b["data"].tolist()) for b in runs[0]}) == 4
    assert [b["numpy"] for b in runs[0]] == [b["numpy"] for b in runs[1]]


@pytest.mark.parametrize(("fault", "said"), [("damaged", "case_17.b2nd cannot be read"), ("killed", "exited unexpectedly")])
def test_a_worker_that_dies_is_told_and_the_training_goes_on(fault: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    batches = Batches(Draws(fault), 1, (3,))
    with caplog.at_level(logging.WARNING):
        assert next(batches)["pid"] == HERE
    assert batches.workers == 0
    assert said in caplog.text
    assert "going on with 0 instead of 1" in caplog.text
    assert said in batches.failures[0]
    assert signal.getsignal(signal.SIGCHLD) == before


def test_fewer_and_fewer_then_the_error_itself() -> None:
    batches = Batches(Draws("damaged", everywhere=True), 2, (3,))
    with pytest.raises(TrainingError, match=r"no batch could be made: OSError: damaged: case_17.b2nd cannot be read"):
        next(batches)
    assert len(batches.failures) == 2, "two workers, then one, then none"
