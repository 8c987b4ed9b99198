"""Label QC as a scoring method of MONAI Label: how bad the stored label of each image is, computed beside the server's work and once.

MONAI Label 0.8.5 starts every scoring method at its start, at each ``next`` and at each saved label, in a process that loads the whole
app (torch, MONAI). :meth:`LabelQc.in_background` takes the place of that: a thread, which reads only labels that are new.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod

from flrplan.errors import FlrError
from flrplan.image import read_ct
from flrplan.learning import AnnotatedImage
from flrplan.qc import QcCase, Severity, check_case
from flrplan.server.annotations import annotated_images
from flrplan.server.dicomweb import PlanningDICOMWebDatastore

METHOD = "label_qc"
UNREADABLE = 4.0
"""Score of a label that cannot be read, above every other."""

_LOG = logging.getLogger(__name__)


class LabelQc(ScoringMethod):  # type: ignore[misc]  # monailabel is untyped
    """Scores ``final`` labels by the rules of :mod:`flrplan.qc`; the image's info keeps score, counts and messages under ``label_qc``."""

    def __init__(self) -> None:
        super().__init__(
            "what label QC finds in each final label: 0 nothing, 1-2 notes, 2-3 warnings, 3-4 errors, 4 unreadable"
        )
        self._one_at_a_time = threading.Lock()
        self._wanted = threading.Event()
        self._runner: threading.Thread | None = None

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, float]:
        """The score of every labelled image, by id. A label that was scored before and has not changed is not read again."""
        with self._one_at_a_time:
            images, _ = annotated_images(datastore)
            return {image.case_id: self._score(image, datastore) for image in images}

    def in_background(self, datastore: Datastore) -> None:
        """Brings the scores up to date in a thread of its own; returns at once. While one runs, it only goes on to look once more."""
        self._wanted.set()
        if self._runner is None or not self._runner.is_alive():
            self._runner = threading.Thread(target=self._run, args=(datastore,), name=METHOD, daemon=True)
            self._runner.start()

    def _run(self, datastore: Datastore) -> None:
        while self._wanted.is_set():
            self._wanted.clear()
            try:
                self({}, datastore)
            except Exception:  # a thread has nobody to tell; the scores are of use, not needed
                _LOG.exception("label QC in the background")

    def _score(self, image: AnnotatedImage, datastore: Datastore) -> float:
        stamp = _stamp(datastore, image.case_id)
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
    except FlrError as error:
        return {"score": UNREADABLE, "messages": [str(error)]}
    counts = {f"{s}s": checked.count(s) for s in Severity}
    return {"score": round(checked.score, 4), **counts, "messages": [f.message for f in checked.findings]}


def _stamp(datastore: Datastore, image_id: str) -> str | None:
    """Changes with the label; None where that cannot be told."""
    if isinstance(datastore, PlanningDICOMWebDatastore):
        seg = datastore.newest_seg(image_id)
        return None if seg is None else str(seg.SeriesInstanceUID)
    path = Path(datastore.get_label_uri(image_id, DefaultLabelTag.FINAL))
    if not path.is_file():
        return None
    state = path.stat()
    return f"{path.name} {state.st_size} {state.st_mtime_ns}"
