"""MONAI Label 0.8.5's DICOMweb datastore, with right segment names on the way out and a full-size label on the way back."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import requests
from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings as host_settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom import dcmread
from pydicom.dataset import Dataset

from flrplan.anatomy import PlanningLabel, decode_layers, label_name, to_label_map
from flrplan.errors import FlrError, ImageError
from flrplan.image import CT, read_ct, read_label_map, write_label_map
from flrplan.image.dicom_seg import read_dicom_layers, with_empty_compartments
from flrplan.objects.source import PLAN_CONTENT
from flrplan.server.client_error import errors_for_client
from flrplan.server.doors import ids_checked
from flrplan.server.durable import DurableDatastore
from flrplan.server.label_check import checked_upload
from flrplan.server.label_table import AUTOMATIC, SEMIAUTOMATIC, names_sent, read_stored_label, segment_entry
from flrplan.studies import FINAL
from flrplan.studies.names import next_version
from flrplan.studies.review import SUBMISSION, CaseReview, Version

logger = logging.getLogger(__name__)

SUBMITTED = "FLR planning: submitted label"
"""SeriesDescription of a SEG that this server stores, by which a viewer lists it (the host takes it from ``model_name``)."""
_UNKNOWN = "UNK"
"""The host's word for a value that the server did not state."""


@ids_checked
class PlanningDICOMWebDatastore(DICOMWebDatastore, DurableDatastore):  # type: ignore[misc]  # monailabel is untyped
    """The host's datastore, with a cache that survives as a folder does (:mod:`flrplan.server.durable`), but for these points of 0.8.5:

    - its SEG writer names the n-th value present by the n-th entry of ``label_info``: a list with an unpainted name in the
      middle (3D Slicer sends all) shifts the names. The list is ordered before it is used;
    - a SEG read back is cropped to the slices with voxels, has lost its names, and an older file in the cache wins over it.
      :meth:`newest_seg` gives the newest SEG of one CT itself, without downloading all other labelled studies;
    - ``get_labeled_images`` is cached for two hours: "completed" stayed 0 after a save, and after one by OHIF, which stores at the
      DICOMweb server itself. Here the server is asked each time, and of each SEG once what it refers to;
    - a SEG that somebody else stored was known by its id alone; its names, its author and its date are kept here at its first use;
    - a SEG whose segments are all ``AUTOMATIC`` is a prediction, not a label of a person, and counts as none;
    - an unknown id died with IndexError;
    - the ``final`` label of an image was asked for at the server as a series of that id, which is the CT (3D Slicer's MONAILabelReviewer
      does ask so): where this server saved it, its file is the answer;
    - a download that was stopped half-way stayed in the cache as the whole series: where the server states more images than are
      there, it is downloaded again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._labels_what: dict[str, frozenset[str]] = {}
        self._stored_by: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def get_image_uri(self, image_id: str) -> str:
        """Path of the series as NIfTI, downloaded at first use.

        Raises: ClientError for an unknown SeriesInstanceUID, and for a series that does not come whole.
        """
        with errors_for_client():
            lacking = self._lacking(image_id)
            if lacking:
                shutil.rmtree(Path(self._datastore.image_path(), image_id))
                Path(self._datastore.image_path(), f"{image_id}.nii.gz").unlink(missing_ok=True)
            try:
                path = str(super().get_image_uri(image_id))
            except IndexError:
                raise ImageError(f"no series {image_id!r} at {self.name()}; expected a SeriesInstanceUID of its CTs") from None
            lacking = self._lacking(image_id) if lacking else 0
            if lacking:
                raise ImageError(
                    f"series {image_id}: {lacking} images that {self.name()} lists did not come; send the series to it again"
                )
            return path

    def _lacking(self, image_id: str) -> int:
        """How many images of a cached series the server has and the cache has not; 0 where nothing is cached, or it does not say."""
        folder = self.series_folder(image_id)
        if folder is None:
            return 0
        entries = self._client.search_for_series(search_filters={"SeriesInstanceUID": image_id})
        stated = max((int(Dataset.from_json(e).get("NumberOfSeriesRelatedInstances") or 0) for e in entries), default=0)
        return max(stated - len(list(folder.glob("*.dcm"))), 0)

    @property
    def session(self) -> requests.Session:
        """The connection to the server, with its name and password."""
        session: requests.Session = self._client._session
        return session

    def series_folder(self, image_id: str) -> Path | None:
        """The cached DICOM files of a series, or None where there are none."""
        folder = Path(self._datastore.image_path(), image_id)
        return folder if folder.is_dir() and any(folder.glob("*.dcm")) else None

    def patients_of(self, image_id: str) -> frozenset[str]:
        """PatientID of a series, as the server states it and as its cached DICOM files do; empty where neither does."""
        found = [self.get_image_info(image_id).get("PatientID")]
        folder = self.series_folder(image_id)
        if folder is not None:
            found.append(
                dcmread(min(folder.glob("*.dcm")), stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID")
            )
        return frozenset(str(name) for name in found if name) - {_UNKNOWN}

    def _to_id(self, file: str) -> tuple[str, str]:
        return DurableDatastore._to_id(self, file)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """Path of a label; ``label_id`` is that of the image, or of a SEG as the host's own calls have it."""
        if label_tag == DefaultLabelTag.FINAL and label_id in self.list_images():
            try:
                self._adopt_newest(label_id)
            except FlrError as error:  # the one before is the answer
                logger.warning("%s", error)
        stored = LocalDatastore.get_label_uri(self, label_id, label_tag)
        return stored if stored and Path(stored).is_file() else str(super().get_label_uri(label_id, label_tag, image_id))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Keeps a review beside a label; that of ``final`` beside the newest SEG. Raises: ClientError."""
        with errors_for_client():
            if label_tag == DefaultLabelTag.FINAL:
                self._adopt_newest(label_id)
            DurableDatastore.update_label_info(self, label_id, label_tag, info)

    def note_stored(self, uids: Iterable[str], user: str) -> None:
        """Remembers, until this server ends, that a signed-in user stored these objects at the DICOMweb server. The first one counts."""
        for uid in uids:
            self._stored_by.setdefault(uid, user)

    def submitted(self, image_id: str) -> CaseReview:
        """The newest SEG of the server is ``final``; versions and reviews are those that this server keeps in its cache.

        A SEG that is not in the cache yet makes the ``final`` there the next version, as it will be once the SEG is adopted.
        """
        labels = self.labels_of(image_id)
        final = labels.pop(DefaultLabelTag.FINAL.value, {})
        seg = self.newest_seg(image_id)
        if seg is None:
            return CaseReview.of(labels)
        if final.get("SeriesInstanceUID") == str(seg.SeriesInstanceUID):
            return CaseReview.of({**labels, FINAL: final})
        if final:
            labels[next_version(labels)] = final
        last = max((Version.of(tag, info).saved for tag, info in labels.items()), default=0.0)
        user = self._stored_by.get(str(seg.SOPInstanceUID))
        by = {"by": user or str(seg.get("ContentCreatorName") or ""), "by_verified": user is not None}
        return CaseReview.of({**labels, FINAL: {SUBMISSION: {"saved": last + 1, **by}}})

    def label_stamp(self, image_id: str) -> str | None:
        """The newest SEG's, or a newer version's."""
        newest = self.submitted(image_id).newest
        if newest is not None and newest.tag != FINAL:
            return f"{newest.tag} {newest.saved}"
        seg = self.newest_seg(image_id)
        return None if seg is None else str(seg.SeriesInstanceUID)

    def known_ids(self) -> set[str]:
        """Ids and PatientIDs of all CT series, labelled or not, as far as the server states them."""
        found = self._client.search_for_series(search_filters=self._search_filter, fields=["PatientID"])
        return {*self.list_images(), *(str(Dataset.from_json(entry).get("PatientID") or "") for entry in found)} - {""}

    def source_of(self, image_id: str, path: Path) -> Path:
        """The DICOM files in the cache, where they are; the host makes NIfTI of a series without looking at its slices."""
        return self.series_folder(image_id) or path

    def at_hand(self, image_id: str) -> Path | None:
        """The DICOM files in the cache."""
        return self.series_folder(image_id)

    def final_label(self, image_id: str, ct: CT) -> PlanningLabel | None:
        """The label that was submitted last."""
        newest = self.submitted(image_id).newest
        return None if newest is None else self.label(image_id, newest.tag, ct)

    def label(self, image_id: str, tag: str, ct: CT) -> PlanningLabel | None:
        """The newest SEG at the server is ``final``; the file in the cache is used if it is that SEG's own, with all names."""
        if tag != FINAL:
            if self._folder.label(image_id, tag) is None:
                self.label(image_id, FINAL, ct)  # adopts a SEG that is new, which makes the label before it a version
            stored = self._folder.label(image_id, tag)
            return None if stored is None else read_stored_label(stored.path, stored.info, {}, ct.geometry, ct.source)
        seg = self.newest_seg(image_id)
        if seg is None:
            return None
        saved = self.saved_here(image_id)
        if saved is not None and saved[1].get("SeriesInstanceUID") == str(seg.SeriesInstanceUID):
            return read_stored_label(*saved, {}, ct.geometry, ct.source)
        return self._adopt(image_id, seg, ct)

    def _adopt_newest(self, image_id: str) -> None:
        """Keeps the newest SEG here, as :meth:`_adopt` does, where that has not happened yet."""
        seg, saved = self.newest_seg(image_id), self.saved_here(image_id)
        if seg is not None and (saved is None or saved[1].get("SeriesInstanceUID") != str(seg.SeriesInstanceUID)):
            self._adopt(image_id, seg, read_ct(self.source_of(image_id, Path(self.get_image_uri(image_id)))))

    def _adopt(self, image_id: str, seg: Dataset, ct: CT) -> PlanningLabel:
        """The label of a SEG that somebody stored at the DICOMweb server; kept here as the ``final`` label, with who and when it says.

        Who asks for the label has nothing to do with it: its author is who stored it through this server, else the name in the SEG.
        """
        what = f"SEG {seg.SeriesInstanceUID} ({seg.get('SeriesDescription') or 'without description'}) of {image_id}"
        layers = with_empty_compartments(read_dicom_layers(self.download(seg), ct.geometry, what))
        label = decode_layers(layers, what)
        array, names = layers[0] if len(layers) == 1 else to_label_map(label, what)
        info = {"label_info": [{"name": label_name(n), "idx": i} for n, i in names.items()], **_origin(seg)}
        self.get_image_uri(image_id)  # the host keeps labels of images that it has
        with TemporaryDirectory(prefix="flrplan_label_") as folder:
            file = Path(folder, "label.nii.gz")
            write_label_map(file, array, ct.geometry)
            self._submit(image_id, file, FINAL, info, self._stored_by.get(str(seg.SOPInstanceUID)))
        return label

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Stores a label that was checked; ``final`` also as SEG at the DICOMweb server. Raises ClientError where it is refused."""
        with checked_upload(self, image_id, label_filename, label_tag, label_info, as_label_map=True) as (file, info):
            if label_tag == DefaultLabelTag.FINAL:
                info["label_info"] = _ordered_entries(Path(file), info, image_id)
            return str(super().save_label(image_id, file, label_tag, info))

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the CT series of the server that a SEG of a person refers to, as of now."""
        images = set(self.list_images())
        found: set[str] = set()
        for entry in self._client.search_for_series(search_filters={"Modality": "SEG"}):
            series = Dataset.from_json(entry)
            uid = str(series.SeriesInstanceUID)
            if uid not in self._labels_what:
                instances = self._client.retrieve_series_metadata(str(series.StudyInstanceUID), uid)
                self._labels_what[uid] = frozenset[str]().union(*(_labels(Dataset.from_json(i)) for i in instances))
            found |= self._labels_what[uid] & images
        return sorted(found)

    def forget_lists(self) -> None:
        """The next lists of images and labels are asked of the server, not taken from the cache of two hours."""
        DICOMWebDatastore.list_images.cache_clear()

    def saved_here(self, image_id: str) -> tuple[Path, dict[str, Any]] | None:
        """File and info of the ``final`` label if this server saved it, with the client's label names; else None."""
        info = self.get_label_info(image_id, DefaultLabelTag.FINAL)
        path = LocalDatastore.get_label_uri(self, image_id, DefaultLabelTag.FINAL)
        return (Path(path), info) if path and Path(path).is_file() and info.get("label_info") else None

    def newest_seg(self, image_id: str) -> Dataset | None:
        """Metadata of the newest SEG of a person that refers to this CT series, or None."""
        series = self._client.search_for_series(search_filters={"SeriesInstanceUID": image_id})
        studies = {str(Dataset.from_json(s).StudyInstanceUID) for s in series}
        found = []
        for study in studies:
            for entry in self._client.search_for_series(search_filters={"StudyInstanceUID": study, "Modality": "SEG"}):
                uid = str(Dataset.from_json(entry).SeriesInstanceUID)
                for instance in self._client.retrieve_series_metadata(study, uid):
                    seg = Dataset.from_json(instance)
                    if image_id in _labels(seg):
                        found.append(seg)
        return max(found, key=_written_at, default=None)

    def download(self, instance: Dataset) -> Dataset:
        """The whole DICOM object of some metadata."""
        whole: Dataset = self._client.retrieve_instance(
            str(instance.StudyInstanceUID), str(instance.SeriesInstanceUID), str(instance.SOPInstanceUID)
        )
        return whole


def open_dicomweb(url: str) -> PlanningDICOMWebDatastore:
    """The datastore of a DICOMweb URL with the host's own settings (``MONAI_LABEL_*``), as ``MONAILabelApp`` builds it."""
    session = None
    if "googleapis.com" in url:
        session = create_session_from_gcp_credentials()
    elif host_settings.MONAI_LABEL_DICOMWEB_USERNAME and host_settings.MONAI_LABEL_DICOMWEB_PASSWORD:
        session = create_session_from_user_pass(
            host_settings.MONAI_LABEL_DICOMWEB_USERNAME, host_settings.MONAI_LABEL_DICOMWEB_PASSWORD
        )
    client = DICOMwebClientX(
        url=url,
        session=session,
        qido_url_prefix=host_settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=host_settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=host_settings.MONAI_LABEL_STOW_PREFIX,
    )
    return PlanningDICOMWebDatastore(
        client=client,
        search_filter=host_settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
        cache_path=host_settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
        fetch_by_frame=host_settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        convert_to_nifti=host_settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
    )


def _ordered_entries(file: Path, info: dict[str, Any], image_id: str) -> list[dict[str, Any]]:
    """``label_info`` with the names of the values present first, in their order, then the names without voxels."""
    names = names_sent(info, f"the label of {image_id}")
    present = [int(value) for value in np.unique(read_label_map(file)[0]) if value != 0]
    by_index = {index: name for name, index in names.items()}
    absent = sorted(set(by_index) - set(present))
    entries = [segment_entry(by_index[index], index, SEMIAUTOMATIC) for index in (*present, *absent)]
    return [{**entry, "model_name": SUBMITTED} for entry in entries]


def _labels(seg: Dataset) -> frozenset[str]:
    """The series that a SEG refers to; none for a prediction and for a plan, whose masks may be given in part."""
    if seg.get("ContentLabel") == PLAN_CONTENT:
        return frozenset()
    kinds = [str(s.get("SegmentAlgorithmType")) for s in seg.get("SegmentSequence") or []]
    if kinds and set(kinds) == {AUTOMATIC}:
        return frozenset()
    return frozenset(str(r.SeriesInstanceUID) for r in seg.get("ReferencedSeriesSequence") or [])


def _origin(seg: Dataset) -> dict[str, Any]:
    """What a SEG says of itself. ``author`` is as its program wrote it: nobody has checked who that was."""
    author = str(seg.get("ContentCreatorName") or seg.get("OperatorsName") or "")
    date, time = (str(seg.get(f"Content{k}") or seg.get(f"Series{k}") or "") for k in ("Date", "Time"))
    when = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) >= 8 else ""
    clock = f"T{time[:2]}:{time[2:4]}:{time[4:6]}" if when and len(time) >= 6 else ""
    return {
        "SeriesInstanceUID": str(seg.SeriesInstanceUID),
        "StudyInstanceUID": str(seg.get("StudyInstanceUID") or ""),
        "Modality": "SEG",
        "client_id": author,
        "origin": {
            "author": author or None,
            "author_verified": False,
            "date": f"{when}{clock}" or None,
            "description": str(seg.get("SeriesDescription") or "") or None,
            "program": " ".join(str(seg.get(k) or "") for k in ("Manufacturer", "ManufacturerModelName")).strip() or None,
        },
    }


def _written_at(seg: Dataset) -> tuple[str, ...]:
    keywords = ("ContentDate", "ContentTime", "SeriesDate", "SeriesTime", "SOPInstanceUID")
    return tuple(str(seg.get(keyword) or "") for keyword in keywords)
