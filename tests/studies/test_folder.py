"""Labels and their records on the disk: whatever happens in between, what was stored is there, with its names."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flrplan.errors import ImageError, LabelError, OutputError
from flrplan.files import write
from flrplan.studies import StudiesFolder
from flrplan.studies import folder as folder_module
from flrplan.studies.names import check_id, check_tag, split_name, tag_order


@pytest.fixture
def studies(tmp_path: Path) -> StudiesFolder:
    root = tmp_path / "studies"
    root.mkdir()
    (root / "a.nii.gz").write_bytes(b"image a")
    return StudiesFolder(root)


@pytest.fixture
def save(studies: StudiesFolder, tmp_path: Path) -> Callable[..., None]:
    def store(content: str, tag: str = "final", ending: str = ".nii.gz", image_id: str = "a") -> None:
        file = tmp_path / f"upload{ending}"
        file.write_text(content)
        studies.save_label(image_id, tag, file, {"says": content})

    return store


def held(studies: StudiesFolder, image_id: str = "a") -> dict[str, tuple[str, str]]:
    """Content of each label, and what its record says, by tag; read anew."""
    labels = StudiesFolder(studies.root).scan()[image_id].labels
    return {tag: (label.path.read_text(), label.info.get("says", "?")) for tag, label in labels.items()}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("1.2.840.113.nii.gz", ("1.2.840.113", ".nii.gz")),
        ("CASE.NII.GZ", ("CASE", ".NII.GZ")),
        ("x.seg.nrrd", ("x", ".seg.nrrd")),
        ("a.nii.b.nii", ("a.nii.b", ".nii")),
        ("notes.txt", None),
        (".nii.gz", None),
    ],
)
def test_an_id_is_the_name_without_its_ending(name: str, parts: tuple[str, str] | None) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "a\\b", "", ".hidden", "..", "a\0b", "a\nb", " a", "x" * 300])
def test_a_path_is_no_id_and_no_tag(name: str) -> None:
    with pytest.raises(LabelError, match="is no id of an image"):
        check_id(name)
    with pytest.raises(LabelError, match="is no tag of a label"):
        check_tag(name)


def test_final_saved_again_becomes_a_version(studies: StudiesFolder, save: Callable[..., None]) -> None:
    for content in ("one", "two", "three"):
        save(content)
    assert held(studies) == {"final": ("three",) * 2, "version_1": ("one",) * 2, "version_2": ("two",) * 2}
    assert studies.scan()["a"].labels["version_1"].info["name"] == "a.nii.gz"


def test_an_overwritten_version_stays_and_a_prediction_does_not(studies: StudiesFolder, save: Callable[..., None]) -> None:
    save("reader", "version_1")
    save("again", "version_1")
    save("predicted", "original")
    save("predicted anew", "original")
    assert held(studies) == {
        "original": ("predicted anew",) * 2, "version_1": ("again",) * 2, "version_2": ("reader",) * 2,
    }  # fmt: skip


def test_tags_are_in_the_order_of_their_numbers() -> None:
    tags = ["version_10", "final", "version_2", "mine", "original"]
    assert sorted(tags, key=tag_order) == ["final", "original", "mine", "version_2", "version_10"]


def test_another_ending_leaves_nothing_that_comes_back(studies: StudiesFolder, save: Callable[..., None]) -> None:
    save("old")
    save("new", ending=".nrrd")
    assert held(studies) == {"final": ("new", "new"), "version_1": ("old", "old")}
    assert [p.name for p in sorted((studies.labels / "final").iterdir())] == ["a.json", "a.nrrd"]
    studies.remove_label("a", "final")
    assert "final" not in held(studies)
    assert not list((studies.labels / "final").iterdir())


def test_what_is_deleted_is_set_aside(studies: StudiesFolder, save: Callable[..., None]) -> None:
    save("mine")
    studies.remove_label("a", "final")
    aside = {p.name.partition("-final-")[2]: p for p in (studies.labels / ".removed").iterdir()}
    assert aside["a.nii.gz"].read_text() == "mine"
    assert json.loads(aside["a.json"].read_text())["info"]["says"] == "mine"


def test_of_two_files_without_a_record_the_newer_is_the_label(studies: StudiesFolder, save: Callable[..., None]) -> None:
    (studies.labels / "final").mkdir(parents=True)
    for name, seconds in (("a.nii.gz", 1000), ("a.nrrd", 2000)):
        (studies.labels / "final" / name).write_text(name)
        os.utime(studies.labels / "final" / name, (seconds, seconds))
    assert held(studies) == {"final": ("a.nrrd", "?")}
    save("new")
    assert held(studies) == {"final": ("new", "new"), "version_1": ("a.nrrd", "?")}
    assert [p.read_text() for p in (studies.labels / ".removed").iterdir()] == ["a.nii.gz"]


def test_hidden_and_empty_files_are_no_images(studies: StudiesFolder, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in (
        ("._a.nii.gz", b"x"),
        (".b.nii", b"x"),
        ("empty.nii.gz", b""),
        ("s.seg.nrrd", b"x"),
        ("a.nrrd", b"x"),
    ):
        (studies.root / name).write_bytes(content)
    (studies.root / "folder.nii.gz").mkdir()
    assert list(studies.scan()) == ["a"]
    assert "empty.nii.gz is empty, so it is no image" in caplog.text
    assert "a.nrrd is left out: a.nii.gz has the same id" in caplog.text


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 99, "info": {}}', '{"schema": 1, "info": {}, "file": "b.nii.gz"}', "\0\0"]
)
def test_a_damaged_record_costs_the_names_and_not_the_label(
    studies: StudiesFolder, save: Callable[..., None], content: str
) -> None:
    save("mine")
    (studies.labels / "final" / "a.json").write_text(content)
    assert held(studies) == {"final": ("mine", "?")}
    (studies.labels / "final" / ".next-a.json").write_text(content)
    StudiesFolder(studies.root).recover()
    assert held(studies) == {"final": ("mine", "?")}
    save("next")
    assert held(studies)["final"] == ("next", "next")


def test_links_to_themselves_and_names_that_are_no_ids_stop_nothing(
    studies: StudiesFolder, save: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    for path in (studies.root / "b.nii.gz", studies.labels / "final" / "a.nrrd"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(path)
    names = (b"0:1.nii.gz", b" x.nii.gz", b"y .nii.gz", b"\xff.nii.gz")
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(studies.root), name))).write_bytes(b"image")
    save("mine")
    assert list(studies.scan()) == ["a"]
    assert held(studies) == {"final": ("mine", "mine")}
    assert caplog.text.count("its name can be no id of an image; rename it, such as case-1.nii.gz") >= len(names)


def test_a_link_that_leads_out_is_neither_an_image_nor_a_label(
    studies: StudiesFolder, save: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text("secret")
    save("mine")
    save("again")
    (studies.labels / "version_1" / "a.nii.gz").unlink()
    for name in ("leak.nii.gz", "labels/version_1/a.nii.gz", "labels/final/a.nrrd"):
        (studies.root / name).symlink_to(tmp_path / "secret")
    (studies.root / "b.nii.gz").symlink_to("a.nii.gz")
    assert list(studies.scan()) == ["a", "b"]
    assert held(studies) == {"final": ("again", "again")}
    assert "leak.nii.gz is left out: it is a link that leads out of the studies; copy the file there" in caplog.text
    save("new")
    assert (tmp_path / "secret").read_text() == "secret"
    moved = tmp_path / "another disk"
    studies.labels.rename(moved)
    studies.labels.symlink_to(moved)  # how an administrator lays out the folder is the administrator's
    assert held(studies)["final"] == ("new", "new")


def test_info_that_nobody_could_read_back_is_refused(studies: StudiesFolder, save: Callable[..., None], tmp_path: Path) -> None:
    save("old")
    (tmp_path / "new.nii.gz").write_text("new")
    half = {"comment": "half a character: \ud83d"}
    for store in (
        lambda: studies.save_label("a", "final", tmp_path / "new.nii.gz", half),
        lambda: studies.update_label("a", "final", half),
        lambda: studies.update_image("a", half),
        lambda: studies.save_image("b", tmp_path / "new.nii.gz", half),
    ):
        with pytest.raises(LabelError, match="its params are not plain JSON"):
            store()
    assert held(studies) == {"final": ("old", "old")}


class Killed(BaseException):
    """Ends a save where it stands; nothing that it would tidy up afterwards is done."""


@pytest.mark.parametrize("step", range(16))
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_ended_at_any_step_the_old_or_the_new_label_is_there_with_its_names(
    studies: StudiesFolder, save: Callable[..., None], monkeypatch: pytest.MonkeyPatch, step: int, ending: str
) -> None:
    save("old")
    count_steps(monkeypatch, stop_at=step)
    with suppress(Killed):
        save("new", ending=ending)
    monkeypatch.undo()
    for fresh in (StudiesFolder(studies.root, read_only=True), StudiesFolder(studies.root)):
        fresh.recover()
        labels = {t: (x.path.read_text(), x.info["says"]) for t, x in fresh.scan()["a"].labels.items()}
        assert labels["final"] in (("old", "old"), ("new", "new"))
        if labels["final"] == ("new", "new"):
            assert labels["version_1"] == ("old", "old")
        assert all(content == says for content, says in labels.values())
    assert len(labels) == 1 + (labels["final"] == ("new", "new")), "no version of what was not replaced"
    assert not [p for p in (studies.labels / "final").iterdir() if p.name.startswith(".")]
    save("last", ending=ending)
    assert held(studies)["final"] == ("last", "last")
    assert ("old", "old") in held(studies).values()


def count_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> list[str]:
    """Every change of the disk from now on is a step (a save has up to 15); the one of that number, and all after it, are not done."""
    done: list[str] = []

    def step(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def act(*arguments: Any, **options: Any) -> Any:
            if len(done) >= stop_at:
                raise Killed
            done.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, act)

    step(Path, "replace"), step(Path, "unlink"), step(Path, "write_text"), step(write.os, "link")
    step(folder_module.shutil, "copyfile")
    return done


@pytest.mark.parametrize("tag", ["final", "original"])
def test_a_full_disk_leaves_everything_as_it_was(
    studies: StudiesFolder, save: Callable[..., None], full_while: Callable[[Path], None], tmp_path: Path, tag: str
) -> None:
    save("old", tag)
    (tmp_path / "full").mkdir()
    full_while(tmp_path / "full")
    with pytest.raises(OutputError, match="No space left on device; check that the disk has room"):
        save("new", tag)
    with pytest.raises(OutputError, match="No space left"):
        studies.update_label("a", tag, {"more": 1})
    assert held(studies) == {tag: ("old", "old")}
    (tmp_path / "full").rmdir()
    save("new", tag)
    assert held(studies)[tag] == ("new", "new")


def test_a_folder_that_cannot_be_written_says_so(
    studies: StudiesFolder, save: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    save("old")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(studies._file_lock, "acquire", refuse)
    with pytest.raises(
        OutputError, match=r"cannot be written \(Read-only file system\); nothing was stored. Make the studies folder writ"
    ):
        save("new")
    assert held(studies)["final"] == ("old", "old")
    with pytest.raises(OutputError, match="opened read-only"):
        StudiesFolder(studies.root, read_only=True).remove_label("a", "final")


def test_an_image_with_labels_is_not_replaced_by_another(
    studies: StudiesFolder, save: Callable[..., None], tmp_path: Path
) -> None:
    other = tmp_path / "other.nrrd"
    other.write_bytes(b"another CT")
    studies.save_image("a", other, {"ts": 1})
    assert [i.path.name for i in studies.scan().values()] == ["a.nrrd"]
    save("drawn")
    other.write_bytes(b"a third CT")
    with pytest.raises(ImageError, match="image a is there already and has labels, which were drawn on it"):
        studies.save_image("a", other, {})
    assert (studies.root / "a.nrrd").read_bytes() == b"another CT"


def test_many_threads_lose_nothing(studies: StudiesFolder, tmp_path: Path) -> None:
    def work(name: int) -> None:
        own = StudiesFolder(studies.root)
        for number in range(4):
            file = tmp_path / f"{name}-{number}.nii.gz"
            file.write_text(f"{name}-{number}")
            own.save_label("a", "final", file, {"says": f"{name}-{number}"})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = held(studies)
    assert {content for content, _ in found.values()} == {f"{name}-{number}" for name in range(4) for number in range(4)}
    assert all(content == says for content, says in found.values())
