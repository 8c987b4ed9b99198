"""Quirks of MONAI Label 0.8.5 (the newest release), each with the reason for what is done about it. Nothing is patched.

Its DICOMweb datastore and its answers to errors have files of their own: :mod:`flrplan.server.dicomweb`,
:mod:`flrplan.server.client_error`.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from flrplan.errors import ImageError
from flrplan.server.doors import require_image, require_tag
from flrplan.server.label_table import AUTOMATIC, segment_entry
from flrplan.server.studies import PlanningDatastore

logger = logging.getLogger(__name__)

SEG_WRITER = "itkimage2segimage"
IMAGE_ID = "flrplan_image_id"
"""Key in a request under which the image's id travels beside its path."""


def with_image_id(request: dict[str, Any], sessions: str | None) -> dict[str, Any]:
    """A copy of a request that keeps the image's id; ``MONAILabelApp.infer`` replaces it by a path, and a task that takes the
    annotator's label needs it. An uploaded file has no id.

    sessions: the folder of the server's sessions. Raises ImageError, LabelError for what is no id, no upload, and no tag: the host
    opens whatever path exists.
    """
    if (tag := request.get("label_tag")) is not None:
        require_tag(tag)
    return {**request, IMAGE_ID: require_image(request.get("image"), sessions)}


def image_path(request: dict[str, Any], datastore: PlanningDatastore) -> Path:
    """The image of a request as ``MONAILabelApp.infer`` hands it to a task. Raises ImageError where it knows no such image."""
    image = request.get("image")
    if not isinstance(image, str) or not image:
        raise ImageError(
            f"no image {request.get(IMAGE_ID) or image!r} in this server's studies; ask /datastore/ for the ids, or upload it"
        )
    image_id = request.get(IMAGE_ID)
    if image == image_id:  # a file of the working folder is called so, and the host took that
        image = datastore.get_image_uri(image_id)
    return Path(image) if image_id is None else datastore.source_of(image_id, Path(image))


def find_seg_writer() -> None:
    """Makes dcmqi's SEG writer of this environment findable; the host would download it from GitHub and die offline.

    It is called by name through PATH, and a server that is started by the interpreter's path has no venv on PATH.
    """
    if shutil.which(SEG_WRITER):
        return
    beside_python = Path(sys.executable).parent
    if (beside_python / SEG_WRITER).is_file():
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}{os.pathsep}{beside_python}"
        return
    logger.error("%s was not found: DICOM SEG cannot be written. Install it: pip install dcmqi", SEG_WRITER)


def name_segments(request: dict[str, Any], params: dict[str, Any]) -> None:
    """Corrects the ``label_info`` of an infer request with ``output=dicom_seg``, in place.

    The host names the n-th value that is PRESENT by the n-th entry of the client's list: without tumour in the resection,
    ``crlm_in_remnant`` would be stored as ``crlm_in_resection``. It reads that list after the inference, from the object that
    it put into the request, so the entries are replaced by the right ones for the values present, with codes and colours.
    """
    listed = request.get("label_info")
    if not isinstance(listed, list):
        return
    own = f"FLR planning: {request.get('model', 'model')}, predicted"  # the SeriesDescription, by which a viewer lists it
    model = next((e["model_name"] for e in listed if isinstance(e, dict) and "model_name" in e), own)
    present = {name: params["label_names"][name] for name in params["labels_present"]}
    entries = [segment_entry(name, index, AUTOMATIC) for name, index in sorted(present.items(), key=lambda item: item[1])]
    listed[:] = [{**entry, "model_name": model} for entry in entries]
