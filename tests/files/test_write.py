"""Parts that killed processes left: removed when the folder is next written to, and never one of a living process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flrplan.files import link, write_text
from flrplan.files import write as module

DAYS = 86400.0


@pytest.fixture(autouse=True)
def looked_at_no_folder() -> None:
    module._sweep.cache_clear()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days have passed."""
    now = time.time() + 2 * DAYS
    monkeypatch.setattr(module.time, "time", lambda: now)


@pytest.mark.usefixtures("later")
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".part-0123abcd-plan.json"
    others = [tmp_path / name for name in (".part-4711-plan.json", "x.part-0123abcd-plan.json", ".part-0123abcd-")]
    for file in (left, *others):
        file.write_text("half")
    (tmp_path / ".part-0123abcd-folder").mkdir()
    (tmp_path / ".part-0123abcd-link").symlink_to(others[0])
    there = {p.name for p in tmp_path.iterdir()}
    write_text(tmp_path / "another.json", "{}")
    assert {p.name for p in tmp_path.iterdir()} == there - {left.name} | {"another.json"}


def test_a_part_that_was_touched_within_a_day_stays_though_it_links_to_something_old(tmp_path: Path) -> None:
    """As :func:`flrplan.files.link` makes it: the part has the time at which its content was last changed."""
    written, linked, old = (tmp_path / name for name in (".part-0123abcd-a", ".part-0123abcd-b", "old"))
    written.write_text("half")
    old.write_text("whole")
    os.utime(old, (1, 1))
    os.link(old, linked)
    write_text(tmp_path / "another", "")
    link(old, tmp_path / "second")
    assert written.exists()
    assert linked.exists()
    assert (tmp_path / "second").samefile(old)
