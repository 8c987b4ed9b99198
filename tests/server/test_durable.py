"""The datastore of a folder: its index is a cache, names stay with their labels, nothing that lies in the folder stops it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.interfaces.exception import MONAILabelException

from flrplan.image import write_volume
from flrplan.server import durable
from flrplan.server.studies import PlanningLocalDatastore
from flrplan.studies import StudiesFolder
from kill_saves import GRID, kill_savers

LIVER = {"label_info": [{"name": "liver", "idx": 1}]}


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Images a and 1.2.840.113."""
    folder = tmp_path / "studies"
    for case in ("a", "1.2.840.113"):
        write_volume(folder / f"{case}.nii.gz", np.full(GRID.shape_zyx, -1000, np.int16), GRID)
    return folder


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., str]:
    """A label file whose first ``voxels`` voxels have the value 1."""

    def write(voxels: int = 1, name: str = "upload.nii.gz") -> str:
        array = np.zeros(GRID.shape_zyx, np.uint8)
        array.ravel()[:voxels] = 1
        write_volume(tmp_path / name, array, GRID)
        return str(tmp_path / name)

    return write


def names(studies: Path) -> dict[str, Any]:
    """Names beside each label as a server that starts now has them."""
    store = PlanningLocalDatastore(str(studies))
    return {f"{i}/{t}": info.get("label_info") for i in store.list_images() for t, info in store.labels_of(i).items()}


@pytest.mark.parametrize(
    "content", [None, "", "{", '{"objects": {', "[1]", '{"name": "n", "description": "d", "objects": {"a": 1}}']
)
def test_the_index_may_be_missing_empty_or_damaged(
    studies: Path, draw: Callable[..., str], content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    PlanningLocalDatastore(str(studies)).save_label("1.2.840.113", draw(), "final", LIVER)
    index = studies / "datastore_v2.json"
    whole = index.read_text()
    index.unlink() if content is None else index.write_text(content)
    assert names(studies) == {"1.2.840.113/final": LIVER["label_info"]}
    assert json.loads(index.read_text())["objects"] == json.loads(whole)["objects"]
    assert content is None or "is left out and made anew" in caplog.text


def test_names_that_only_the_index_had_are_kept_beside_the_labels(studies: Path, draw: Callable[..., str]) -> None:
    """Studies of an earlier server: its index, and no records."""
    (studies / "labels" / "final").mkdir(parents=True)
    os.rename(draw(), studies / "labels" / "final" / "a.nii.gz")
    known = {"image": {"ext": ".nii.gz", "info": {"patient": "P1"}}, "labels": {"final": {"ext": ".nii.gz", "info": LIVER}}}
    index = {"name": "mine", "description": "", "objects": {"a": known, "../x": known, "gone": known}}
    (studies / "datastore_v2.json").write_text(json.dumps(index))
    assert PlanningLocalDatastore(str(studies)).name() == "mine"
    (studies / "datastore_v2.json").unlink()
    assert names(studies) == {"a/final": LIVER["label_info"]}
    assert PlanningLocalDatastore(str(studies)).get_image_info("a")["patient"] == "P1"


@pytest.mark.parametrize("content", ["", "{", '{"schema": 1, "info": {}, "file": "b.nii.gz"}'])
@pytest.mark.parametrize("runs", [True, False])
def test_a_damaged_record_is_written_again_from_the_index_or_by_the_server_that_runs(
    studies: Path, draw: Callable[..., str], content: str, runs: bool
) -> None:
    store = PlanningLocalDatastore(str(studies))
    store.save_label("a", draw(), "final", LIVER)
    record = studies / "labels" / "final" / "a.json"
    whole = json.loads(record.read_text())
    record.write_text(content)
    if runs:
        store.refresh()
        (studies / "datastore_v2.json").unlink()
    assert names(studies) == {"a/final": LIVER["label_info"]}
    assert json.loads(record.read_text()) == whole
    (kept,) = (studies / "labels" / ".removed").iterdir()
    assert kept.read_text() == content


def test_a_sound_record_goes_before_what_the_index_says(studies: Path, draw: Callable[..., str]) -> None:
    PlanningLocalDatastore(str(studies)).save_label("a", draw(), "final", LIVER)
    index = studies / "datastore_v2.json"
    index.write_text(index.read_text().replace("liver", "crlm"))
    assert names(studies) == {"a/final": LIVER["label_info"]}


def test_a_bad_file_does_not_stop_the_others(studies: Path, draw: Callable[..., str]) -> None:
    store = PlanningLocalDatastore(str(studies))
    for name in ("._a.nii.gz", ".DS_Store", "notes.txt", "empty.nii", "labels/final/._a.nii.gz", "labels/final/a.json"):
        (studies / name).write_bytes(b"" if name.startswith("empty") else b"\0\5\26\7 Mac OS X")
    (studies / "labels" / "final" / "nobody.nii.gz").write_bytes(b"x")
    store.refresh()
    assert store.list_images() == ["1.2.840.113", "a"]
    assert store.get_labeled_images() == []
    store.save_label("a", draw(), "final", LIVER)
    assert store.status() == {"total": 2, "completed": 1, "label_tags": {"final": 1}}


def test_an_upload_keeps_its_dots_and_is_an_image(studies: Path, draw: Callable[..., str], tmp_path: Path) -> None:
    store = PlanningLocalDatastore(str(studies))
    assert store.add_image(None, draw(name="9.8.7.nii.gz"), None) == "9.8.7"
    assert Path(store.get_image_uri("9.8.7")).name == "9.8.7.nii.gz"
    (tmp_path / "junk.nii.gz").write_bytes(b"junk")
    with pytest.raises(MONAILabelException, match=r"junk.nii.gz"):
        store.add_image("junk", str(tmp_path / "junk.nii.gz"), {})
    for bad in ("../x", "/tmp/x", "..", ".hidden"):
        with pytest.raises(MONAILabelException, match="is no image id"):
            store.add_image(bad, draw(), {})
    for tag in ("../../x", "a/b", ""):
        with pytest.raises(MONAILabelException, match="is no tag"):
            store.save_label("a", draw(), tag, LIVER)
    assert sorted(p.name for p in studies.iterdir() if p.suffix != ".json") == [
        ".lock", "1.2.840.113.nii.gz", "9.8.7.nii.gz", "a.nii.gz", "labels",
    ]  # fmt: skip


def test_one_label_a_case_and_none_comes_back(studies: Path, draw: Callable[..., str]) -> None:
    store = PlanningLocalDatastore(str(studies))
    store.save_label("a", draw(1), "final", LIVER)
    store.save_label("a", draw(2, "upload.nrrd"), "final", LIVER)
    assert Path(store.get_label_uri("a", "final")).name == "a.nrrd"
    (studies / "datastore_v2.json").unlink()
    store = PlanningLocalDatastore(str(studies))
    assert Path(store.get_label_uri("a", "final")).name == "a.nrrd"
    store.remove_label("a", "final")
    assert set(PlanningLocalDatastore(str(studies)).labels_of("a")) == {"version_1"}


@pytest.mark.parametrize("call", ["save_label", "remove_label", "remove_image", "update_label_info", "update_image_info"])
def test_an_unknown_image_is_told(studies: Path, draw: Callable[..., str], call: str) -> None:
    arguments = {
        "save_label": (draw(), "final", {}), "remove_label": ("final",), "remove_image": (), "update_label_info": ("final", {}),
        "update_image_info": ({},),
    }[call]  # fmt: skip
    with pytest.raises(MONAILabelException, match="no image 'nobody' in this server's studies; ask /datastore/ for the ids"):
        getattr(PlanningLocalDatastore(str(studies)), call)("nobody", *arguments)


def test_what_others_put_into_the_folder_is_seen(
    studies: Path, draw: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "_FIRST_LOOK_SECONDS", 0.0)
    store = PlanningLocalDatastore(str(studies), auto_reload=True)
    time.sleep(3 * durable._CALM_SECONDS)  # the first look is over: the rest is told by the watch
    os.rename(draw(name="b.nii.gz"), studies / "b.nii.gz")  # as rsync does
    PlanningLocalDatastore(str(studies)).save_label("a", draw(), "original", LIVER)  # as a batch inference does
    end = time.monotonic() + 20
    while time.monotonic() < end and not ("b" in store.list_images() and store.labels_of("a")):
        time.sleep(0.05)
    assert store.list_images() == ["1.2.840.113", "a", "b"]
    StudiesFolder(studies).update_image("a", {"double_reading": True})  # as flrplan studies double does
    (studies / "b.nii.gz").unlink()
    while time.monotonic() < end and not ("b" not in store.list_images() and store.get_image_info("a").get("double_reading")):
        time.sleep(0.05)
    assert store.list_images() == ["1.2.840.113", "a"]
    assert store.get_image_info("a")["double_reading"] is True
    StudiesFolder(studies).update_image("a", {"double_reading": False})
    store.update_image_info("a", {"strategy": "first"})  # though the watch has not told yet
    assert store.get_image_info("a")["double_reading"] is False
    assert store.labels_of("a")["original"]["label_info"] == LIVER["label_info"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user, which root may")
def test_a_folder_of_another_user_is_served_and_not_written(studies: Path, draw: Callable[..., str]) -> None:
    PlanningLocalDatastore(str(studies)).save_label("a", draw(), "final", LIVER)
    for folder in (studies, *studies.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    before = {p: p.read_bytes() for p in studies.rglob("*") if p.is_file()}
    reader, writer = os.pipe()
    upload = draw(3)
    child = os.fork()
    if child == 0:
        told: list[Any] = []
        try:
            os.setgid(65534), os.setuid(65534)
            tempfile.tempdir = "/tmp"
            store = PlanningLocalDatastore(str(studies))
            told += [store.list_images(), store.labels_of("a")["final"]["label_info"]]
            store.save_label("a", upload, "final", LIVER)
        except BaseException as error:
            told.append(str(getattr(error, "detail", error)))
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        images, label, error = json.loads(pipe.read())
    assert (images, label) == (["1.2.840.113", "a"], LIVER["label_info"])
    assert "cannot be written (Permission denied); nothing was stored. Make the studies folder writable" in error
    assert {p: p.read_bytes() for p in studies.rglob("*") if p.is_file()} == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_while_saving_nothing_is_lost(tmp_path: Path) -> None:
    """The short form of ``benchmark/kill_saves.py``."""
    tally = kill_savers(tmp_path, kills=6)
    assert (tally.kills, tally.lost, tally.unreadable, tally.did_not_start) == (6, [], [], 0)
    assert tally.saved > 0
