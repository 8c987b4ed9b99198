"""The label that a person submitted of an image as structures on the CT's grid, whatever names and indices a client gave it."""

from __future__ import annotations

import logging
from pathlib import Path

from flrplan.anatomy import Mask, PlanningLabel, Structure
from flrplan.errors import EmptyLiverError, LabelError
from flrplan.image import CT
from flrplan.learning import AnnotatedImage
from flrplan.server.options import Inputs
from flrplan.server.studies import PlanningDatastore
from flrplan.studies.review import Choice, LabelUse

logger = logging.getLogger(__name__)


def given_masks(datastore: PlanningDatastore, image_id: str | None, ct: CT, inputs: Inputs) -> dict[Structure, Mask]:
    """The masks ``(Z, Y, X) bool`` that ``inputs`` takes from a person's label (:func:`used_label`); none for ``predicted``.

    Raises: LabelError where there is no label, it was sent back, or it does not hold a structure; EmptyLiverError where its liver is empty;
        GridError where it lies on another grid. Each says what to do.
    """
    if not inputs.structures:
        return {}
    choice = f"inputs={inputs.value}"
    tag, label = stored_label(datastore, image_id, ct, choice, ", or choose inputs=predicted")
    missing = [s.value for s in inputs.structures if s not in label.holds]
    if missing:
        raise LabelError(
            f"{choice}: the {tag} label of {image_id} does not hold {' and '.join(missing)}; it holds "
            f"{', '.join(sorted(map(str, label.holds))) or 'nothing'}. Draw and submit it, or choose other inputs"
        )
    if not label.masks[Structure.LIVER].any():
        raise EmptyLiverError(
            f"{choice}: the liver in the {tag} label of {image_id} has no voxels; draw it, or choose inputs=predicted"
        )
    return {s: label.masks[s] for s in inputs.structures}


def stored_label(
    datastore: PlanningDatastore, image_id: str | None, ct: CT, choice: str, otherwise: str = ""
) -> tuple[str, PlanningLabel]:
    """The label of an image that counts, with its tag. choice, otherwise: what was asked for, and what else could be done, for the message.

    Raises: LabelError where there is none; LabelError and GridError where it cannot be read.
    """
    if image_id is None:
        raise LabelError(f"{choice} takes the stored label of an image of the studies, but this image came as a file or a path")
    submitted = datastore.submitted(image_id)
    chosen = submitted.choose(LabelUse.ALL)
    if chosen.tag is None and submitted.newest is not None:
        raise LabelError(f"{choice}: image {image_id}: {chosen.note}{otherwise}")
    label = None if chosen.tag is None else datastore.label(image_id, chosen.tag, ct)
    if chosen.tag is None or label is None:
        raise LabelError(
            f"{choice}: image {image_id} has no final label. Draw the liver, name it 'liver' and submit the label{otherwise}"
        )
    return chosen.tag, label


def used_label(
    datastore: PlanningDatastore, image_id: str | None, inputs: Inputs
) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    """The label whose masks are taken: its tag and where its case stands; and what must be known of it. None where no mask is taken."""
    return (None, ()) if not inputs.structures or image_id is None else chosen_label(datastore, image_id)


def chosen_label(datastore: PlanningDatastore, image_id: str) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    """The label of an image that counts: its tag and where its case stands; and what must be known of it. None where there is none."""
    submitted = datastore.submitted(image_id)
    chosen = submitted.choose(LabelUse.ALL)
    if chosen.tag is None:
        return None, ()
    return {"tag": chosen.tag, "case": submitted.state_in_words}, (chosen.note,) if chosen.note else ()


def annotated_images(datastore: PlanningDatastore, use: LabelUse | None = None) -> tuple[list[AnnotatedImage], int]:
    """Every image with a label that somebody submitted, and how many images have none. Images of a DICOMweb server are downloaded.

    use: which label of an image is taken; None: the newest one, whatever its review says.
    """
    datastore.forget_lists()
    labelled = sorted(set(datastore.get_labeled_images()))
    unlabelled = len(set(datastore.list_images()) - set(labelled))
    return [_annotated(datastore, image_id, use) for image_id in labelled], unlabelled


def _annotated(datastore: PlanningDatastore, image_id: str, use: LabelUse | None) -> AnnotatedImage:
    path = datastore.source_of(image_id, Path(datastore.get_image_uri(image_id)))
    chosen = Choice("") if use is None else datastore.submitted(image_id).choose(use)
    if chosen.tag and chosen.note:
        logger.warning("image %s: %s", image_id, chosen.note)

    def label(ct: CT) -> PlanningLabel | None:
        if chosen.tag is None:
            raise LabelError(chosen.note)
        return datastore.label(image_id, chosen.tag, ct) if chosen.tag else datastore.final_label(image_id, ct)

    return AnnotatedImage(image_id, path, label, datastore.patients_of(image_id))
