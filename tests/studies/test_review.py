"""Where a case stands and which of its labels is used, by what 3D Slicer's modules keep beside each label."""

from __future__ import annotations

from typing import Any

import pytest

from flrplan.errors import LabelError
from flrplan.studies.review import META, REVIEWS, CaseReview, LabelUse, State, reviewed_info


def label(
    ts: float, by: str | None = "anna", status: str = "", approved_by: str = "", comment: str = "", edited: float = 0
) -> Any:
    """What is kept beside a label."""
    info: dict[str, Any] = {"ts": ts, "client_id": by}
    if status:
        info[META] = {"status": status, "level": "", "approvedBy": approved_by, "comment": comment, "editTime": edited}
    return info


@pytest.mark.parametrize(
    ("labels", "state", "words", "used", "approved"),
    [
        ({}, State.OPEN, "open", None, None),
        ({"original": label(1)}, State.OPEN, "open", None, None),
        ({"final": label(1)}, State.DRAFTED, "drafted", "final", None),
        ({"final": label(1, None)}, State.DRAFTED, "drafted", "final", None),
        (
            {"final": label(1, status="flagged", approved_by="ben", comment="cut")},
            State.SENT_BACK, "sent back by ben: cut", None, None,
        ),
        (
            {"final": label(2), "version_1": label(1, status="flagged", approved_by="ben")},
            State.REFINED, "refined", "final", None,
        ),
        (
            {"final": label(2, status="approved", approved_by="ben"), "version_1": label(1)},
            State.CONFIRMED, "confirmed by ben (name not verified)", "final", "final",
        ),
        (
            {"final": label(1, status="flagged", approved_by="ben"), "version_1": label(2, None, "approved", "ben")},
            State.CONFIRMED, "confirmed by ben (name not verified)", "version_1", "version_1",
        ),
        (
            {"final": label(2), "version_1": label(1, status="approved", approved_by="ben")},
            State.REFINED, "refined, review outdated", "version_1", "version_1",
        ),
        (
            {"final": label(1, status="approved", approved_by="anna")},
            State.DRAFTED, "drafted, approved by its first reader: not confirmed", "final", None,
        ),
        (
            {"final": label(1, status="approved")}, State.DRAFTED, "drafted, approved by nobody named: not confirmed", "final", None,
        ),
        (
            {"final": label(1, "user-xyz", "approved", "ben")},
            State.CONFIRMED, "confirmed by ben (name not verified)", "final", "final",
        ),
    ],
)  # fmt: skip
def test_state_and_choice(labels: dict[str, Any], state: State, words: str, used: str | None, approved: str | None) -> None:
    case = CaseReview.of(labels)
    assert (case.state, case.state_in_words) == (state, words)
    assert case.choose(LabelUse.ALL).tag == used
    assert case.choose(LabelUse.APPROVED).tag == approved
    for choice in (case.choose(LabelUse.ALL), case.choose(LabelUse.APPROVED)):
        assert choice.tag is not None or choice.note


def test_of_two_confirmed_versions_the_last_review_counts() -> None:
    labels = {
        "final": label(60), "version_1": label(1, "anna", "approved", "ben", edited=50),
        "version_2": label(2, "anna", "approved", "cleo", edited=40),
    }  # fmt: skip
    choice = CaseReview.of(labels).choose(LabelUse.ALL)
    assert choice.tag == "version_1"
    assert choice.note == "the label that ben confirmed is used (version_1); a newer one by anna (final) is not confirmed yet"


def test_an_older_version_that_is_approved_later_is_the_confirmed_one() -> None:
    labels = {"final": label(1, status="approved", approved_by="ben", edited=30), "version_1": label(20, "ben")}
    case = CaseReview.of(labels)
    assert (case.state, case.outdated, case.choose(LabelUse.ALL).tag) == (State.CONFIRMED, False, "final")


@pytest.mark.parametrize("broken", [None, 5, "x", {"status": None}, {"status": "approved", "approvedBy": 5}])
def test_what_others_wrote_there_stops_nothing(broken: Any) -> None:
    assert CaseReview.of({"final": {"ts": "yesterday", META: broken, "submission": 1}}).state is State.DRAFTED


def test_a_review_is_completed_and_the_ones_before_are_kept() -> None:
    first = reviewed_info({}, {META: {"status": "flagged", "approvedBy": "ben", "comment": "cut"}}, "anna", None, "case a")
    assert {k: v for k, v in first[META].items() if k not in ("editTime", "at")} == {
        "status": "flagged", "level": "", "approvedBy": "ben", "comment": "cut", "verified": False,
    }  # fmt: skip
    second = reviewed_info(first, {META: {"status": "approved", "approvedBy": "ben"}}, "anna", None, "case a")
    assert [r["status"] for r in second[REVIEWS]] == ["flagged", "approved"]
    again = reviewed_info({**first, **second}, {META: {**second[META], "level": "hard"}}, "anna", None, "case a")
    assert REVIEWS not in again
    assert again[META]["level"] == "hard"


def test_who_is_signed_in_reviews_by_that_name_and_never_the_own_case() -> None:
    said = {META: {"status": "approved", "approvedBy": "somebody else"}}
    meta = reviewed_info({}, said, "anna", "ben", "case a")[META]
    assert (meta["approvedBy"], meta["verified"]) == ("ben", True)
    assert CaseReview.of({"final": {"ts": 1, "client_id": "anna", META: meta}}).state_in_words == "confirmed by ben"
    with pytest.raises(LabelError, match="case a: anna drafted this case; a second reader must confirm it"):
        reviewed_info({}, said, "anna", "anna", "case a")


@pytest.mark.parametrize("meta", [5, "approved", ["approved"], {"status": ["approved"]}])
def test_a_review_that_is_none_is_refused(meta: Any) -> None:
    with pytest.raises(LabelError, match="case a: segmentationMeta must hold status, level, approvedBy, comment, editTime"):
        reviewed_info({}, {META: meta}, "anna", None, "case a")
