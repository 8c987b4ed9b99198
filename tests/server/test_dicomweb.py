"""The datastore against a DICOMweb server that is a few dictionaries; test_orthanc.py uses a real one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.datastore.dicom import DICOMWebDatastore
from pydicom import dcmread
from pydicom.dataset import Dataset

from flrplan.image import Geometry, read_ct, read_label_map
from flrplan.image.dicom_write import write_dicom_series
from flrplan.server.client_error import ClientError
from flrplan.server.dicomweb import PlanningDICOMWebDatastore
from flrplan.server.host import IMAGE_ID, image_path
from flrplan.studies.review import LabelUse

GRID = Geometry((4, 4, 2), (1.0, 1.0, 5.0))


def _seg(series: str, of: str, date: str, time: str) -> Dataset:
    seg, reference = Dataset(), Dataset()
    reference.SeriesInstanceUID = of
    seg.ReferencedSeriesSequence = [reference]
    seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.SOPInstanceUID = "1.1", series, f"{series}.0"
    seg.ContentDate, seg.ContentTime = date, time
    return seg


class FakeServer:
    """QIDO and metadata of one study with a CT and some SEGs."""

    base_url = "http://dicomweb.invalid"

    def __init__(self, segs: list[Dataset], images: list[Dataset] | None = None) -> None:
        self.images, self.stated = images or [], len(images or [])
        self.segs = {str(s.SeriesInstanceUID): s for s in segs}

    def search_for_series(self, search_filters: dict[str, str]) -> list[dict[str, Any]]:
        if search_filters.get("Modality") == "SEG":
            return [s.to_json_dict() for s in self.segs.values()]
        ct = Dataset()
        ct.StudyInstanceUID, ct.SeriesInstanceUID = "1.1", "1.2.3"
        if self.images:
            ct.NumberOfSeriesRelatedInstances = self.stated
        return [ct.to_json_dict()] if search_filters.get("SeriesInstanceUID") == "1.2.3" else []

    def retrieve_series(self, study: str, series: str) -> list[Dataset]:
        return self.images

    def retrieve_series_metadata(self, study: str, series: str) -> list[dict[str, Any]]:
        return [self.segs[series].to_json_dict()]


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., PlanningDICOMWebDatastore]:
    def make(*segs: Dataset) -> PlanningDICOMWebDatastore:
        return PlanningDICOMWebDatastore(FakeServer(list(segs)), {"Modality": "CT"}, str(tmp_path / "cache"))

    return make


def test_the_newest_seg_of_this_ct_is_the_label(make_store: Callable[..., PlanningDICOMWebDatastore]) -> None:
    store = make_store(
        _seg("2.1", "1.2.3", "20260102", "090000"),
        _seg("2.2", "1.2.3", "20260102", "101500"),
        _seg("2.3", "9.9.9", "20260103", "080000"),
        _seg("2.4", "1.2.3", "20260101", "235959"),
    )
    newest = store.newest_seg("1.2.3")
    assert newest is not None
    assert newest.SeriesInstanceUID == "2.2"
    assert make_store().newest_seg("1.2.3") is None


def test_a_plan_is_no_label_though_some_of_its_masks_were_given(make_store: Callable[..., PlanningDICOMWebDatastore]) -> None:
    plan = _seg("9.9", "1.2.3", "20260102", "120000")
    plan.ContentLabel = "FLRPLAN"
    store = make_store(_seg("9.1", "1.2.3", "20260101", "120000"), plan)
    newest = store.newest_seg("1.2.3")
    assert newest is not None
    assert newest.SeriesInstanceUID == "9.1"
    assert make_store(plan).newest_seg("1.2.3") is None


def test_an_unknown_series_is_an_error(make_store: Callable[..., PlanningDICOMWebDatastore]) -> None:
    with pytest.raises(ClientError, match=r"no series '4.5.6' at http://dicomweb.invalid; expected a SeriesInstanceUID"):
        make_store().get_image_uri("4.5.6")


def test_the_dicom_files_of_a_converted_series_are_read(
    make_store: Callable[..., PlanningDICOMWebDatastore], tmp_path: Path
) -> None:
    store = make_store()
    folder = Path(store._datastore.image_path(), "1.2.3")
    request = {"image": f"{folder}.nii.gz", IMAGE_ID: "1.2.3"}
    assert image_path(request, store) == Path(f"{folder}.nii.gz")
    folder.mkdir()
    (folder / "0.dcm").touch()
    assert image_path(request, store) == folder
    assert image_path({**request, IMAGE_ID: None}, store) == Path(f"{folder}.nii.gz")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_image: Callable[..., Path]) -> list[dict[str, Any]]:
    """What the host's own ``save_label`` was given, of an image that lies in the cache."""
    infos: list[dict[str, Any]] = []
    image = write_image(tmp_path / "ct.nii.gz", np.zeros(GRID.shape_zyx, np.int16), GRID)

    def save_label(self: Any, image_id: str, file: str, tag: str, info: dict[str, Any]) -> str:
        infos.append({**info, "values": np.unique(read_label_map(Path(file))[0]).tolist()})
        return image_id

    monkeypatch.setattr(PlanningDICOMWebDatastore, "list_images", lambda self: ["1.2.3"])
    monkeypatch.setattr(PlanningDICOMWebDatastore, "get_image_uri", lambda self, image_id: str(image))

    monkeypatch.setattr(DICOMWebDatastore, "save_label", save_label)
    return infos


@pytest.mark.parametrize("suffix", [".nrrd", ".bin"])
def test_names_are_put_into_the_order_of_the_values_present(
    make_store: Callable[..., PlanningDICOMWebDatastore],
    sent: list[dict[str, Any]],
    tmp_path: Path,
    write_image: Callable[..., Path],
    suffix: str,
) -> None:
    label = np.zeros(GRID.shape_zyx, np.uint8)
    label[0, 0, 0], label[1, 1, 1] = 7, 3
    file = tmp_path / f"label{suffix}"
    if suffix == ".bin":
        label.tofile(file)
    else:
        write_image(file, label, GRID)
    names = {"liver": 7, "flr": 2, "crlm": 3}
    info = {"label_info": [{"name": n, "idx": i} for n, i in names.items()], "client_id": "me"}
    make_store().save_label("1.2.3", str(file), "final", info)
    assert [(e["name"], e["idx"]) for e in sent[0]["label_info"]] == [("crlm", 3), ("liver", 7), ("flr", 2)]
    assert sent[0]["client_id"] == "me"
    assert sent[0]["values"] == [0, 3, 7]
    make_store().save_label("1.2.3", str(file), "original", info)
    assert sent[1]["label_info"] == info["label_info"]


@pytest.mark.parametrize(
    ("value", "names", "message"),
    [
        (0, {"liver": 1}, r"the label of 1.2.3 has no voxels; draw at least one structure"),
        (2, {"liver": 1}, r"voxels of value \[2\] have no name; named are \{'liver': 1\}"),
        (1, {}, r"no label names came with it; send label_info"),
    ],
)
def test_what_a_seg_could_not_hold_is_refused(
    make_store: Callable[..., PlanningDICOMWebDatastore],
    sent: list[dict[str, Any]],
    tmp_path: Path,
    write_image: Callable[..., Path],
    value: int,
    names: dict[str, int],
    message: str,
) -> None:
    file = write_image(tmp_path / "label.nii.gz", np.full(GRID.shape_zyx, value, np.uint8), GRID)
    with pytest.raises(ClientError, match=message):
        make_store().save_label("1.2.3", str(file), "final", {"label_info": [{"name": n, "idx": i} for n, i in names.items()]})
    assert sent == []


def test_a_download_that_stopped_half_way_is_made_again(tmp_path: Path) -> None:
    hu = np.random.default_rng(3).integers(-1000, 300, (6, 20, 24)).astype(np.int16)
    files = write_dicom_series(tmp_path / "dcm", hu, Geometry((24, 20, 6), (0.8, 0.9, 2.5)), "P1", "portal")
    server = FakeServer([], [dcmread(file) for file in files])
    store = PlanningDICOMWebDatastore(server, {"Modality": "CT"}, str(tmp_path / "cache"))
    cached = Path(store._datastore.image_path(), "1.2.3")
    cached.mkdir(parents=True)
    for file in files[:4]:  # killed after the fourth of six
        shutil.copy(file, cached)
    store.get_image_uri("1.2.3")
    assert np.array_equal(read_ct(image_path({"image": "x", IMAGE_ID: "1.2.3"}, store)).array_zyx, hu)
    server.stated = 9
    with pytest.raises(ClientError, match=r"series 1.2.3: 3 images that http://dicomweb.invalid lists did not come"):
        store.get_image_uri("1.2.3")


def test_a_seg_of_somebody_else_does_not_take_the_confirmed_labels_place(
    make_store: Callable[..., PlanningDICOMWebDatastore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The label in the cache was confirmed; then a SEG of another program came to the server."""
    store = make_store(_seg("2.1", "1.2.3", "20260102", "090000"), _seg("2.2", "1.2.3", "20260103", "090000"))
    meta = {"status": "approved", "approvedBy": "ben", "editTime": 10}
    confirmed = {"ts": 5, "client_id": "anna", "segmentationMeta": meta, "SeriesInstanceUID": "2.1"}
    monkeypatch.setattr(store, "labels_of", lambda _: {"final": dict(confirmed), "version_1": {"ts": 1, "client_id": "anna"}})
    case = store.submitted("1.2.3")
    assert [v.tag for v in case.versions] == ["version_1", "version_2", "final"]
    assert case.choose(LabelUse.ALL).tag == "version_2"
    confirmed["SeriesInstanceUID"] = "2.2"
    assert store.submitted("1.2.3").choose(LabelUse.ALL).tag == "final"
