"""The annotator's ``final`` label of an image as structures on the CT's grid, whatever names and indices a client gave it."""

from __future__ import annotations

from pathlib import Path

from flrplan.anatomy import Mask, PlanningLabel, Structure
from flrplan.errors import EmptyLiverError, LabelError
from flrplan.image import CT
from flrplan.learning import AnnotatedImage
from flrplan.server.options import Inputs
from flrplan.server.studies import PlanningDatastore


def given_masks(datastore: PlanningDatastore, image_id: str | None, ct: CT, inputs: Inputs) -> dict[Structure, Mask]:
    """The masks ``(Z, Y, X) bool`` that ``inputs`` takes from the annotator; no mask for ``predicted``.

    Raises: LabelError where there is no label, or it does not hold a structure; EmptyLiverError where its liver is empty;
        GridError where it lies on another grid. Each says what to do.
    """
    if not inputs.structures:
        return {}
    choice = f"inputs={inputs.value}"
    label = stored_label(datastore, image_id, ct, choice, ", or choose inputs=predicted")
    missing = [s.value for s in inputs.structures if s not in label.holds]
    if missing:
        raise LabelError(
            f"{choice}: the final label of {image_id} does not hold {' and '.join(missing)}; it holds "
            f"{', '.join(sorted(map(str, label.holds))) or 'nothing'}. Draw and submit it, or choose other inputs"
        )
    if not label.masks[Structure.LIVER].any():
        raise EmptyLiverError(
            f"{choice}: the liver in the final label of {image_id} has no voxels; draw it, or choose inputs=predicted"
        )
    return {s: label.masks[s] for s in inputs.structures}


def stored_label(datastore: PlanningDatastore, image_id: str | None, ct: CT, choice: str, otherwise: str = "") -> PlanningLabel:
    """The ``final`` label of an image. choice, otherwise: what was asked for, and what else could be done, for the message.

    Raises: LabelError where there is none; LabelError and GridError where it cannot be read.
    """
    if image_id is None:
        raise LabelError(f"{choice} takes the stored label of an image of the studies, but this image came as a file or a path")
    label = datastore.final_label(image_id, ct)
    if label is None:
        raise LabelError(
            f"{choice}: image {image_id} has no final label. Draw the liver, name it 'liver' and submit the label{otherwise}"
        )
    return label


def annotated_images(datastore: PlanningDatastore) -> tuple[list[AnnotatedImage], int]:
    """Every image with a ``final`` label, and how many images have none. Images of a DICOMweb server are downloaded."""
    datastore.forget_lists()
    labelled = sorted(set(datastore.get_labeled_images()))
    unlabelled = len(set(datastore.list_images()) - set(labelled))
    return [_annotated(datastore, image_id) for image_id in labelled], unlabelled


def _annotated(datastore: PlanningDatastore, image_id: str) -> AnnotatedImage:
    path = datastore.source_of(image_id, Path(datastore.get_image_uri(image_id)))
    return AnnotatedImage(image_id, path, lambda ct: datastore.final_label(image_id, ct), datastore.patients_of(image_id))
