"""The real server on Debian's Orthanc (apt-get install orthanc orthanc-dicomweb) on loopback, with a CT as a DICOM series."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from monailabel.config import settings as host_settings
from numpy.typing import NDArray

from flrplan.anatomy import APPEARANCE, Structure, structure_mask
from flrplan.cohort import SyntheticCase
from flrplan.demo.ohif.orthanc import Orthanc, find_orthanc, running_orthanc
from flrplan.errors import ServiceError
from flrplan.image import CT, Geometry, read_ct
from flrplan.image.dicom_seg import read_dicom_layers
from flrplan.image.dicom_write import SYNTHETIC_DESCRIPTION, write_dicom_series
from flrplan.learning import read_annotations
from flrplan.method import CRLM, LIVER, Recipe
from flrplan.nnunet.prepare import StageWork, prepare_stage, read_prepared
from flrplan.objects.seg import Segment, segmentation
from flrplan.objects.source import LABEL_CONTENT
from flrplan.server.annotations import annotated_images
from flrplan.server.dicomweb import open_dicomweb
from flrplan.server.user import set_current_user
from flrplan.workfolder import Split

SECONDS = 30


def is_installed() -> bool:
    try:
        find_orthanc()
    except ServiceError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(not is_installed(), reason="needs Debian's orthanc and orthanc-dicomweb"),
    pytest.mark.timeout(420),
]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An empty Orthanc that only this machine reaches."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), print) as running:
        yield running


@pytest.fixture(scope="module")
def series(orthanc: Orthanc, case: SyntheticCase, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CT series, deliberately not loaded in the order of its slices."""
    folder = tmp_path_factory.mktemp("series") / case.case_id
    files = write_dicom_series(folder, case.hu_zyx, case.geometry, case.case_id, SYNTHETIC_DESCRIPTION)
    return orthanc.load(files[1::2] + files[::2]).series_uid


@pytest.fixture(scope="module")
def server(
    orthanc: Orthanc, series: str, tmp_path_factory: pytest.TempPathFactory, start_server: Callable[[str, Path], Any]
) -> Any:
    return start_server(orthanc.dicomweb, tmp_path_factory.mktemp("dicomweb_server"))


@pytest.fixture
def client(server: Any, show_log_on_failure: Callable[[Any], None]) -> MONAILabelClient:
    show_log_on_failure(server)
    return server.client


def stored_segs(orthanc: Orthanc) -> list[pydicom.Dataset]:
    found = requests.post(
        f"{orthanc.url}/tools/find", json={"Level": "Instance", "Query": {"Modality": "SEG"}}, timeout=SECONDS
    ).json()
    files = [requests.get(f"{orthanc.url}/instances/{i}/file", timeout=SECONDS).content for i in found]
    return [pydicom.dcmread(BytesIO(content)) for content in files]


def test_other_machines_are_refused(orthanc: Orthanc) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the address that others see
        except OSError:
            pytest.skip("this machine has no network")
        address = probe.getsockname()[0]
    if address.startswith("127."):
        pytest.skip("this machine has loopback only")
    outside = orthanc.dicomweb.replace("127.0.0.1", address)
    assert requests.get(f"{orthanc.dicomweb}/studies", timeout=SECONDS).status_code == 200
    assert requests.get(f"{outside}/studies", timeout=SECONDS).status_code == 401


def test_the_series_is_listed_and_served(client: MONAILabelClient, series: str) -> None:
    assert client.info()["datastore"]["total"] == 1
    assert client.next_sample("first", {})["id"] == series


def test_a_missing_label_is_told_to_the_client(client: MONAILabelClient, series: str) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        client.infer("cascade", series, {"inputs": "labels_liver"})
    assert f"image {series} has no final label" in caught.value.msg


def test_an_unknown_series_is_told_to_the_client(client: MONAILabelClient) -> None:
    with pytest.raises(MONAILabelClientException) as caught:
        client.infer("cascade", "1.2.3", {})
    assert "expected a SeriesInstanceUID" in caught.value.msg


def test_the_cascade_answers_on_the_grid_of_the_series(
    client: MONAILabelClient,
    series: str,
    case: SyntheticCase,
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    file, params = client.infer("cascade", series, {"result_extension": ".nrrd", "result_dtype": "uint8"})
    label, geometry = read_image(file)
    assert geometry.is_same_grid(case.geometry)
    assert label.any()
    assert params["volumes"]["liver_ml"] > 0


def test_the_cascade_as_dicom_seg_names_what_is_there(
    server: Any, series: str, case: SyntheticCase, client: MONAILabelClient
) -> None:
    _, params = client.infer("cascade", series, {})
    names = list(params["label_names"])
    answer = requests.post(
        f"{server.url}/infer/cascade?image={series}&output=dicom_seg",
        data={"params": json.dumps({"label_info": [{"name": name} for name in names]})},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text
    seg = pydicom.dcmread(BytesIO(answer.content))
    assert [str(s.SegmentLabel) for s in seg.SegmentSequence] == params["labels_present"]
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series
    [(label, _)] = read_dicom_layers(seg, case.geometry, "the answer")
    voxels = params["volumes"]["liver_ml"] / case.geometry.voxel_volume_ml
    assert np.count_nonzero(label) == pytest.approx(voxels, abs=0.5)


@pytest.fixture(scope="module")
def saved_liver(
    server: Any,
    series: str,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    tmp_path_factory: pytest.TempPathFactory,
    write_image: Callable[..., Path],
) -> None:
    """The annotator's liver, saved at index 3 beside a structure that is named and not painted."""
    file = write_image(tmp_path_factory.mktemp("saved") / "liver.nii.gz", liver.astype(np.uint8) * 3, case.geometry)
    info = {"label_info": [{"name": "crlm", "idx": 1}, {"name": "liver", "idx": 3}]}
    server.client.save_label(series, str(file), params=info)


@pytest.mark.usefixtures("saved_liver")
def test_a_saved_liver_comes_back_from_the_server_and_from_orthanc(
    orthanc: Orthanc,
    server: Any,
    client: MONAILabelClient,
    series: str,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    segs = stored_segs(orthanc)
    assert [[str(s.SegmentLabel) for s in seg.SegmentSequence] for seg in segs] == [["liver"]]
    assert int(segs[0].NumberOfFrames) < len(liver)  # cropped to the slices with voxels
    assert client.info()["datastore"]["completed"] == 1

    for step in ("label of the server's own cache", "SEG of the DICOMweb server"):
        result, params = client.infer("cascade", series, {"inputs": "labels_liver"})
        assert params["given"] == ["liver"], step
        label, geometry = read_image(result)
        assert geometry.is_same_grid(case.geometry), step
        assert np.array_equal(label > 0, liver), step
        for cached in server.folder.glob("cache/*/labels/final/*.nii.gz"):
            cached.unlink()


def overlapping_seg(ct: CT, masks: Mapping[Structure, NDArray[np.bool_]], author: str, kind: str) -> pydicom.Dataset:
    """A SEG that another program stores: the structures whole, one over the other, cropped to their slices."""
    partition = np.zeros(ct.geometry.shape_zyx, np.uint8)
    for bit, mask in enumerate(masks.values()):
        partition[mask] |= 1 << bit
    count = range(1, 1 << len(masks))
    segments = [
        Segment(s.value.upper(), APPEARANCE[s], frozenset(v for v in count if v >> bit & 1)) for bit, s in enumerate(masks)
    ]
    seg = segmentation(partition, segments, ct, "drawn elsewhere", content=LABEL_CONTENT)
    seg.ContentCreatorName = author
    tomorrow = datetime.now() + timedelta(days=1)
    seg.ContentDate = seg.SeriesDate = tomorrow.strftime("%Y%m%d")
    for segment in seg.SegmentSequence:
        segment.SegmentAlgorithmType = kind
    return seg


@pytest.mark.usefixtures("saved_liver")
def test_a_seg_that_somebody_else_stored_is_adopted_at_once_and_a_prediction_is_none(
    orthanc: Orthanc,
    series: str,
    case: SyntheticCase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    datastore = open_dicomweb(orthanc.dicomweb)
    ct = read_ct(datastore.source_of(series, Path(datastore.get_image_uri(series))))
    drawn = read_ct_masks(case, ct)
    stored: list[str] = []

    def store(kind: str) -> str:
        buffer = BytesIO()
        seg = overlapping_seg(ct, drawn, "Ann^Otator", kind)
        seg.ContentTime = f"{len(stored):02}0000"
        seg.save_as(buffer)
        answer = requests.post(f"{orthanc.url}/instances", data=buffer.getvalue(), timeout=SECONDS)
        assert answer.ok, answer.text
        stored.append(answer.json()["ID"])
        return str(seg.SOPInstanceUID)

    try:
        before = datastore.label_stamp(series)
        store("AUTOMATIC")
        assert datastore.label_stamp(series) == before, "a prediction is no label"
        store("MANUAL")
        assert datastore.get_labeled_images() == [series]
        set_current_user("who asks first")
        label = datastore.final_label(series, ct)
        set_current_user(None)
        newest = datastore.submitted(series).newest
        assert (newest.by, newest.by_verified) == ("Ann^Otator", False)
        assert label is not None
        for structure, mask in drawn.items():
            assert np.array_equal(label.masks[structure], mask), structure
        info = datastore.get_label_info(series, "final")
        assert (info["origin"]["author"], info["origin"]["author_verified"]) == ("Ann^Otator", False)
        assert info["origin"]["description"] == "drawn elsewhere"
        again = datastore.final_label(series, ct)
        assert again is not None
        assert np.array_equal(again.masks[Structure.CRLM], drawn[Structure.CRLM]), "as it is kept here"

        stored_by_ben = store("MANUAL")
        datastore.note_stored({stored_by_ben}, "ben")
        datastore.update_label_info(
            series, "final", {"segmentationMeta": {"status": "flagged", "approvedBy": "cleo", "comment": "cut"}}
        )
        newest = datastore.submitted(series).newest
        assert (newest.by, newest.by_verified, newest.comment) == ("ben", True, "cut"), "the review is of the newest SEG"
    finally:
        for instance in stored:
            requests.delete(f"{orthanc.url}/instances/{instance}", timeout=SECONDS)


def read_ct_masks(case: SyntheticCase, ct: CT) -> dict[Structure, NDArray[np.bool_]]:
    """The true plan on the grid of the series as it is read."""
    masks = (Structure.LIVER, Structure.CRLM, Structure.FLR)
    label = {s: structure_mask(case.planning_zyx, s) for s in masks}
    return label if ct.geometry.is_same_grid(case.geometry) else {s: m[::-1] for s, m in label.items()}


@pytest.mark.usefixtures("saved_liver")
def test_the_stored_seg_is_a_training_case(
    orthanc: Orthanc,
    series: str,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read and prepared as a training does: another process, with an empty cache."""
    monkeypatch.setattr(host_settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    datastore = open_dicomweb(orthanc.dicomweb)
    images, unlabelled = annotated_images(datastore)
    assert datastore.known_ids() == {series, *images[0].patients} == {series, case.case_id}
    assert ([i.case_id for i in images], unlabelled) == ([series], 0)
    assert images[0].image.is_dir()  # the DICOM files, not the host's conversion
    annotations = read_annotations(images, tmp_path / "masks")
    assert [entry.reason for entry in annotations.for_stage(CRLM).left_out] == ["its label does not hold crlm; it holds liver"]
    labelled = annotations.for_stage(LIVER).cases[0].case
    _, masks = labelled.load([Structure.LIVER])
    assert np.array_equal(masks[Structure.LIVER], liver)
    recipe = Recipe.from_mapping({"plan": {"spacing_zyx_mm": [8, 6, 6], "patch_size_zyx": [16, 24, 24], "resampling": "torch"}})
    work = StageWork(tmp_path / "work", LIVER)
    prepare_stage([labelled], work, recipe, Split(((series,), ())))
    assert read_prepared(work)["target_voxels"] == {"liver": {series: np.count_nonzero(liver)}}


def test_a_label_that_a_seg_cannot_hold_is_refused_with_a_message(
    client: MONAILabelClient, series: str, case: SyntheticCase, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    file = write_image(tmp_path / "empty.nii.gz", np.zeros(case.geometry.shape_zyx, np.uint8), case.geometry)
    with pytest.raises(MONAILabelClientException) as caught:
        client.save_label(series, str(file), params={"label_info": [{"name": "liver", "idx": 1}]})
    assert "has no voxels; draw at least one structure before it is submitted" in caught.value.msg


@pytest.mark.slow
def test_a_real_series(
    orthanc: Orthanc,
    client: MONAILabelClient,
    lidc_series: Path,
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    files = sorted(lidc_series.rglob("*.dcm"))
    series = orthanc.load(files).series_uid
    file, params = client.infer("cascade", series, {})
    ct = read_ct(files[0].parent)
    assert read_image(file)[1].is_same_grid(ct.geometry)
    assert params["volumes"]["liver_ml"] > 500
