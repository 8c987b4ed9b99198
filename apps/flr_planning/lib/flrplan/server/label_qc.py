"""Label QC as a scoring method of MONAI Label: how bad the stored label of each image is, computed beside the server's work and once.

MONAI Label 0.8.5 starts every scoring method at its start, at each ``next`` and at each saved label, in a process that loads the whole
app (torch, MONAI). :meth:`LabelQc.in_background` takes the place of that: a thread, which reads only labels that are new.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from monailabel.interfaces.tasks.scoring import ScoringMethod

from flrplan.active_learning.measure import UNREADABLE
from flrplan.errors import FlrError
from flrplan.image import read_ct
from flrplan.learning import AnnotatedImage
from flrplan.qc import QcCase, Severity, check_case
from flrplan.server.annotations import annotated_images
from flrplan.server.studies import PlanningDatastore

METHOD = "label_qc"

_LOG = logging.getLogger(__name__)


class LabelQc(ScoringMethod):  # type: ignore[misc]  # monailabel is untyped
    """Scores ``final`` labels by the rules of :mod:`flrplan.qc`; the image's info keeps score, counts and messages under ``label_qc``."""

    def __init__(self) -> None:
        super().__init__(
            "what label QC finds in each final label: 0 nothing, 1-2 notes, 2-3 warnings, 3-4 errors, 4 unreadable"
        )
        self._one_at_a_time = threading.Lock()
        self._guard = threading.Lock()
        self._wanted = self._running = False

    def __call__(self, request: dict[str, Any], datastore: PlanningDatastore) -> dict[str, float]:
        """The score of every labelled image, by id. A label that was scored before and has not changed is not read again."""
        with self._one_at_a_time:
            images, _ = annotated_images(datastore)
            return {image.case_id: self._score(image, datastore) for image in images}

    def in_background(self, datastore: PlanningDatastore) -> None:
        """Brings the scores up to date in a thread of its own; returns at once. While one runs, it only goes on to look once more."""
        with self._guard:
            self._wanted = True
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, args=(datastore,), name=METHOD, daemon=True).start()

    def state(self) -> dict[str, Any]:
        """Whether the thread is at work."""
        return {"running": self._running}

    def _run(self, datastore: PlanningDatastore) -> None:
        while self._go_on():
            try:
                self({}, datastore)
            except Exception:  # a thread has nobody to tell; the scores are of use, not needed
                _LOG.exception("label QC in the background")

    def _go_on(self) -> bool:
        """Takes up the wish to look, or ends: a wish that comes in between starts another thread."""
        with self._guard:
            self._wanted, self._running = False, self._wanted
            return self._running

    def _score(self, image: AnnotatedImage, datastore: PlanningDatastore) -> float:
        stamp = datastore.label_stamp(image.case_id)
        known = datastore.get_image_info(image.case_id).get(METHOD)
        if isinstance(known, dict) and stamp is not None and known.get("label") == stamp:
            return float(known["score"])
        found = _found(image)
        datastore.update_image_info(image.case_id, {METHOD: {"label": stamp, **found}})
        return float(found["score"])


def _found(image: AnnotatedImage) -> dict[str, Any]:
    try:
        ct = read_ct(image.image)
        label = image.label(ct)
        masks = {} if label is None else dict(label.masks)
        checked = check_case(QcCase(image.case_id, ct.geometry, masks, ct))
    except Exception as error:  # one case never costs the others their scores
        if not isinstance(error, FlrError):
            _LOG.exception("label QC of %s", image.case_id)
        return {"score": UNREADABLE, "messages": [str(error)]}
    counts = {f"{s}s": checked.count(s) for s in Severity}
    return {"score": round(checked.score, 4), **counts, "messages": [f.message for f in checked.findings]}
