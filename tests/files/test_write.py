"""Parts that killed processes left: removed when the folder is next written to, and never one of a living process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from flrplan.files import alone_in, link, make_writable, part_folder, replace_folder, replacing, write_text
from flrplan.files import folder as locks
from flrplan.files import write as module
from flrplan.files.write import part_path

DAYS = 86400.0


@pytest.fixture(autouse=True)
def looked_at_no_folder() -> None:
    module._sweep_once.cache_clear()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days have passed."""
    now = time.time() + 2 * DAYS
    monkeypatch.setattr(module.time, "time", lambda: now)


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders cannot be locked."""
    monkeypatch.setattr(locks, "fcntl", None)


KILLED = """
import os, signal, sys
from pathlib import Path
from flrplan.files import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_text("half")
    print(part.name, flush=True)
    if sys.argv[2:]:
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_a_killed_process_left_goes_when_the_folder_is_next_written_to(tmp_path: Path) -> None:
    for write in (lambda: write_text(tmp_path / "index.html", "whole"), lambda: make_writable(tmp_path, "")):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "index.html")], check=False)
        assert len(list(tmp_path.glob(".part-*-index.html"))) == 1
        write()
        assert names(tmp_path) == ["index.html"]


def test_a_part_of_a_living_process_stays(tmp_path: Path) -> None:
    args = [sys.executable, "-c", KILLED, str(tmp_path / "index.html"), "later"]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout is not None
        part = living.stdout.readline().strip()
        write_text(tmp_path / "other", "")
        assert names(tmp_path) == [part, "other"]
        living.kill()
    module.sweep(tmp_path)
    assert names(tmp_path) == ["other"]


def test_who_is_alone_in_a_folder_writes_there_and_its_parts_stay(tmp_path: Path) -> None:
    with alone_in(tmp_path), replacing(tmp_path / "a") as part:
        part.write_text("half")
        module.sweep(tmp_path)
        assert part.exists()
    assert names(tmp_path) == ["a"]


def test_a_part_of_another_machine_stays_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS locks a folder on each machine alone: there, the lock says nothing of who writes elsewhere."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(module, "_HOST", "0" * 8)
        file, folder = (module.part_path(tmp_path / name) for name in ("a", "b"))
    file.write_text("half")
    folder.mkdir()
    module.sweep(tmp_path)
    assert {*names(tmp_path)} == {file.name, folder.name}
    now = time.time() + 2 * DAYS
    monkeypatch.setattr(module.time, "time", lambda: now)
    module.sweep(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("later", "unlocked")
def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".part-0123abcd-plan.json"
    others = [tmp_path / name for name in (".part-4711-plan.json", "x.part-0123abcd-plan.json", ".part-0123abcd-")]
    for file in (left, *others):
        file.write_text("half")
    folder = tmp_path / ".part-0123abcd-folder"
    folder.mkdir()
    (folder / "slice-0001.dcm").write_text("half")
    os.utime(folder / "slice-0001.dcm", (1, 1))
    (tmp_path / ".part-0123abcd-link").symlink_to(others[0])
    there = {p.name for p in tmp_path.iterdir()}
    write_text(tmp_path / "another.json", "{}")
    assert {p.name for p in tmp_path.iterdir()} == there - {left.name, folder.name} | {"another.json"}


@pytest.mark.usefixtures("unlocked")
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


def test_a_part_folder_is_removed_whatever_ends_the_block_and_what_a_killed_process_left_with_it(tmp_path: Path) -> None:
    left = part_path(tmp_path / "new" / "models")
    (left / "liver").mkdir(parents=True)
    with suppress(KeyboardInterrupt), part_folder(tmp_path / "new" / "models") as part:
        assert not left.exists()
        (part / "weights").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_is_replaced_as_a_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "series"
    for number in (1, 2):
        with part_folder(path) as part:
            (part / f"slice_{number}").write_text("")
            replace_folder(part, path)
        assert [p.name for p in path.iterdir()] == [f"slice_{number}"]
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if (self / "slice_3").exists():
            raise OSError(errno.EACCES, "not now")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with part_folder(path) as part:
        (part / "slice_3").write_text("")
        with pytest.raises(OSError, match="not now"):
            replace_folder(part, path)
    assert [p.name for p in tmp_path.rglob("*")] == ["series", "slice_2"]
