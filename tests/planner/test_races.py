"""What several people, or one who clicks twice, ask of the planner's page at the same moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from flrplan.errors import SettingsError
from flrplan.planner import Jobs, PlannerSettings, router
from flrplan.planner import jobs as module
from flrplan.planner.jobs import Job, State
from flrplan.planner.upload import Choice

ServePlanner = Callable[[Jobs], AbstractContextManager[str]]


class Planned:
    """What a plan of the stand-in saves."""

    ct = type("CT", (), {"name": "case"})

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "planning.nii.gz").write_bytes(b"map")


class Slow(list[Choice]):
    """Choices that let other threads go first."""

    def __getitem__(self, number: Any) -> Any:
        time.sleep(0.02)
        return super().__getitem__(number)


@pytest.fixture
def made(tmp_path: Path) -> Jobs:
    return Jobs(PlannerSettings(folder=tmp_path / "jobs"), lambda: object())  # type: ignore[arg-type,return-value]


@pytest.fixture
def jobs(made: Jobs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Jobs of which none is planned."""
    monkeypatch.setattr(made, "_work", lambda: None)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def done(made: Jobs, serve_planner: ServePlanner) -> Iterator[tuple[Job, str]]:
    """A job that is done, and its page."""
    with serve_planner(made) as url:
        place = made.keep(Planned())  # type: ignore[arg-type]
        (job,) = made._jobs.values()
        while job.state is not State.DONE:
            time.sleep(0.02)
        yield job, urljoin(url, f"../{place}")


def asking(jobs: Jobs, choices: list[Choice] | None = None) -> Job:
    """A job that asks which CT."""
    job = jobs.new()
    job.choices, job.state = choices or [Choice(Path("a"), None, "a"), Choice(Path("b"), None, "b")], State.CHOOSE
    jobs._jobs[job.id] = job
    return job


def at_once(act: Callable[[int], object], count: int = 12) -> int:
    """How many of so many threads that begin together are not refused."""
    barrier = threading.Barrier(count)

    def one(number: int) -> bool:
        barrier.wait()
        try:
            act(number)
        except SettingsError:
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(one, range(count)))


def test_of_clicks_at_once_on_choices_one_counts(jobs: Jobs) -> None:
    job = asking(jobs, Slow([Choice(Path("a"), None, "a"), Choice(Path("b"), None, "b")]))
    assert at_once(lambda number: jobs.choose(job, number % 2)) == 1
    assert jobs._waiting.qsize() == 1
    assert len(job.choices) == 1


@pytest.mark.parametrize("number", [-1, 2])
def test_a_choice_that_is_none_is_refused(jobs: Jobs, number: int) -> None:
    with pytest.raises(SettingsError, match="no longer open"):
        jobs.choose(asking(jobs), number)


def test_a_choice_of_a_plan_that_is_deleted_meanwhile_is_refused(jobs: Jobs) -> None:
    job = asking(jobs)
    jobs.delete(job)
    with pytest.raises(SettingsError, match="no longer open"):
        jobs.choose(job, 0)
    assert jobs._waiting.qsize() == 0
    assert jobs.before(job) == 0, "its page may be asked for at that moment"


def test_a_choice_made_late_waits_behind_those_that_wait_already(jobs: Jobs) -> None:
    late, early = asking(jobs), asking(jobs)
    jobs.choose(early, 0)
    jobs.choose(late, 0)
    assert (jobs.before(early), jobs.before(late)) == (0, 1)


def test_uploads_at_once_do_not_pass_the_most_that_is_kept(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_JOBS", 3)
    assert at_once(lambda _: jobs.new()) == 3


def test_an_upload_is_not_seen_before_it_is_whole_and_not_deleted_while_it_comes_in(jobs: Jobs) -> None:
    job = jobs.new()
    job.deleted_at = job.deleted_at.replace(year=2000)
    assert jobs.find(job.id) is None
    assert job.folder.is_dir()
    jobs.delete(job)
    assert not job.folder.exists()


def test_a_plan_that_is_being_written_offers_no_file(jobs: Jobs) -> None:
    job = asking(jobs)
    job.state = State.PLANNING
    with job.guard:  # as whoever writes it holds it; to ask does not wait for that
        assert job.files() == {}
        assert job.open("planning.nii.gz") is None


def test_what_is_downloaded_while_it_is_deleted_arrives_whole(
    done: tuple[Job, str], made: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, page = done
    opened, send = threading.Event(), router._chunks

    def late(file: Any) -> Iterator[bytes]:
        opened.set()
        time.sleep(0.3)
        yield from send(file)

    monkeypatch.setattr(router, "_chunks", late)
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(requests.get, f"{page}files/planning.nii.gz", timeout=30)
        assert opened.wait(10)
        made.delete(job)
        assert (download.result().status_code, download.result().content) == (200, b"map")
    assert not job.folder.exists()


def test_what_is_found_an_instant_before_it_is_deleted_is_told_as_gone(
    done: tuple[Job, str], made: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, page = done
    monkeypatch.setattr(made, "find", lambda _: job)
    made.delete(job)
    assert requests.get(f"{page}files/planning.nii.gz", timeout=30).status_code == 404
    assert "This plan is not here" in requests.get(page, timeout=30).text


def test_what_goes_wrong_because_a_plan_was_deleted_is_no_error(
    made: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    planned = threading.Event()

    def stand_in(path: Path, **_: Any) -> None:
        if planned.is_set():
            return
        planned.set()
        made.delete(job)
        raise FileNotFoundError(path)

    monkeypatch.setattr(module, "plan", stand_in)
    made.start()
    job = asking(made)
    made.choose(job, 0)
    assert planned.wait(10)
    made.stop()  # waits for the worker
    assert "FileNotFoundError" not in caplog.text
