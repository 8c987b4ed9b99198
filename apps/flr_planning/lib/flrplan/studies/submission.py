"""A label that somebody submits: who, when, from which label and model, and what changed to the label before."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flrplan.anatomy import PlanningLabel
from flrplan.errors import FlrError
from flrplan.image import Geometry
from flrplan.metrics.overlap import dice
from flrplan.studies.folder import StudiesFolder
from flrplan.studies.names import FINAL, ORIGINAL, check_id, check_tag
from flrplan.studies.review import META, REVIEWS, SUBMISSION, CaseReview, Version, number, outdated_review, reviewed_info
from flrplan.studies.stored import StoredLabel

logger = logging.getLogger(__name__)

ReadLabel = Callable[[Path, Mapping[str, Any]], tuple[PlanningLabel, Geometry]]
"""Reads a label file by what is known of it; raises an FlrError where it cannot."""

LEASE = "lease"
"""Of an image: ``to`` whom it was handed out, ``since`` and ``until`` when (seconds since 1970)."""
LONGEST_MINUTES = 240.0
"""A case that was taken longer ago was not worked on all the time."""


def submit(
    folder: StudiesFolder,
    image_id: str,
    tag: str,
    source: Path,
    info: Mapping[str, Any],
    read: ReadLabel,
    user: str | None = None,
) -> StoredLabel:
    """Stores a label as :meth:`StudiesFolder.save_label` does, with its submission. A repeated request changes nothing.

    read: how labels are read, to say what changed. user: the name that was proved by a password, else None.
    Raises: LabelError, OutputError; then nothing changed.
    """
    check_id(image_id), check_tag(tag)
    if tag == ORIGINAL:
        return folder.save_label(image_id, tag, source, {**info, "ts": int(time.time())})
    with folder.locked():
        before = folder.labels_of(image_id)
        case = CaseReview.of({t: label.info for t, label in before.items()})
        reviewed = reviewed_info({}, info, case.first_reader, user, f"image {image_id}, {tag}")
        version = Version.of(tag, reviewed)
        by = user or version.by
        same = before.get(tag)
        if same is not None and Version.of(tag, same.info).by == by and folder.is_same_label(same, source, info):
            return same
        if same is not None and META not in reviewed:
            reviewed |= outdated_review(same.info)
        base = before.get(tag) or (before[case.newest.tag] if case.newest else before.get(ORIGINAL))
        now = time.time()
        submission = {
            "saved": round(max(now, case.latest + 0.001), 3),  # in order, though the clock was set back
            "by": by,
            "by_verified": user is not None,
            "first": case.first_reader if case.versions else by,
            "from": _origin(before, base),
            "minutes": _minutes(folder.image_info(image_id), by, now),
            "changes": changes(base, source, reviewed, read, image_id) if base is not None else None,
        }
        stored = folder.save_label(image_id, tag, source, {**reviewed, "ts": int(now), SUBMISSION: submission})
        lease = folder.image_info(image_id).get(LEASE)
        if isinstance(lease, Mapping) and lease.get("to") in (by, ""):
            folder.update_image(image_id, {LEASE: None})
        return stored


def review(folder: StudiesFolder, image_id: str, tag: str, info: Mapping[str, Any], user: str | None = None) -> dict[str, Any]:
    """Keeps a review, or anything else, beside a label; returns all that is kept there. Raises: LabelError, OutputError."""
    with folder.locked():
        labels = folder.labels_of(image_id)
        first = CaseReview.of({t: label.info for t, label in labels.items()}).first_reader
        known = labels[tag].info if tag in labels else {}
        info = {key: value for key, value in info.items() if key not in _OF_ITS_AUTHOR}
        return folder.update_label(image_id, tag, reviewed_info(known, info, first, user, f"image {image_id}, {tag}"))


def restore(folder: StudiesFolder, image_id: str, tag: str, read: ReadLabel, by: str = "") -> StoredLabel:
    """Submits an older label once more as ``final``; what was ``final`` stays as a version. Raises: LabelError, OutputError."""
    label = folder.require_label(image_id, tag)
    kept = {key: value for key, value in label.info.items() if key not in _OF_ONE_SUBMISSION}
    return submit(folder, image_id, FINAL, label.path, {**kept, "client_id": by, "restored": tag}, read)


_OF_ITS_AUTHOR = ("client_id", "ts", "name")
"""Keys that stay as they were stored: a review does not say whose label it is, nor when it was saved."""
_OF_ONE_SUBMISSION = (SUBMISSION, META, REVIEWS, "restored", *_OF_ITS_AUTHOR)
"""Keys that an older label does not hand on when it is restored."""


def changes(
    base: StoredLabel, source: Path, info: Mapping[str, Any], read: ReadLabel, image_id: str
) -> dict[str, dict[str, float | None]] | None:
    """Dice to the label before and ml before and after, per structure that both hold; None where they cannot be compared."""
    try:
        (old, grid), (new, other) = read(base.path, base.info), read(source, info)
    except FlrError as error:
        logger.info("image %s: what changed is not known: %s", image_id, error)
        return None
    if not grid.is_same_grid(other):
        return None
    ml = grid.voxel_volume_ml
    found: dict[str, dict[str, float | None]] = {}
    for structure in sorted(old.holds & new.holds):
        a, b = old.masks[structure], new.masks[structure]
        score = dice(a, b)
        found[structure.value] = {
            "dice": round(score, 6) if score == score else None,
            "ml_before": round(float(a.sum()) * ml, 3),
            "ml": round(float(b.sum()) * ml, 3),
        }
    return found


def _origin(before: Mapping[str, StoredLabel], base: StoredLabel | None) -> dict[str, Any] | None:
    """The label that a submission started from, as far as one can know: its tag, author and model."""
    if base is None:
        return None
    tag = next(t for t, label in before.items() if label is base)
    version = Version.of(tag, base.info)
    return {"tag": tag, "saved": version.saved, "by": version.by, "model": base.info.get("model")}


def _minutes(image_info: Mapping[str, Any], by: str, now: float) -> float | None:
    """Between handing the case out and this label, where the same person has both."""
    lease = image_info.get(LEASE)
    if not isinstance(lease, Mapping) or lease.get("to") != by or not by:
        return None
    minutes = (now - number(lease.get("since"))) / 60
    return round(minutes, 2) if 0 <= minutes <= LONGEST_MINUTES else None
