"""A folder with versions: whoever looks finds a whole one, whatever instant a process dies at; room is asked for before it is needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import Any

import pytest

from flrplan.errors import ModelError, OutputError
from flrplan.files import alone_in, current_version, publish_version, require_room, use_version, versions
from flrplan.files.folder import KEPT_VERSIONS


def make(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    for name in ("a.txt", "b.txt"):
        (path / name).write_text(text)
    return path


def text(folder: Path) -> str:
    """What the current version holds; its two files must agree."""
    version = current_version(folder)
    (found,) = {(version / name).read_text() for name in ("a.txt", "b.txt")}
    return found


def test_the_first_version_is_the_folder_itself(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "liver"
    assert current_version(folder) == folder
    assert publish_version(make(tmp_path / "new", "first"), folder) == folder
    assert sorted(p.name for p in folder.iterdir()) == ["a.txt", "b.txt"]
    assert (text(folder), versions(folder)) == ("first", [0])


def test_later_ones_lie_in_it_and_the_newest_stay(tmp_path: Path) -> None:
    folder = make(tmp_path / "liver", "0")
    for number in range(1, 6):
        new = make(tmp_path / "new", str(number))
        assert publish_version(new, folder) == folder / "versions" / str(number)
        assert text(folder) == str(number)
        assert (folder / "a.txt").read_text() == "0"
    assert versions(folder) == [0, 3, 4, 5]
    assert len(versions(folder)) == 1 + KEPT_VERSIONS
    assert sorted(p.name for p in folder.iterdir()) == ["a.txt", "b.txt", "current", "versions"]
    assert [p.name for p in tmp_path.iterdir()] == ["liver"]


def test_going_back_and_on(tmp_path: Path) -> None:
    folder = make(tmp_path / "liver", "0")
    for number in range(1, 4):
        publish_version(make(tmp_path / "new", str(number)), folder)
    assert use_version(folder, "0") == folder
    assert text(folder) == "0"
    use_version(folder, "1")
    assert text(folder) == "1"
    publish_version(make(tmp_path / "new", "4"), folder)
    assert text(folder) == "4"
    assert versions(folder) == [0, 1, 2, 3, 4]  # 1 served until now, so somebody may be reading it
    with pytest.raises(ModelError, match=r"liver: you asked for version '7', expected one of 0, 1, 2, 3, 4$"):
        use_version(folder, "7")


def test_a_pointer_to_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "liver", "0")
    (folder / "current").write_text("2\n")
    with pytest.raises(ModelError, match=r"liver/current names version '2', expected one of 0$"):
        current_version(folder)
    (folder / "current").write_text("0\n")
    assert current_version(folder) == folder


def test_what_cannot_be_renamed_leaves_the_old_one(tmp_path: Path) -> None:
    folder = make(tmp_path / "liver", "old")
    with pytest.raises(OutputError, match=r"could not put a new version into .*liver: No such file .* the current one stays"):
        publish_version(tmp_path / "none", folder)
    assert text(folder) == "old"


def test_a_reader_finds_a_whole_one_at_every_instant(tmp_path: Path) -> None:
    folder, stop = make(tmp_path / "liver", "0"), Event()
    seen, failed = [-1], []

    def look() -> None:
        while not stop.is_set():
            try:
                seen.append(int(text(folder)))
            except (ModelError, OSError, ValueError) as error:
                failed.append(error)

    reader = Thread(target=look)
    reader.start()
    for number in range(1, 30):
        new, looks = make(tmp_path / "new", str(number)), len(seen)
        while len(seen) == looks:  # an old one stays while KEPT_VERSIONS newer come
            sleep(0.0001)
        publish_version(new, folder)
    stop.set()
    reader.join()
    assert (failed, seen) == ([], sorted(seen))


KILLED_AT_EVERY_OPERATION = """
import os, shutil, signal, sys
from pathlib import Path
from flrplan.files import current_version, publish_version

root = Path(sys.argv[1])
for die_at in range(1, 1000):
    folder, seen = root / str(die_at) / "liver", 0
    for number in range(int(sys.argv[2]) + 1):
        new = root / str(die_at) / "new"
        new.mkdir(parents=True)
        (new / "a.txt").write_text("old" if number < int(sys.argv[2]) else "new")
        if number < int(sys.argv[2]):
            publish_version(new, folder)
    child = os.fork()
    if not child:
        def hook(event, _):
            global seen
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
                seen += 1
                if seen == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        publish_version(new, folder)
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    there = current_version(folder).exists()
    print(int(killed), (current_version(folder) / "a.txt").read_text() if there else "none")
    if not killed:
        break
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    (new / "a.txt").write_text("next")
    publish_version(new, folder)
    assert (current_version(folder) / "a.txt").read_text() == "next"
"""


@pytest.mark.parametrize(("before", "old"), [(0, "none"), (1, "old"), (5, "old")])
def test_killed_at_any_file_operation(tmp_path: Path, before: int, old: str) -> None:
    command = [sys.executable, "-c", KILLED_AT_EVERY_OPERATION, str(tmp_path), str(before)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    *killed, last = done.stdout.splitlines()
    assert last == "0 new"
    found = [line.removeprefix("1 ") for line in killed]
    assert found[0] == old
    assert found == sorted(found, key=[old, "new"].index), "first always the old one, then always the new one"


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = shutil._ntuple_diskusage(100_000_000_000, 97_500_000_000, 2_500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    require_room(tmp_path / "not there yet" / "deeper", 2_000_000_000, "a copy")
    with pytest.raises(OutputError, match=r"work: preprocessing needs about 21 GB, but only 2.5 GB are free"):
        require_room(tmp_path / "work", 21_000_000_000, "preprocessing")


def test_who_is_in_a_folder_is_waited_for_and_nothing_is_left_there(tmp_path: Path) -> None:
    """Another process holds the folder until it is killed."""
    held, order = Event(), list[str]()
    words = "import pathlib, sys, time; from flrplan.files import alone_in\n"
    words += "with alone_in(pathlib.Path(sys.argv[1])): print(1, flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", words, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"1\n"

    def enter() -> None:
        held.set()
        with alone_in(tmp_path):
            order.append("entered")

    thread = Thread(target=enter)
    thread.start()
    assert held.wait(20)
    thread.join(0.3)
    order.append("killed")
    other.kill()
    other.communicate()
    thread.join(20)
    assert order == ["killed", "entered"]
    assert list(tmp_path.iterdir()) == []
