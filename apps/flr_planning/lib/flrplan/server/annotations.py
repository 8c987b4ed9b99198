"""The annotator's ``final`` label of an image as structures on the CT's grid, whatever names and indices a client gave it."""

from __future__ import annotations

from pathlib import Path

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from flrplan.anatomy import Mask, PlanningLabel, Structure, decode_label
from flrplan.errors import EmptyLiverError, LabelError
from flrplan.image import CT, read_label_map
from flrplan.image.dicom_seg import read_dicom_seg
from flrplan.image.geometry import require_same_grid
from flrplan.learning.annotations import AnnotatedImage
from flrplan.server.dicomweb import PlanningDICOMWebDatastore
from flrplan.server.label_table import names_sent
from flrplan.server.options import Inputs


def given_masks(datastore: Datastore, image_id: str | None, ct: CT, inputs: Inputs) -> dict[Structure, Mask]:
    """The masks ``(Z, Y, X) bool`` that ``inputs`` takes from the annotator; no mask for ``predicted``.

    Raises: LabelError where there is no label, or it does not hold a structure; EmptyLiverError where its liver is empty;
        GridError where it lies on another grid. Each says what to do.
    """
    if not inputs.structures:
        return {}
    choice = f"inputs={inputs.value}"
    if image_id is None:
        raise LabelError(f"{choice} takes the stored label of an image of the studies, but this image came as a file or a path")
    label = final_label(datastore, image_id, ct)
    if label is None:
        raise LabelError(
            f"{choice}: image {image_id} has no final label. Draw the liver, name it 'liver' and submit the label, "
            "or choose inputs=predicted"
        )
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


def final_label(datastore: Datastore, image_id: str, ct: CT) -> PlanningLabel | None:
    """The ``final`` label of an image, or None where there is none. Raises LabelError, GridError where it cannot be used."""
    if isinstance(datastore, PlanningDICOMWebDatastore):
        return _label_of_dicomweb(datastore, image_id, ct)
    uri = datastore.get_label_uri(image_id, DefaultLabelTag.FINAL)
    if not uri or not Path(uri).is_file():
        return None
    return _label_of_file(Path(uri), datastore.get_label_info(image_id, DefaultLabelTag.FINAL), ct)


def annotated_images(datastore: Datastore) -> tuple[list[AnnotatedImage], int]:
    """Every image with a ``final`` label, and how many images have none. Images of a DICOMweb server are downloaded."""
    if isinstance(datastore, PlanningDICOMWebDatastore):
        datastore.forget_lists()
    labelled = sorted(set(datastore.get_labeled_images()))
    unlabelled = len(set(datastore.list_images()) - set(labelled))
    return [_annotated(datastore, image_id) for image_id in labelled], unlabelled


def _annotated(datastore: Datastore, image_id: str) -> AnnotatedImage:
    path, patients = Path(datastore.get_image_uri(image_id)), frozenset[str]()
    if isinstance(datastore, PlanningDICOMWebDatastore):
        path, patients = datastore.series_folder(image_id) or path, datastore.patients_of(image_id)
    return AnnotatedImage(image_id, path, lambda ct: final_label(datastore, image_id, ct), patients)


def _label_of_file(path: Path, info: dict[str, object], ct: CT) -> PlanningLabel:
    label, geometry = read_label_map(path)
    require_same_grid(ct.geometry, geometry, ct.source, str(path))
    return decode_label(label, names_sent(info, str(path)), str(path))


def _label_of_dicomweb(datastore: PlanningDICOMWebDatastore, image_id: str, ct: CT) -> PlanningLabel | None:
    """The newest SEG at the server is the truth; the file in the cache is used if it is that SEG's own, with all names."""
    seg = datastore.newest_seg(image_id)
    if seg is None:
        return None
    saved = datastore.saved_here(image_id)
    if saved is not None and saved[1].get("SeriesInstanceUID") == str(seg.SeriesInstanceUID):
        return _label_of_file(*saved, ct)
    what = f"SEG {seg.SeriesInstanceUID} of {image_id}"
    label, names = read_dicom_seg(datastore.download(seg), ct.geometry, what)
    return decode_label(label, names, what)
