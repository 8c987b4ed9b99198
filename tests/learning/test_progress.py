from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flrplan.learning import Progress, TaskProgress, read_stats
from flrplan.learning.progress import JoinedProgress, Run, stopped
from flrplan.nnunet.train import EpochReport


def report(epoch: int, dice: float) -> EpochReport:
    return EpochReport(epoch, 3, 0.5, 0.6, dice, 1.0)


def test_the_keys_that_slicer_shows(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "stats.json", 3)
    first = read_stats(progress.path)
    assert (first["epoch"], first["total_epochs"], first["best_metric"], first["total_time"]) == (0, 3, 0.0, "0:00:00")
    for epoch, dice in enumerate([float("nan"), 0.4, 0.3]):
        progress.epoch(report(epoch, dice))
    stats = json.loads(progress.path.read_text())
    assert (stats["epoch"], stats["total_epochs"], stats["pseudo_dice"], stats["state"]) == (3, 3, 0.4, "training")
    assert stats["best_metric"] == 0.0, "the pseudo Dice is not what the new model is compared by"


def test_iterations_are_seen_but_not_all_of_them_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("flrplan.learning.progress.time", lambda: now)
    progress = Progress(tmp_path / "stats.json", 3)
    seen = []
    for done in range(1, 10):
        progress.iteration(done, 750)
        stats = read_stats(progress.path)
        seen.append(stats["iteration"])
        assert (stats["total_iterations"], stats["epoch"], stats["state"]) == (750, 0, "training")
        now += 0.9
    assert seen == [1, 1, 1, 4, 4, 4, 7, 7, 7]  # every 2 s


def test_stages_are_joined(tmp_path: Path) -> None:
    joined = JoinedProgress(tmp_path / "joined.json", {"liver": 3, "crlm": 3})
    assert read_stats(joined.path)["state"] == "waiting"
    liver = Progress(tmp_path / "liver.json", 3, joined.listener("liver"))
    liver.epoch(report(0, 0.8))
    stats = read_stats(joined.path)
    assert (stats["epoch"], stats["total_epochs"], stats["best_metric"], stats["state"]) == (1, 6, 0.0, "training")
    liver.update(state="comparing", holdout_dice={}, best_metric=0.8)
    liver.update(state="done", message="published: 0.800")
    crlm = Progress(tmp_path / "crlm.json", 3, joined.listener("crlm"))
    assert read_stats(joined.path)["state"] == "preparing"
    crlm.epoch(report(2, 0.2))
    assert read_stats(joined.path)["best_metric"] == 0.8, "of what has been compared"
    crlm.update(holdout_dice={}, best_metric=0.2)
    crlm.update(state="failed", message="no memory")
    stats = read_stats(joined.path)
    assert (stats["epoch"], stats["best_metric"], stats["state"]) == (4, 0.2, "failed")
    assert stats["stages"]["liver"]["best_metric"] == 0.8
    assert stats["message"] == "liver: published: 0.800; crlm: no memory"


def test_stats_that_cannot_be_written_are_told_and_end_nothing(
    tmp_path: Path, full_while: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    full_while(tmp_path)
    joined = JoinedProgress(tmp_path / "joined.json", {"liver": 3, "crlm": 3})
    Progress(tmp_path / "liver.json", 3, joined.listener("liver")).epoch(report(0, 0.8))
    assert "liver.json: No space left on device; check that the disk has room" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_failure_between_the_stages_ends_the_joined_stats(tmp_path: Path) -> None:
    run = Run("cascade", 7, 1.5)
    task = TaskProgress(lambda name: tmp_path / f"{name}.json", {"liver": 3, "crlm": 3, "flr": 3}, run)
    joined = read_stats(tmp_path / "cascade.json")
    assert (joined["state"], joined["epoch"]) == ("preparing", 0)  # before any label is read
    assert joined["run"] == read_stats(tmp_path / "liver.json")["run"] == {"task": "cascade", "pid": 7, "since": 1.5}
    task.of("liver").update(state="done")
    task.of("crlm").update(state="failed", message="no memory")
    assert read_stats(tmp_path / "cascade.json")["state"] == "waiting"  # it may go on with the next
    task.fail("no memory")
    joined = read_stats(tmp_path / "cascade.json")
    assert (joined["state"], joined["message"]) == ("failed", "no memory")
    assert {name: s["state"] for name, s in joined["stages"].items()} == {"liver": "done", "crlm": "failed", "flr": "stopped"}
    assert not (tmp_path / "flr.json").exists()


def test_of_a_run_that_is_gone_nothing_more_comes() -> None:
    stats = {"state": "training", "epoch": 2, "stages": {"liver": {"state": "done"}, "crlm": {"state": "training"}}}
    assert stopped(stats) == {
        "state": "stopped",
        "epoch": 2,
        "stages": {"liver": {"state": "done"}, "crlm": {"state": "stopped"}},
    }
    assert stopped({"state": "failed"}) == {"state": "failed"}


def test_nothing_and_junk_are_empty(tmp_path: Path) -> None:
    assert read_stats(tmp_path / "none.json") == {}
    (tmp_path / "junk.json").write_text("[1")
    assert read_stats(tmp_path / "junk.json") == {}
