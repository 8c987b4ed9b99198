"""Models that change places: whatever instant a process dies at, a working model is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from threading import Event, Thread

import pytest
import torch

from flrplan.engine.models import FROM_DEMO, MODEL_ROOT, ModelStore, replaced_folder
from flrplan.errors import OutputError
from flrplan.learning import replacing
from flrplan.learning.replacing import previous_folder, replace_model, settle
from flrplan.method.stages import LIVER
from flrplan.nnunet.model_folder import PUBLISHED_NAME
from flrplan.nnunet.publishing import changing

DEMO = MODEL_ROOT / "demo"


def model(path: Path, source: str = "liver", **published: object) -> Path:
    shutil.copytree(DEMO / source / "nnunet", path)
    (path / PUBLISHED_NAME).write_text(json.dumps(published))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return model(tmp_path / "models" / "liver" / "nnunet", name="old")


def folders(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if p.is_dir())


def name(path: Path) -> str:
    return str(json.loads((path / PUBLISHED_NAME).read_text())["name"])


@pytest.mark.parametrize("in_one_step", [True, False])
def test_the_first_model_and_the_ones_after_it(in_one_step: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_one_step:
        monkeypatch.setattr(replacing, "exchange", lambda first, second: False)
    target = tmp_path / "models" / "liver" / "nnunet"
    for number in range(3):
        replace_model(model(tmp_path / "work" / f"{number}", name=str(number)), target)
        assert name(target) == str(number)
    assert name(previous_folder(target)) == "1"
    assert folders(target) == [".nnunet.previous", "nnunet"]


def test_a_reader_finds_a_model_of_ours_at_every_instant(target: Path, tmp_path: Path) -> None:
    """Looked for all the time by another thread, while models change places."""
    store, stop = ModelStore(target.parents[1], demo=DEMO), Event()
    seen: set[bool] = set()

    def look() -> None:
        while not stop.is_set():
            seen.add(target.is_dir())

    news = [model(tmp_path / "work" / f"{number}", name=str(number)) for number in range(20)]
    reader = Thread(target=look)
    reader.start()
    for new in news:
        replace_model(new, target)
    stop.set()
    reader.join()
    assert seen == {True}
    assert not store.find(LIVER, "nnunet").demo


def test_a_model_that_appears_while_one_looks_goes_before_the_demo_model(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two renames: the folder is missing at the first look, and its stand-in at the second."""
    store, hidden = ModelStore(target.parents[1], demo=DEMO), target.rename(tmp_path / "hidden")
    is_dir = Path.is_dir

    def looked_at(path: Path) -> bool:
        if path == replaced_folder(target) and hidden.exists():
            hidden.rename(target)
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", looked_at)
    assert not store.find(LIVER, "nnunet").demo


def test_killed_between_the_renames_the_old_model_is_found_and_put_back(target: Path) -> None:
    store = ModelStore(target.parents[1], demo=DEMO)
    before = store.predictor(LIVER, "nnunet", torch.device("cpu"))[1]
    target.rename(replaced_folder(target))
    found = store.find(LIVER, "nnunet")
    assert not found.demo
    assert store.predictor(LIVER, "nnunet", torch.device("cpu"))[1]["weights_sha256"] == before["weights_sha256"]
    settle(target)
    assert name(target) == "old"
    assert not replaced_folder(target).exists()


def test_killed_after_the_renames_the_old_model_becomes_the_previous_one(target: Path, tmp_path: Path) -> None:
    target.rename(replaced_folder(target))
    model(tmp_path / "new", name="new").rename(target)
    settle(target)
    assert (name(target), name(previous_folder(target))) == ("new", "old")


def test_if_the_new_model_cannot_be_renamed_the_old_one_stays(target: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"could not put the new model into .* the current one stays"):
        replace_model(tmp_path / "nothing", target)
    assert name(target) == "old"
    assert folders(target) == ["nnunet"]


def test_whoever_publishes_a_fold_is_waited_for(target: Path, tmp_path: Path) -> None:
    new = model(tmp_path / "new", name="new")
    with changing(target):
        waiting = Thread(target=replace_model, args=(new, target))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert name(target) == "old"
    waiting.join(30)
    assert name(target) == "new"


def test_a_replaced_model_serves_without_a_new_store(target: Path, tmp_path: Path) -> None:
    store = ModelStore(target.parents[1], demo=DEMO)
    before = store.predictor(LIVER, "nnunet", torch.device("cpu"))[1]
    assert FROM_DEMO not in before
    new = model(tmp_path / "new", name="new", **{FROM_DEMO: True})
    shutil.rmtree(new / "fold_1")
    replace_model(new, target)
    after = store.predictor(LIVER, "nnunet", torch.device("cpu"))[1]
    assert (before["folds"], after["folds"]) == ([0, 1], [0])
    assert (after["demo"], after[FROM_DEMO]) == (False, True)
