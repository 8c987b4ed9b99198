"""Who drafted a label, who confirmed it, and which of a case's labels is used: a view of what is kept beside each label.

The keys are MONAI Label's (``client_id``, ``label_info``, ``model``, ``ts``), those of 3D Slicer's MONAILabelReviewer (``segmentationMeta``
with ``status``, ``level``, ``approvedBy``, ``comment``, ``editTime``), and under ``submission`` what this software adds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flrplan.errors import LabelError
from flrplan.studies.names import FINAL, tag_order, version_number

META, SUBMISSION, REVIEWS = "segmentationMeta", "submission", "reviews"
APPROVED, FLAGGED = "approved", "flagged"
_KEYS = ("status", "level", "approvedBy", "comment", "editTime")
"""Of ``segmentationMeta``; MONAILabelReviewer reads all five and stops where one is missing."""

UNNAMED = ("", "user-xyz", "All")
"""What 3D Slicer's modules send where nobody has given a name."""


class State(StrEnum):
    """Where a case stands."""

    OPEN = "open"
    DRAFTED = "drafted"
    SENT_BACK = "sent back"
    REFINED = "refined"
    CONFIRMED = "confirmed"


class LabelUse(StrEnum):
    """``all``: the confirmed label where there is one, else the newest that was not sent back. ``approved``: confirmed ones alone."""

    ALL = "all"
    APPROVED = "approved"


@dataclass(frozen=True)
class Version:
    """One submitted label. ``saved``: seconds since 1970; ``by`` and ``approved_by`` are empty where nobody is named. ``first``: who had
    drafted the case when it was submitted.

    ``by_verified``, ``review_verified``: the name was proved by a password (``flrplan serve`` with users), not only sent.
    """

    tag: str
    saved: float
    by: str
    by_verified: bool
    first: str
    status: str
    approved_by: str
    review_verified: bool
    reviewed: float  # seconds since 1970
    comment: str
    level: str
    info: Mapping[str, Any]

    @classmethod
    def of(cls, tag: str, info: Mapping[str, Any]) -> Version:
        """From what is kept beside a label, by whatever client; what is missing or of another type counts as not said."""
        submission, meta = _mapping(info.get(SUBMISSION)), _mapping(info.get(META))
        approved_by = _name(meta.get("approvedBy"))
        return cls(
            tag,
            number(submission.get("saved"), number(info.get("ts"))),
            _name(submission.get("by")) or _name(info.get("client_id")) or ("" if tag == FINAL else approved_by),
            submission.get("by_verified") is True,
            _name(submission.get("first")),
            str(meta.get("status") or ""),
            approved_by,
            meta.get("verified") is True,
            number(meta.get("at"), number(meta.get("editTime"))),
            str(meta.get("comment") or ""),
            str(meta.get("level") or ""),
            info,
        )

    @property
    def who(self) -> str:
        """The author, in words."""
        return self.by or "somebody without a name"


@dataclass(frozen=True)
class Choice:
    """The label of a case that is used: its tag, or None and the reason. ``note`` is what its user must know."""

    tag: str | None
    note: str = ""


@dataclass(frozen=True)
class CaseReview:
    """All submitted labels of a case, the first one first."""

    versions: tuple[Version, ...]

    @classmethod
    def of(cls, labels: Mapping[str, Mapping[str, Any]]) -> CaseReview:
        """From what is kept beside each label, by tag; other tags than ``final`` and ``version_N`` (predictions) are left out."""
        submitted = [Version.of(t, i) for t, i in labels.items() if t == FINAL or version_number(t) is not None]
        return cls(tuple(sorted(submitted, key=lambda v: (v.saved, v.tag == FINAL, tag_order(v.tag)))))

    @property
    def newest(self) -> Version | None:
        """The label that was saved last."""
        return self.versions[-1] if self.versions else None

    @property
    def first_reader(self) -> str:
        """Who drafted the case, also where that label was deleted since and others rest on it; empty where nobody is named."""
        return self.versions[0].first or self.versions[0].by if self.versions else ""

    @property
    def latest(self) -> float:
        """When the last label was saved, or the last review made; seconds since 1970."""
        times = (max(v.saved, number(_mapping(v.info.get(META)).get("at"))) for v in self.versions)
        return max(times, default=0.0)

    @property
    def confirmed(self) -> Version | None:
        """The version that a second reader approved last."""
        found = [v for v in self.versions if v.status == APPROVED and v.approved_by and v.approved_by != self.first_reader]
        return max(found, key=lambda v: (v.reviewed, v.saved), default=None)

    @property
    def outdated(self) -> bool:
        """True where another label was submitted after the review that confirmed one."""
        confirmed, newest = self.confirmed, self.newest
        return confirmed is not None and newest is not None and newest is not confirmed and newest.saved > confirmed.reviewed

    @property
    def state(self) -> State:
        """Of the newest label, or of one that was confirmed since."""
        newest = self.newest
        if newest is None:
            return State.OPEN
        if self.confirmed is not None and not self.outdated:
            return State.CONFIRMED
        if newest.status == FLAGGED:
            return State.SENT_BACK
        return State.REFINED if len(self.versions) > 1 else State.DRAFTED

    @property
    def state_in_words(self) -> str:
        """The state, with what a reader must know of it."""
        newest, confirmed = self.newest, self.confirmed
        if confirmed is not None and not self.outdated:
            return f"confirmed by {confirmed.approved_by}{'' if confirmed.review_verified else ' (name not verified)'}"
        if self.state is State.SENT_BACK and newest is not None:
            return f"sent back{f' by {newest.approved_by}' if newest.approved_by else ''}{f': {newest.comment}' if newest.comment else ''}"
        if self.outdated:
            return f"{self.state}, review outdated"
        if newest is not None and newest.status == APPROVED:
            why = "by its first reader" if newest.approved_by else "by nobody named"
            return f"{self.state}, approved {why}: not confirmed"
        return str(self.state)

    def choose(self, use: LabelUse) -> Choice:
        """The label that trains, or that a person's own masks are taken from."""
        confirmed, newest = self.confirmed, self.newest
        if newest is None:
            return Choice(None, "it has no final label")
        if confirmed is not None:
            if not self.outdated:
                return Choice(confirmed.tag)
            return Choice(
                confirmed.tag,
                f"the label that {confirmed.approved_by} confirmed is used ({confirmed.tag}); a newer one by {newest.who} "
                f"({newest.tag}) {'was sent back' if newest.status == FLAGGED else 'is not confirmed yet'}",
            )
        if use is LabelUse.APPROVED:
            return Choice(None, f"its label is {self.state_in_words}, and only labels that a second reader confirmed are used")
        if newest.status == FLAGGED:
            return Choice(None, f"its label was {self.state_in_words}. Correct it and submit it again")
        return Choice(newest.tag)


def reviewed_info(
    known: Mapping[str, Any], new: Mapping[str, Any], first_reader: str, user: str | None, what: str
) -> dict[str, Any]:
    """What a client says of a label's review, completed; the reviews before are kept under ``reviews``.

    known, new: what is kept beside the label and what the client sends. user: who is signed in; None: names are what the client says.
    Raises: LabelError for a review that is none, and for a signed-in first reader who approves.
    """
    new = {key: value for key, value in new.items() if key not in (SUBMISSION, REVIEWS)}  # written here alone
    if META not in new:
        return new
    meta, before = new[META], _mapping(known.get(META))
    if not isinstance(meta, Mapping) or any(isinstance(v, (list, dict)) for v in meta.values()):
        raise LabelError(f"{what}: segmentationMeta must hold {', '.join(_KEYS)}, got {meta!r:.200}")
    said = {key: meta.get(key) if meta.get(key) is not None else "" for key in _KEYS}
    same = all(str(said[k]) == str(before.get(k) or "") for k in ("status", "approvedBy", "comment"))
    if same:
        return {**new, META: {**before, **said}}
    decides = said["status"] in (APPROVED, FLAGGED)
    if user is not None and decides:
        if said["status"] == APPROVED and user == first_reader:
            raise LabelError(f"{what}: {user} drafted this case; a second reader must confirm it")
        said["approvedBy"] = user
    said["editTime"] = said["editTime"] or int(time.time())
    full = {**said, "verified": user is not None and decides, "at": round(time.time(), 3)}
    past = known.get(REVIEWS)
    return {**new, META: full, REVIEWS: [*(past if isinstance(past, list) else []), full]}


def outdated_review(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a label that takes another one's place keeps of its review: comment and level, marked ``outdated``, and no decision."""
    meta = _mapping(info.get(META))
    if not meta.get("status"):
        return {}
    return {
        META: {**meta, "status": "", "approvedBy": "", "verified": False, "outdated": True},
        REVIEWS: info.get(REVIEWS) or [],
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def number(value: object, otherwise: float = 0.0) -> float:
    """A finite number that others wrote, else ``otherwise``."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return otherwise
    return found if math.isfinite(found) else otherwise


def _name(value: object) -> str:
    name = str(value).strip() if isinstance(value, str) else ""
    return "" if name in UNNAMED else name
