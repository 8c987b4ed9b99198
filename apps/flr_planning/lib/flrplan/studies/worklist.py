"""Who works on which case, and how far all of them are: the work list, and its table."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from flrplan.files import plain_cell
from flrplan.files.page import render_page
from flrplan.studies.review import SUBMISSION, CaseReview, State, Version, number
from flrplan.studies.submission import LEASE

DOUBLE = "double_reading"
"""Key of what is kept of an image: whether a second annotator draws it, too."""


@dataclass(frozen=True)
class Lease:
    """A case in somebody's hands. ``to`` is empty where nobody is named; times are seconds since 1970."""

    to: str
    since: float
    until: float

    @classmethod
    def of(cls, info: Mapping[str, Any], now: float) -> Lease | None:
        """What is kept of an image; None where nobody has it, or had it for too long.

        One that begins later from now than it lasts was given by a clock that has been set back since.
        """
        kept = info.get(LEASE)
        if not isinstance(kept, Mapping):
            return None
        try:
            lease = cls(str(kept.get("to") or ""), float(kept["since"]), float(kept["until"]))
        except (KeyError, TypeError, ValueError):
            return None
        return lease if lease.until > now > 2 * lease.since - lease.until else None


@dataclass(frozen=True)
class Change:
    """How a label of one structure was changed by the next one: Dice of the two (None: both empty), and ml more."""

    structure: str
    dice: float | None
    ml: float


@dataclass(frozen=True)
class Row:
    """One case of the work list."""

    case: str
    state: State
    words: str
    lease: Lease | None
    double: bool
    review: CaseReview

    @classmethod
    def of(cls, case: str, info: Mapping[str, Any], review: CaseReview, now: float) -> Row:
        """From what is kept of an image and its labels."""
        return cls(case, review.state, review.state_in_words, Lease.of(info, now), info.get(DOUBLE) is True, review)

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who submitted a label, the first one first; those without a name are not among them."""
        return tuple(dict.fromkeys(v.by for v in self.review.versions if v.by))

    @property
    def minutes(self) -> float | None:
        """Spent on the case, as far as it is known."""
        known = [m for v in self.review.versions if (m := minutes_of(v)) is not None]
        return sum(known) if known else None

    @property
    def changes(self) -> list[Change]:
        """Of all its labels."""
        return [change for version in self.review.versions for change in changes_of(version)]

    def cells(self) -> dict[str, str]:
        """As a line of a table."""
        newest = self.review.newest
        return {
            "case": self.case,
            "state": str(self.state),
            "what": self.words,
            "held by": "" if self.lease is None else self.lease.to or "somebody without a name",
            "until": "" if self.lease is None else clock(self.lease.until),
            "annotators": ", ".join(self.annotators),
            "labels": str(len(self.review.versions)),
            "last saved": "" if newest is None else clock(newest.saved),
            "minutes": "" if self.minutes is None else f"{self.minutes:.0f}",
            "double reading": "yes" if self.double else "",
        }


def minutes_of(version: Version) -> float | None:
    """From handing the case out to this label, where it is known."""
    kept = version.info.get(SUBMISSION)
    minutes = kept.get("minutes") if isinstance(kept, Mapping) else None
    return number(minutes) if isinstance(minutes, (int, float)) else None


def changes_of(version: Version) -> list[Change]:
    """What a label changed of the one before; nothing where that is not known."""
    kept = version.info.get(SUBMISSION)
    changes = kept.get("changes") if isinstance(kept, Mapping) else None
    if not isinstance(changes, Mapping):
        return []
    return [
        Change(s, None if c.get("dice") is None else number(c["dice"]), number(c["ml"]) - number(c["ml_before"]))
        for s, c in changes.items()
        if isinstance(c, Mapping) and "ml" in c and "ml_before" in c
    ]


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """Cases per state, all states."""
    found = Counter(row.state for row in rows)
    return {str(state): found[state] for state in State}


def mean_changes(rows: Iterable[Row], by: str | None = None) -> list[dict[str, Any]]:
    """Per structure: how many labels changed it, their mean Dice to the label before, and the mean of the ml that differ.

    by: of one annotator's labels alone.
    """
    of_structure: dict[str, list[Change]] = {}
    for row in rows:
        for version in row.review.versions:
            if by is None or version.by == by:
                for change in changes_of(version):
                    of_structure.setdefault(change.structure, []).append(change)
    return [
        {
            "structure": structure,
            "labels": len(found),
            "dice": fmean(dice) if (dice := [c.dice for c in found if c.dice is not None]) else None,
            "ml": fmean(abs(c.ml) for c in found),
        }
        for structure, found in sorted(of_structure.items())
    ]


def per_annotator(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per annotator: cases, labels, minutes a case where known, and what they changed of the labels before theirs."""
    names = dict.fromkeys(v.by for row in rows for v in row.review.versions)
    table = []
    for name in names:
        own = [v for row in rows for v in row.review.versions if v.by == name]
        minutes = [m for v in own if (m := minutes_of(v)) is not None]
        table.append(
            {
                "annotator": name or "without a name",
                "cases": sum(any(v.by == name for v in row.review.versions) for row in rows),
                "labels": len(own),
                "confirmed": sum(row.review.confirmed in own for row in rows),
                "minutes": fmean(minutes) if minutes else None,
                "changes": mean_changes(rows, name),
            }
        )
    return table


def minutes_a_case(rows: Iterable[Row]) -> tuple[float, int] | None:
    """Mean minutes of the cases where they are known, and how many these are."""
    known = [row.minutes for row in rows if row.minutes is not None]
    return (fmean(known), len(known)) if known else None


def as_csv(rows: Iterable[Row]) -> str:
    """The work list with a head, one line a case."""
    out = io.StringIO()
    lines = [row.cells() for row in rows]
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["case"], lineterminator="\n")
    writer.writeheader()
    writer.writerows([{k: plain_cell(v) for k, v in line.items()} for line in lines])
    return out.getvalue()


def clock(seconds: float) -> str:
    """A time as people read it, of this machine's zone; ``?`` for one that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "?"


def as_page(rows: Sequence[Row], title: str, csv_link: str = "", pictures: Mapping[str, str] | None = None) -> str:
    """The work list as an HTML page. pictures: by case, as links beside the page."""
    return render_page(
        Path(__file__).parent / "worklist.html",
        title=title,
        rows=[row.cells() for row in rows],
        counts=counts(rows),
        minutes=minutes_a_case(rows),
        changes_of_all=mean_changes(rows),
        annotators=per_annotator(rows),
        csv=csv_link,
        pictures=pictures or {},
    )
