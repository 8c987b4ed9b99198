"""The training tasks in process, up to the point where a training would begin: what is said about labels that cannot train."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from monailabel.interfaces.exception import MONAILabelException

from flrplan.anatomy import Compartment
from flrplan.cohort import SyntheticCase
from flrplan.errors import LabelError, TrainingError
from flrplan.learning import RetrainingFolder, StageTraining, TaskProgress
from flrplan.learning.stage_training import RECORD_NAME
from flrplan.method import CASCADE, LIVER
from flrplan.server import train
from flrplan.server.annotations import annotated_images
from flrplan.server.durable import DurableDatastore
from flrplan.server.train import newest_first

LABEL_INFO = {"label_info": [{"name": c.label_name, "idx": int(c)} for c in Compartment]}


@pytest.fixture
def app(tmp_path: Path, make_studies: Callable[[Path], Path], make_app: Callable[..., Any]) -> Any:
    (tmp_path / "models").mkdir()
    split = tmp_path / "split.json"
    split.write_text('{"test": ["held_out_id"], "folds": []}')
    conf = {"device": "cpu", "models": str(tmp_path / "models"), "train_split": str(split)}
    return make_app(make_studies(tmp_path / "studies"), conf)


def refused(app: Any, **request: Any) -> str:
    with pytest.raises(MONAILabelException) as caught:
        app.train(request)
    return str(caught.value)


def test_no_labels(app: Any) -> None:
    assert "no image has a final label, so nothing can be learned" in refused(app, model="liver")
    stats = app.info()["train_stats"]
    assert stats["crlm"] == {}
    assert (stats["liver"]["state"], stats["liver"]["message"].split(".")[0]) == (
        "failed",
        "no image has a final label, so nothing can be learned",
    )


def test_an_unknown_option_is_named_before_anything_is_read(app: Any) -> None:
    assert "unknown training options max_epochs; known are architecture, start, epochs" in refused(
        app, model="liver", max_epochs=5
    )


def test_labels_that_cannot_train_are_named(
    app: Any, cases: list[SyntheticCase], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    store = app.datastore()
    unchecked = partial(DurableDatastore.save_label, store)  # as earlier versions stored them
    junk = tmp_path / "junk.nii.gz"
    junk.write_bytes(b"no image")
    unchecked(cases[0].case_id, str(junk), "final", dict(LABEL_INFO))
    elsewhere = replace(cases[1].geometry, origin_mm=(7.0, 7.0, 7.0))
    shifted = write_image(tmp_path / "shifted.nii.gz", cases[1].planning_zyx, elsewhere)
    unchecked(cases[1].case_id, str(shifted), "final", dict(LABEL_INFO))
    write_image(tmp_path / "studies" / "held_out_id.nii.gz", cases[0].hu_zyx, cases[0].geometry)
    store.refresh()
    unchecked("held_out_id", str(shifted), "final", dict(LABEL_INFO))
    images, unlabelled = annotated_images(store)
    assert ({i.case_id for i in images}, unlabelled) == ({cases[0].case_id, cases[1].case_id, "held_out_id"}, 0)
    text = refused(app, model="cascade")
    for stage in ("liver", "crlm", "flr"):
        assert f"stage {stage}: 0 cases can train it, at least 4 are needed" in text
    assert f"Left out (3): held_out_id: held out by the split file; {cases[0].case_id}: " in text
    assert "grid" in text
    folder = RetrainingFolder(tmp_path / "models")
    record = json.loads((folder.stage("crlm") / RECORD_NAME).read_text())
    assert [entry["case_id"] for entry in record["left_out"]] == ["held_out_id", cases[0].case_id, cases[1].case_id]
    assert record["published"] is False
    stats = app.info()["train_stats"]
    assert next(iter(stats)) == "cascade"
    assert (stats["cascade"]["state"], stats["crlm"]["state"]) == ("failed", "failed")
    assert not (folder.stage("cascade") / "annotations").exists()


def test_what_a_killed_training_left_on_a_full_disk_blocks_none(
    app: Any, cases: list[SyntheticCase], tmp_path: Path, write_image: Callable[..., Path], full_while: Callable[[Path], None]
) -> None:
    label = write_image(tmp_path / "label.nii.gz", cases[0].planning_zyx, cases[0].geometry)
    app.datastore().save_label(cases[0].case_id, str(label), "final", dict(LABEL_INFO))
    folder = RetrainingFolder(tmp_path / "models")
    folder.work("crlm").mkdir(parents=True)
    full_while(folder.work("crlm"))
    assert "stage crlm: 1 cases can train it, at least 4 are needed" in refused(app, model="cascade")
    assert app.info()["train_stats"]["cascade"]["state"] == "failed"


def test_a_stage_that_fails_ends_the_cascade_as_failed(
    app: Any, cases: list[SyntheticCase], tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = write_image(tmp_path / "label.nii.gz", cases[0].planning_zyx, cases[0].geometry)
    app.datastore().save_label(cases[0].case_id, str(label), "final", dict(LABEL_INFO))

    def no_memory(training: Any, _work: Path) -> None:
        assert app.info()["train_stats"]["cascade"]["state"] == "preparing"
        training.progress.update(state="training")
        assert app.info()["train_stats"]["cascade"]["state"] == "training"
        raise TrainingError("no memory")

    monkeypatch.setattr(StageTraining, "_train", no_memory)
    assert "no memory" in refused(app, model="cascade")
    stats = app.info()["train_stats"]
    assert (stats["cascade"]["state"], stats["cascade"]["message"]) == ("failed", "no memory")
    assert [s["state"] for s in stats["cascade"]["stages"].values()] == ["failed", "stopped", "stopped"]


def test_only_the_run_that_trains_reads_training(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RetrainingFolder(tmp_path / "models")
    epochs = {stage.name: 5 for stage in CASCADE}
    with folder.locked(CASCADE, "cascade") as run:
        killed = TaskProgress(folder.stats, epochs, run)
        killed.of("liver").update(state="done")
        killed.of("crlm").update(state="training", epoch=2)
        assert states(app) == {"cascade": "training", "liver": "done", "crlm": "training"}
    assert states(app) == {"cascade": "stopped", "liver": "done", "crlm": "stopped"}
    with folder.locked((LIVER,)) as run:
        TaskProgress(folder.stats, {"liver": 5}, run).of("liver").update(state="training", epoch=1)
        assert states(app) == {"cascade": "stopped", "liver": "training", "crlm": "stopped"}

    def read(*_: Any) -> None:
        stats = app.info()["train_stats"]["cascade"]
        assert (stats["state"], stats["epoch"], stats["run"]["pid"]) == ("preparing", 0, os.getpid())
        assert states(app) == {"cascade": "preparing", "liver": "preparing", "crlm": "stopped"}
        raise LabelError("read")

    monkeypatch.setattr(train, "annotated_images", read)
    assert "read" in refused(app, model="cascade")
    assert states(app) == {"cascade": "failed", "liver": "failed", "crlm": "stopped"}


def states(app: Any) -> dict[str, str]:
    return {name: s["state"] for name, s in app.info()["train_stats"].items() if s}


def test_the_stats_that_slicer_shows_come_first() -> None:
    stats = {"liver": {"updated_ts": 1.0}, "crlm": {}, "flr": {"updated_ts": 2.0}, "cascade": {"updated_ts": 2.5}}
    assert list(newest_first(stats)) == ["cascade", "flr", "liver", "crlm"]
