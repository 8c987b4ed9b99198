"""``map_cases``: order, names, errors, and processes that die."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flrplan.errors import FlrError, LabelError, SettingsError
from flrplan.workfolder import map_cases


def slow_first(task: int) -> int:
    time.sleep(0.3 if task == 0 else 0)
    return 10 * task


def refuses_two(task: int) -> int:
    if task == 2:
        raise LabelError("case 2: no file states flr")
    return task


def dies_once(task: tuple[int, Path]) -> int:
    """The process dies at task 1 the first time that it is tried."""
    number, marker = task
    if number == 1 and not marker.exists():
        marker.touch()
        os._exit(9)
    return number


def dies(task: int) -> int:
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_in_the_order_of_the_tasks(workers: int) -> None:
    assert list(map_cases(slow_first, [0, 1, 2], workers, "slow")) == [0, 10, 20]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_through_as_it_is(workers: int) -> None:
    running: Iterator[int] = map_cases(refuses_two, [1, 2, 3], workers, "refusing")
    assert next(running) == 1
    with pytest.raises(LabelError, match=r"^case 2: no file states flr$"):
        list(running)


def test_a_process_that_dies_leaves_its_work_to_fewer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tasks = [(number, tmp_path / "died") for number in range(3)]
    assert list(map_cases(dies_once, tasks, 2, "dying", name=lambda task: f"case {task[0]}")) == [0, 1, 2]
    assert "going on with 1" in caplog.text


def test_a_lone_process_that_dies_names_its_case() -> None:
    with pytest.raises(FlrError, match=r"dying: the process was ended from outside at case 7 \(out of memory\?\)"):
        list(map_cases(dies, [7, 8], 2, "dying", name=lambda task: f"case {task}"))


def test_nothing_to_do_and_no_workers() -> None:
    assert list(map_cases(slow_first, [], 4, "nothing")) == []
    with pytest.raises(SettingsError, match="workers must be at least 1, got 0"):
        list(map_cases(slow_first, [1], 0, "nobody"))
