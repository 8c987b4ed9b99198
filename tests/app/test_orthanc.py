"""The real server on Debian's Orthanc (apt-get install orthanc orthanc-dicomweb) on loopback, with a CT as a DICOM series."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
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
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from flrplan.app.annotations import annotated_images
from flrplan.app.dicomweb import open_dicomweb
from flrplan.cohort import SyntheticCase
from flrplan.geometry import Geometry
from flrplan.io import read_ct
from flrplan.io.dicom_seg import read_dicom_seg
from flrplan.labels import Structure
from flrplan.refinement.annotations import read_annotations
from flrplan.stages import CRLM, LIVER

ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
SECONDS = 30

pytestmark = [
    pytest.mark.skipif(ORTHANC is None or not PLUGIN.exists(), reason="needs Debian's orthanc and orthanc-dicomweb"),
    pytest.mark.timeout(420),
]


def dicom_series(hu_zyx: NDArray[np.int16], geometry: Geometry) -> list[bytes]:
    """A CT series as bytes, one object per slice, deliberately not in the order of the slices."""
    study, series, frame = (generate_uid() for _ in range(3))
    slices = []
    for z, pixels in enumerate(hu_zyx):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT_STORAGE, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ct = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ct.SOPClassUID, ct.SOPInstanceUID = CT_STORAGE, meta.MediaStorageSOPInstanceUID
        ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = study, series, frame
        ct.Modality, ct.PatientID, ct.PatientName, ct.PatientBirthDate, ct.PatientSex = "CT", "synth", "Synth^Etic", "", ""
        ct.StudyDate, ct.StudyTime, ct.AccessionNumber, ct.StudyID, ct.ReferringPhysicianName = (
            "20260101",
            "120000",
            "",
            "1",
            "",
        )
        ct.ImageType, ct.Manufacturer, ct.SeriesNumber, ct.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], "test", 1, z + 1
        direction, position = geometry.direction_matrix, geometry.world_mm(np.array([[0, 0, z]], float))[0]
        ct.ImageOrientationPatient = [f"{c:.10g}" for c in (*direction[:, 0], *direction[:, 1])]
        ct.ImagePositionPatient = [f"{p:.10g}" for p in position]
        ct.PixelSpacing = [f"{geometry.spacing_mm[1]:.10g}", f"{geometry.spacing_mm[0]:.10g}"]
        ct.SliceThickness = f"{geometry.spacing_mm[2]:.10g}"
        ct.Rows, ct.Columns = pixels.shape
        ct.SamplesPerPixel, ct.PhotometricInterpretation, ct.PixelRepresentation = 1, "MONOCHROME2", 1
        ct.BitsAllocated, ct.BitsStored, ct.HighBit = 16, 16, 15
        ct.RescaleIntercept, ct.RescaleSlope, ct.RescaleType = "0", "1", "HU"
        ct.PixelData = np.ascontiguousarray(pixels, np.int16).tobytes()
        ct.is_little_endian, ct.is_implicit_VR = True, False
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, ct, write_like_original=False)
        slices.append(buffer.getvalue())
    return slices[1::2] + slices[::2]


@pytest.fixture(scope="module")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], stop_process: Callable[..., None]
) -> Iterator[str]:
    """The URL of an empty Orthanc that only this machine reaches."""
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    config = {
        "Name": "flrplan-test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    log = folder / "orthanc.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(ORTHANC), str(folder / "orthanc.json")], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + SECONDS
    while True:
        try:
            if requests.get(f"{url}/dicom-web/studies", timeout=5).ok:
                break
        except requests.RequestException:
            time.sleep(0.2)
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"Orthanc did not start (exit code {process.poll()}):\n{log.read_text(errors='replace')[-3000:]}")
    yield url
    stop_process(process)


def upload(orthanc: str, slices: list[bytes]) -> str:
    """Stores objects; returns the SeriesInstanceUID of the last."""
    for content in slices:
        requests.post(f"{orthanc}/instances", data=content, timeout=SECONDS).raise_for_status()
    return str(pydicom.dcmread(BytesIO(slices[-1]), stop_before_pixels=True).SeriesInstanceUID)


@pytest.fixture(scope="module")
def series(orthanc: str, case: SyntheticCase) -> str:
    return upload(orthanc, dicom_series(case.hu_zyx, case.geometry))


@pytest.fixture(scope="module")
def server(
    orthanc: str, series: str, tmp_path_factory: pytest.TempPathFactory, start_server: Callable[[str, Path], Any]
) -> Any:
    return start_server(f"{orthanc}/dicom-web", tmp_path_factory.mktemp("dicomweb_server"))


@pytest.fixture
def client(server: Any, show_log_on_failure: Callable[[Any], None]) -> MONAILabelClient:
    show_log_on_failure(server)
    return server.client


def stored_segs(orthanc: str) -> list[pydicom.Dataset]:
    found = requests.post(
        f"{orthanc}/tools/find", json={"Level": "Instance", "Query": {"Modality": "SEG"}}, timeout=SECONDS
    ).json()
    files = [requests.get(f"{orthanc}/instances/{i}/file", timeout=SECONDS).content for i in found]
    return [pydicom.dcmread(BytesIO(content)) for content in files]


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
    label, _ = read_dicom_seg(seg, case.geometry, "the answer")
    voxels = params["volumes"]["liver_ml"] / case.geometry.voxel_volume_ml
    assert np.count_nonzero(label) == pytest.approx(voxels, abs=0.5)


def test_a_saved_liver_comes_back_from_the_server_and_from_orthanc(
    orthanc: str,
    server: Any,
    client: MONAILabelClient,
    series: str,
    case: SyntheticCase,
    liver: NDArray[np.bool_],
    tmp_path: Path,
    write_image: Callable[..., Path],
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    file = write_image(tmp_path / "liver.nii.gz", liver.astype(np.uint8) * 3, case.geometry)
    info = {"label_info": [{"name": "crlm", "idx": 1}, {"name": "liver", "idx": 3}]}  # crlm: named, not painted
    client.save_label(series, str(file), params=info)
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


def test_the_stored_seg_is_a_training_case(
    orthanc: str, server: Any, series: str, liver: NDArray[np.bool_], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the test above: another process, with an empty cache, as a training is."""
    monkeypatch.setattr(host_settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    images, unlabelled = annotated_images(open_dicomweb(f"{orthanc}/dicom-web"))
    assert ([i.case_id for i in images], unlabelled) == ([series], 0)
    assert images[0].image.is_dir()  # the DICOM files, not the host's conversion
    annotations = read_annotations(images, tmp_path / "masks")
    assert [entry.reason for entry in annotations.for_stage(CRLM).left_out] == ["its label does not hold crlm; it holds liver"]
    _, masks = annotations.for_stage(LIVER).cases[0].case.load([Structure.LIVER])
    assert np.array_equal(masks[Structure.LIVER], liver)


def test_a_label_that_a_seg_cannot_hold_is_refused_with_a_message(
    client: MONAILabelClient, series: str, case: SyntheticCase, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    file = write_image(tmp_path / "empty.nii.gz", np.zeros(case.geometry.shape_zyx, np.uint8), case.geometry)
    with pytest.raises(MONAILabelClientException) as caught:
        client.save_label(series, str(file), params={"label_info": [{"name": "liver", "idx": 1}]})
    assert "has no voxels; a DICOM SEG cannot hold an empty label" in caught.value.msg


@pytest.mark.slow
def test_a_real_series(
    orthanc: str,
    client: MONAILabelClient,
    real_data: Path,
    tmp_path: Path,
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    with tarfile.open(real_data / "lidc0001" / "LIDC-IDRI-0001_dicom133.tar.xz") as archive:
        archive.extractall(tmp_path / "lidc", filter="data")
    files = sorted((tmp_path / "lidc").rglob("*.dcm"))
    series = upload(orthanc, [f.read_bytes() for f in files])
    file, params = client.infer("cascade", series, {})
    ct = read_ct(files[0].parent)
    assert read_image(file)[1].is_same_grid(ct.geometry)
    assert params["volumes"]["liver_ml"] > 500
