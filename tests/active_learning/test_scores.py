"""What is measured of a case, where it is kept, and how it is measured beside a server."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.active_learning import LabelFile, Part, Scores, Vote, background, find_voters, measure_by_models, measure_image
from flrplan.active_learning.cache import ScoreCache, image_digest, key_of
from flrplan.active_learning.measure import UNREADABLE, disagreement
from flrplan.active_learning.process import Measurer, ScoringProcess
from flrplan.anatomy import Compartment
from flrplan.cohort import SyntheticCase, make_case
from flrplan.engine import MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.errors import ImageError, ModelError, OutputError, ServiceError
from flrplan.image import CT, Geometry, read_ct, write_volume

NAMES = {c.label_name: int(c) for c in Compartment}
GRID = Geometry((10, 8, 6), (1.0, 1.0, 2.0))


def block(voxels: int, at: int = 0) -> Any:
    mask = np.zeros(4000, bool)
    mask[at : at + voxels] = True
    return mask.reshape(10, 20, 20)


def test_disagreement_is_a_share_of_the_structure_whatever_its_size() -> None:
    assert disagreement([block(100), block(100, 50)], 1.0) == pytest.approx(0.5)  # 1 - Dice
    assert disagreement([block(1000), block(1000, 500)], 1.0) == pytest.approx(0.5)
    assert disagreement([block(0), block(0)], 1.0) == 0.0
    assert disagreement([block(100), block(0)], 1.0) == 1.0
    assert disagreement([block(10), block(0)], 0.01) == pytest.approx(0.05)  # a speck of 0.1 ml against 1 ml each
    assert disagreement([block(100), block(100), block(100, 100)], 1.0) == pytest.approx(2 / 3)  # pairs: 0, 1, 1


@pytest.mark.parametrize("hu", [-1000, 40, 3000])
def test_an_image_of_one_value_has_finite_features(hu: int) -> None:
    found = measure_image(CT(np.full((6, 8, 10), hu, np.int16), GRID, "c", "c.nii.gz"))
    assert all(np.isfinite(v) for v in found.values())
    assert (found["extent_z_mm"], found["slice_mm"]) == (12.0, 2.0)


@pytest.fixture(scope="module")
def case() -> SyntheticCase:
    return make_case(11, 0, "small")


@pytest.fixture
def image(tmp_path: Path, case: SyntheticCase) -> Path:
    path = tmp_path / "studies" / "case.nii.gz"
    path.parent.mkdir()
    write_volume(path, case.hu_zyx, case.geometry)
    return path


def write_label(path: Path, planning: Any, case: SyntheticCase) -> LabelFile:
    write_volume(path, planning, case.geometry)
    return LabelFile(path, NAMES)


def test_an_empty_a_partial_and_a_broken_label_are_scored(tmp_path: Path, image: Path, case: SyntheticCase) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no label")
    liver_alone = LabelFile(write_label(tmp_path / "l.nii.gz", np.minimum(case.planning_zyx, 1), case).file, {"liver": 1})
    labels = {
        "good": write_label(tmp_path / "good.nii.gz", case.planning_zyx, case),
        "empty": write_label(tmp_path / "empty.nii.gz", np.zeros_like(case.planning_zyx), case),
        "liver alone": liver_alone,
        "broken": LabelFile(broken, NAMES),
        "without names": LabelFile(tmp_path / "good.nii.gz", {}),
        "no file": LabelFile(tmp_path / "studies", NAMES),
    }
    cache = ScoreCache(tmp_path / "scores")
    measurer = Measurer(cache, ModelStore(tmp_path / "none", None), {})
    found = {}
    for name, label in labels.items():
        sent = {"file": str(label.file), "names": label.names, "key": label.key}
        answer = measurer.measure({"case": "case", "image": image, "parts": ["label"], "label": sent})
        found[name] = dict(cache.read(answer["digest"], Part.LABEL, label.key) or {})
    assert found["good"]["qc"] <= 3 <= found["empty"]["qc"] < UNREADABLE, (found["good"], found["empty"])
    assert "no voxels" in found["empty"]["messages"][0]
    assert found["liver alone"]["qc"] < UNREADABLE
    assert found["broken"]["qc"] == found["without names"]["qc"] == found["no file"]["qc"] == UNREADABLE
    assert "no label names came with it" in found["without names"]["messages"][0]


def test_the_folds_of_the_demo_models_disagree_and_given_masks_are_no_vote(case: SyntheticCase) -> None:
    cascade = Cascade(ModelStore(), CascadeSettings(device="cpu"))
    voters = find_voters(cascade.store, cascade.settings)
    assert voters.vote is Vote.FOLDS
    ct = CT(case.hu_zyx, case.geometry, "case", "case.nii.gz")
    found, models = measure_by_models(ct, cascade, voters)
    assert set(found["disagreement"]) == {"liver", "crlm", "flr"}
    assert all(0 < v < 1 for s, v in found["disagreement"].items() if s != "crlm")
    assert len(found["flr_fractions"]) == 2
    assert found["prediction"]["parenchyma_ml"] > 100
    assert set(models) == set(voters.models(cascade)) == {"liver", "crlm", "flr"}
    assert {s: m.decides for s, m in models.items()} == {s: m.decides for s, m in voters.models(cascade).items()}


def test_one_fold_leaves_the_vote_to_the_end_to_end_model(tmp_path: Path, case: SyntheticCase) -> None:
    for stage in ("liver", "crlm", "flr", "flr_e2e"):
        for name in ("plans.json", "dataset.json", "fold_0"):
            place = tmp_path / "models" / stage / "nnunet" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(MODEL_ROOT / "demo" / stage / "nnunet" / name)
    store = ModelStore(tmp_path / "models", None)
    voters = find_voters(store, CascadeSettings())
    assert voters.vote is Vote.END_TO_END
    ct = CT(case.hu_zyx, case.geometry, "case", "case.nii.gz")
    found, models = measure_by_models(ct, Cascade(store, CascadeSettings(device="cpu")), voters)
    assert list(found["disagreement"]) == ["flr"]  # liver and metastases are the same for both
    assert len(found["flr_fractions"]) == 2
    assert set(models) == {"liver", "crlm", "flr", "flr_e2e"}
    (tmp_path / "models" / "flr_e2e" / "nnunet" / "fold_0").unlink()  # damaged: it does not vote
    assert find_voters(store, CascadeSettings()).vote is Vote.NOBODY
    (tmp_path / "models" / "flr" / "nnunet" / "plans.json").unlink()
    with pytest.raises(ModelError, match=r"plans\.json"):
        find_voters(store, CascadeSettings())


def test_a_label_is_known_by_its_content_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = LabelFile(tmp_path / "a.nii.gz", NAMES)
    label.file.write_bytes(b"one")
    key = label.key
    os.link(label.file, tmp_path / "exported")
    assert label.key == key
    moved = LabelFile(label.file.rename(tmp_path / "b.nii.gz"), NAMES)
    moved.file.chmod(0o400)
    assert moved.key == key
    assert LabelFile(moved.file, {"liver": 2}).key != key
    with monkeypatch.context() as patch:
        patch.setattr(background, "sha256_of_file", None)
        assert LabelFile(moved.file, NAMES).key == key
    label.file.write_bytes(b"two")
    assert label.key != key


def read_only(**_: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize("part", ["image", "models"])
def test_where_scores_cannot_be_kept_those_that_are_there_are_found_and_nothing_is_measured_for_nothing(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    request = {"case": "case", "image": str(image), "parts": [part]}
    measured: list[str] = []

    def measure() -> dict[str, Any]:
        return Measurer(ScoreCache(tmp_path / "scores"), ModelStore(), {"device": "cpu"}).measure(request)

    def content(what: str, found: Any) -> Any:
        measured.append(what)
        return found

    monkeypatch.setattr("flrplan.active_learning.process.measure_image", lambda _: content("image", {"x": 1}))
    monkeypatch.setattr("flrplan.active_learning.predictions.measure_by_models", lambda *_: content("models", ({"x": 1}, {})))
    with monkeypatch.context() as patch:
        patch.setattr("flrplan.files.folder.TemporaryFile", read_only)
        with pytest.raises(OutputError, match="scores are kept there, so give the server a studies folder"):
            measure()
        assert measured == []
    answer = measure()
    monkeypatch.setattr("flrplan.files.folder.TemporaryFile", read_only)
    assert measure() == answer
    assert measured == [part]


class FewStudies:
    """Cases as files of any content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.leased: set[str] = set()
        folder.mkdir()

    def add(self, case: str, content: str = "") -> None:
        (self.folder / case).write_text(content or case)

    def cases(self) -> list[str]:
        return [p.name for p in self.folder.iterdir()]

    def to_score(self) -> list[str]:
        return [c for c in self.cases() if c not in self.leased]

    def at_hand(self, case: str) -> Path | None:
        return self.folder / case

    fetch = at_hand

    def original(self, case: str) -> LabelFile | None:
        return None


class FakeProcess:
    """Measures without a network; ``models`` is the key of those that serve."""

    models = "new"
    asked: list[tuple[str, tuple[str, ...]]]
    before: Callable[[Mapping[str, Any]], None]

    def __init__(self, folder: Path, store: Any, settings: Any) -> None:
        self.cache = ScoreCache(folder)

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.cache.require_writable()
        cls = type(self)
        cls.asked.append((request["case"], tuple(request["parts"])))
        cls.before(request)
        digest = image_digest(Path(request["image"]))
        if "image" in request["parts"]:
            self.cache.write(digest, Part.IMAGE, key_of(None), {"soft_hu_50": 1.0})
        if "models" not in request["parts"]:
            return {"digest": digest}
        self.cache.write(digest, Part.MODELS, cls.models, {"disagreement": {"flr": 0.5}, "by": cls.models})
        return {
            "digest": digest,
            "models": {"stamp": find_voters(ModelStore(), CascadeSettings(device="cpu")).stamp, "key": cls.models},
        }

    def kill(self) -> None:
        pass

    close = kill


@pytest.fixture
def studies(tmp_path: Path) -> FewStudies:
    found = FewStudies(tmp_path / "studies")
    for case in "abc":
        found.add(case)
    return found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    FakeProcess.asked, FakeProcess.models, FakeProcess.before = [], "new", staticmethod(lambda request: None)
    monkeypatch.setattr(background, "ScoringProcess", FakeProcess)
    return FakeProcess


@pytest.fixture
def scores(tmp_path: Path, studies: FewStudies, fake: type[FakeProcess]) -> Iterator[Scores]:
    found = Scores(tmp_path / "scores", ModelStore(), CascadeSettings(device="cpu"), studies)
    yield found
    found.stop()


def finished(scores: Scores, *parts: Part, again: bool = False) -> Scores:
    scores.start(parts or tuple(Part), again)
    until = time.monotonic() + 30
    while scores.state().running:
        assert time.monotonic() < until
        time.sleep(0.01)
    return scores


def test_each_case_is_measured_once_what_is_cheap_first_and_those_in_hands_not_at_all(
    scores: Scores, studies: FewStudies, fake: type[FakeProcess], tmp_path: Path
) -> None:
    studies.leased = {"b"}
    finished(scores)
    assert fake.asked == [(c, ("image",)) for c in "acb"] + [(c, ("models",)) for c in "ac"]  # b counts for what is labelled
    finished(scores)
    assert len(fake.asked) == 5
    known = Scores(tmp_path / "scores", ModelStore(), CascadeSettings(device="cpu"), studies).known("abc")  # another server
    assert [bool(k.models) for k in known.values()] == [True, False, True]
    studies.leased = set()
    finished(scores)
    assert fake.asked[5:] == [("b", ("models",))]


def test_only_what_a_strategy_needs_is_measured(scores: Scores, fake: type[FakeProcess]) -> None:
    finished(scores, Part.LABEL)
    assert {parts for _, parts in fake.asked} == {("image",)}  # there is no label


def test_scores_of_models_that_were_replaced_meanwhile_are_not_mixed_in(
    scores: Scores, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    voters = find_voters(ModelStore(), CascadeSettings(device="cpu"))
    finished(scores)
    assert all(k.models["by"] == "new" for k in scores.known("abc").values())
    assert scores._cache.models_key(voters.stamp) == "new"
    monkeypatch.setattr(background, "find_voters", lambda *_: type(voters)(voters.vote, ("nnunet",), "other files"))
    assert not any(k.models for k in scores.known("abc").values())  # the old ones are of no use to the new models
    scores._cache.note_models("other files", "newer")
    fake.models = "newer"
    finished(scores)
    assert [k.models["by"] for k in scores.known("abc").values()] == ["newer"] * 3


def test_scores_of_models_that_ran_in_another_way_are_not_taken(tmp_path: Path, scores: Scores, studies: FewStudies) -> None:
    finished(scores)
    for change in ({"engine": "fast"}, {"mirroring": True}, {"largest_liver": False}):
        others = Scores(tmp_path / "scores", ModelStore(), CascadeSettings(device="cpu", **change), studies)
        assert not any(k.models for k in others.known("abc").values()), change
    assert all(k.models for k in scores.known("abc").values())


def test_no_model_is_told_and_the_rest_is_measured(tmp_path: Path, studies: FewStudies, fake: type[FakeProcess]) -> None:
    scores = Scores(tmp_path / "scores", ModelStore(tmp_path, None), CascadeSettings(device="cpu"), studies)
    finished(scores)
    assert "no nnunet model for stage liver" in scores.why_no_models()
    assert [bool(k.image) for k in scores.known("abc").values()] == [True] * 3
    assert {parts for _, parts in fake.asked} == {("image",)}


def test_a_case_over_which_the_process_ends_twice_is_named_and_the_others_go_on(
    scores: Scores, fake: type[FakeProcess]
) -> None:
    def die(request: Mapping[str, Any]) -> None:
        if request["case"] == "b":
            raise ServiceError("the process that scores cases ended over it")

    fake.before = staticmethod(die)
    finished(scores, Part.IMAGE)
    assert scores.skipped("abc") == {"b": "the process that scores cases ended over it"}
    assert [c for c, _ in fake.asked].count("b") == 2
    fake.before = staticmethod(lambda request: None)
    finished(scores, Part.IMAGE)
    assert [c for c, _ in fake.asked].count("b") == 2
    finished(scores, Part.IMAGE, again=True)
    assert scores.skipped("abc") == {}


def test_an_image_that_cannot_be_opened_costs_itself_alone_and_a_full_disk_stops_the_scoring(
    scores: Scores, studies: FewStudies, fake: type[FakeProcess]
) -> None:
    def trouble(request: Mapping[str, Any]) -> None:
        if request["case"] == "a":
            raise ImageError("a cannot be opened")
        if request["case"] == "c":
            raise OutputError("the disk is full")

    fake.before = staticmethod(trouble)
    finished(scores, Part.IMAGE)
    assert scores.skipped("abc") == {"a": "a cannot be opened"}
    assert [bool(k.image) for k in scores.known("abc").values()] == [False, True, False]
    assert "the disk is full" in scores.state().models


def test_a_folder_that_cannot_be_written_is_told_and_no_case_is_measured_for_nothing(
    scores: Scores, fake: type[FakeProcess], tmp_path: Path
) -> None:
    (tmp_path / "scores").write_text("a file in its place")
    for _ in range(2):
        finished(scores)
        assert scores.why_stopped.startswith(f"scoring stopped: {tmp_path / 'scores'}: cannot be made or written to")
        assert scores.state().models == scores.why_stopped
    assert fake.asked == []
    (tmp_path / "scores").unlink()
    finished(scores)
    assert all(k.models for k in scores.known("abc").values())
    assert scores.why_stopped == ""
    assert scores.state().models == "the folds of the models"


def test_a_folder_that_cannot_be_written_is_no_trouble_where_all_is_scored(
    scores: Scores, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(scores)
    monkeypatch.setattr("flrplan.files.folder.TemporaryFile", read_only)
    finished(scores)
    assert (len(fake.asked), scores.why_stopped, scores.state().models) == (6, "", "the folds of the models")


def test_what_was_wrong_with_models_that_were_replaced_meanwhile_is_not_said_of_the_new_ones(
    scores: Scores, fake: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    voters = find_voters(ModelStore(), CascadeSettings(device="cpu"))
    answer = FakeProcess.measure

    def measure(self: FakeProcess, request: Mapping[str, Any]) -> dict[str, Any]:
        found = answer(self, request)
        if "models" in request["parts"] and len(fake.asked) == 4:
            monkeypatch.setattr(background, "find_voters", lambda *_: type(voters)(voters.vote, ("nnunet",), "mended"))
            return {"digest": found["digest"], "models_error": "fold_0/checkpoint_final.pth is damaged"}
        return found if "models" not in found else {**found, "models": {"stamp": "mended", "key": "new"}}

    monkeypatch.setattr(FakeProcess, "measure", measure)
    finished(scores)
    assert scores.why_no_models() == ""
    assert all(k.models for k in scores.known("abc").values())


def test_two_servers_on_one_folder_score_it_together(scores: Scores, studies: FewStudies, tmp_path: Path) -> None:
    other = Scores(tmp_path / "scores", ModelStore(), CascadeSettings(device="cpu"), studies)
    other.start()
    finished(scores)
    finished(other)
    for one in (scores, other):
        assert all(k.models and k.image for k in one.known("abc").values())


def test_the_process_measures_answers_and_is_replaced_when_killed(tmp_path: Path, image: Path) -> None:
    cache = ScoreCache(tmp_path / "scores")
    process = ScoringProcess(cache.folder, ModelStore(tmp_path / "none", None), CascadeSettings(device="cpu"))
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    try:
        answer = process.measure({"case": "case", "image": str(image), "parts": ["image", "models"]})
        assert "no nnunet model for stage liver" in answer["models_error"]
        assert cache.read(answer["digest"], Part.IMAGE, key_of(None)) == measure_image(read_ct(image))
        digest = process.measure({"case": "broken", "image": str(broken), "parts": ["image"]})["digest"]
        assert "broken.nii.gz" in (cache.read(digest, Part.IMAGE, key_of(None)) or {})["error"]
        with pytest.raises(ImageError, match="check that the file is there"):
            process.measure({"case": "gone", "image": str(tmp_path / "gone.nii.gz"), "parts": ["image"]})
        running = process._process
        assert running is not None
        assert os.getpriority(os.PRIO_PROCESS, running.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        running.kill()
        running.wait()
        assert "digest" in process.measure({"case": "case", "image": str(image), "parts": ["image"]})
    finally:
        process.close()
