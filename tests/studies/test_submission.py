"""What is written down when somebody submits, reviews or restores a label."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.anatomy import PlanningLabel, decode_label
from flrplan.errors import LabelError
from flrplan.image import Geometry, read_label_map, write_label_map
from flrplan.studies import StudiesFolder
from flrplan.studies.review import META, CaseReview, State
from flrplan.studies.submission import restore, review, submit

GRID = Geometry((10, 5, 4), (1.0, 2.0, 5.0))
"""Its voxels have 0.01 ml."""
NAMES = {"liver": 1, "crlm": 2}


def read(path: Path, _: Mapping[str, Any]) -> tuple[PlanningLabel, Geometry]:
    array, grid = read_label_map(path)
    return decode_label(array, NAMES, str(path)), grid


@pytest.fixture
def studies(tmp_path: Path) -> StudiesFolder:
    root = tmp_path / "studies"
    write_label_map(root / "a.nii.gz", np.zeros(GRID.shape_zyx, np.uint8), GRID)
    return StudiesFolder(root)


@pytest.fixture
def send(studies: StudiesFolder, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Submits a label with that many voxels of liver and crlm; returns what is kept beside it."""

    def act(
        liver: int, crlm: int = 0, by: str = "anna", tag: str = "final", user: str | None = None, **info: Any
    ) -> dict[str, Any]:
        array = np.zeros(GRID.shape_zyx, np.uint8)
        array.ravel()[:liver] = 1
        array.ravel()[:crlm] = 2
        write_label_map(tmp_path / "up.nii.gz", array, GRID)
        return submit(studies, "a", tag, tmp_path / "up.nii.gz", {"client_id": by, **info}, read, user).info

    return act


def case(studies: StudiesFolder) -> CaseReview:
    return CaseReview.of({tag: x.info for tag, x in studies.labels_of("a").items()})


def test_who_when_from_what_and_what_changed(studies: StudiesFolder, send: Callable[..., dict[str, Any]]) -> None:
    before = time.time()
    assert send(100, model="cascade")["submission"]["from"] is None
    said = send(120, 20, by="ben")["submission"]
    assert before - 0.01 <= said["saved"] <= time.time() + 0.01
    assert (said["by"], said["by_verified"]) == ("ben", False)
    assert (said["from"]["tag"], said["from"]["by"], said["from"]["model"]) == ("final", "anna", "cascade")
    assert said["changes"] == {  # the tumour is part of the liver: 2 * 100 / (100 + 120)
        "liver": {"dice": pytest.approx(0.909091), "ml_before": 1.0, "ml": 1.2},
        "crlm": {"dice": 0.0, "ml_before": 0.0, "ml": 0.2},
    }


def test_the_model_of_a_prediction_is_where_a_first_draft_comes_from(
    studies: StudiesFolder, send: Callable[..., dict[str, Any]]
) -> None:
    send(100, tag="original", model="cascade")
    said = send(100, by="anna")["submission"]
    assert (said["from"]["tag"], said["from"]["model"], said["changes"]["liver"]["dice"]) == ("original", "cascade", 1.0)
    assert list(studies.labels_of("a")) == ["final", "original"]


def test_a_repeated_request_is_no_second_submission(studies: StudiesFolder, send: Callable[..., dict[str, Any]]) -> None:
    assert send(100) == send(100)
    assert list(studies.labels_of("a")) == ["final"]
    send(100, by="ben")  # a second reader with the same label
    assert [v.by for v in case(studies).versions] == ["anna", "ben"]


def test_a_resubmission_keeps_the_review_and_marks_it_outdated(
    studies: StudiesFolder, send: Callable[..., dict[str, Any]]
) -> None:
    send(100)
    review(studies, "a", "final", {META: {"status": "approved", "approvedBy": "ben", "comment": "good"}})
    assert case(studies).state is State.CONFIRMED
    meta = send(110)[META]
    assert (meta["status"], meta["comment"], meta["outdated"]) == ("", "good", True)
    labels = studies.labels_of("a")
    assert (labels["version_1"].info[META]["status"], labels["version_1"].info[META]["approvedBy"]) == ("approved", "ben")
    assert (case(studies).state, case(studies).outdated) == (State.REFINED, True)
    review(studies, "a", "final", {META: {"status": "approved", "approvedBy": "ben"}})
    assert case(studies).state is State.CONFIRMED
    assert "outdated" not in studies.labels_of("a")["final"].info[META]


def test_any_version_can_be_restored(studies: StudiesFolder, send: Callable[..., dict[str, Any]]) -> None:
    for voxels in (100, 110, 120):
        send(voxels, label_info=[{"name": "liver", "idx": 1}])
    first = studies.labels_of("a")["version_1"].path.read_bytes()
    info = restore(studies, "a", "version_1", read, "ben").info
    assert (info["restored"], info["submission"]["by"], info["label_info"]) == (
        "version_1",
        "ben",
        [{"name": "liver", "idx": 1}],
    )
    labels = studies.labels_of("a")
    assert labels["final"].path.read_bytes() == first
    assert list(labels) == ["final", "version_1", "version_2", "version_3"]
    with pytest.raises(
        LabelError, match="image a has no label 'version_9'; its labels are: final, version_1, version_2, version_3"
    ):
        restore(studies, "a", "version_9", read)


def test_a_clock_that_was_set_back_does_not_make_an_older_label_the_newest(
    studies: StudiesFolder, send: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(100)
    review(studies, "a", "final", {META: {"status": "approved", "approvedBy": "ben"}})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    send(110, by="cleo")
    found = case(studies)
    assert found.newest is not None
    assert (found.newest.tag, found.newest.by, found.first_reader) == ("final", "cleo", "anna")
    assert (found.state, found.outdated) == (State.REFINED, True)


def test_a_review_does_not_change_whose_label_it_is(studies: StudiesFolder, send: Callable[..., dict[str, Any]]) -> None:
    said = send(100, user="anna")["submission"]
    review(studies, "a", "final", {META: {"status": "flagged", "comment": "cut"}}, "ben")
    forged = {"submission": {"by": "ben", "by_verified": True}, "client_id": "ben", "ts": 1, "reviews": []}
    kept = review(studies, "a", "final", forged, "anna")
    assert (kept["submission"], kept["client_id"], len(kept["reviews"])) == (said, "anna", 1)
    with pytest.raises(LabelError, match="anna drafted this case; a second reader must confirm it"):
        review(studies, "a", "final", {META: {"status": "approved"}}, "anna")
    assert send(110, user="ben", **forged)["submission"]["by_verified"] is True
    assert case(studies).first_reader == "anna"


@pytest.mark.parametrize("lease", [5, {"to": "anna", "since": "noon"}, {"to": "anna", "since": [1]}, {"to": "anna"}])
def test_a_lease_that_is_none_stops_no_label(studies: StudiesFolder, send: Callable[..., dict[str, Any]], lease: Any) -> None:
    studies.update_image("a", {"lease": lease})
    assert send(100)["submission"]["minutes"] is None


def test_minutes_are_known_where_the_same_person_took_the_case(
    studies: StudiesFolder, send: Callable[..., dict[str, Any]]
) -> None:
    studies.update_image("a", {"lease": {"to": "anna", "since": time.time() - 600}})
    assert send(100, by="anna")["submission"]["minutes"] == pytest.approx(10, abs=0.1)
    assert send(110, by="ben")["submission"]["minutes"] is None


def test_who_drafted_a_case_stays_its_first_reader_though_the_draft_is_deleted(
    studies: StudiesFolder, send: Callable[..., dict[str, Any]]
) -> None:
    send(100, user="anna")
    send(120, user="ben")
    studies.remove_label("a", "version_1")
    assert case(studies).first_reader == "anna"
    with pytest.raises(LabelError, match="anna drafted this case; a second reader must confirm it"):
        review(studies, "a", "final", {META: {"status": "approved"}}, "anna")
    studies.remove_label("a", "final")
    send(100, user="ben")
    assert case(studies).first_reader == "ben", "nothing of anna's is left"


def test_the_signed_in_name_goes_before_what_a_client_says(send: Callable[..., dict[str, Any]]) -> None:
    said = send(100, by="anna", user="ben")["submission"]
    assert (said["by"], said["by_verified"]) == ("ben", True)


def test_a_label_that_cannot_be_compared_is_stored_all_the_same(send: Callable[..., dict[str, Any]]) -> None:
    send(100)
    assert send(0)["submission"]["changes"]["liver"] == {"dice": 0.0, "ml_before": 1.0, "ml": 0.0}
