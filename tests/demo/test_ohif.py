"""The demo in OHIF: driven end to end where Orthanc and Chromium are, and what it says where they are not.

All that listens on OHIF's port is in this file: ``make test`` runs the tests of a file in one process, and two files at once.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from flrplan.anatomy import Compartment, Structure, structure_mask
from flrplan.cli import main
from flrplan.cohort import CaseSize, make_case
from flrplan.demo.measure import dice
from flrplan.demo.ohif import background, browser, orthanc, server
from flrplan.demo.ohif.browser import find_chromium, open_page, require_playwright
from flrplan.demo.ohif.correct import correct
from flrplan.demo.ohif.direct import LOOPBACK
from flrplan.demo.ohif.drive import Driven
from flrplan.demo.ohif.orthanc import find_orthanc
from flrplan.demo.ohif.run import Demo, drive_demo, running_demo
from flrplan.errors import ImageError, ServiceError
from flrplan.image import read_ct
from flrplan.image.dicom_write import write_dicom_series

Says = list[str]


def why_not() -> str | None:
    """Why the demo cannot be driven here, if so."""
    for need in (find_orthanc, find_chromium, require_playwright):
        try:
            need()
        except ServiceError as error:
            return str(error).split(";")[0]
    return None if background.is_port_free(server.OHIF_PORT) else f"port {server.OHIF_PORT} is in use"


@pytest.fixture
def drivable() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.mark.usefixtures("drivable", "closed_proxy")  # the proxy is for none of Orthanc, the server, its DICOMweb client, OHIF
@pytest.mark.timeout(600)
def test_a_browser_runs_the_cascade_in_ohif(tmp_path: Path) -> None:
    said: Says = []
    with running_demo(said.append) as demo:
        (seen,) = drive_demo(demo, tmp_path, said.append)
        corrects_a_label(demo, tmp_path, said)
        log = demo.server.process.log.read_text(errors="replace")
    looks_like_an_answer(seen)
    assert seen.geometry.is_same_grid(demo.case.geometry)
    assert dice(seen.answer_zyx > 0, structure_mask(demo.case.planning_zyx, Structure.LIVER)) > 0.7  # it lies on the liver
    assert ran_whole_cascade(log, demo.series[0])
    assert any("starting Orthanc" in line for line in said)

    assert not demo.server.process.runs
    assert background.is_port_free(server.OHIF_PORT)
    assert not demo.server.folder.exists()


def corrects_a_label(demo: Demo, folder: Path, said: Says) -> None:
    """The true plan is submitted; a reader paints a part of the resection as remnant and exports it; the server measures that."""
    direct = requests.Session()
    direct.trust_env = False  # the proxy is for nobody here
    url, case, series = demo.server.url, demo.case, demo.series[0]
    names = [{"name": c.label_name, "idx": int(c)} for c in Compartment]
    sitk.WriteImage(case.geometry.image(case.planning_zyx), str(folder / "label.nii.gz"))
    with (folder / "label.nii.gz").open("rb") as file:
        params = {"params": json.dumps({"label_info": names})}
        stored = direct.put(
            f"{url}/datastore/label?image={series.series_uid}",
            data=params,
            files={"label": ("label.nii.gz", file)},
            timeout=120,
        ).json()
    resection = case.planning_zyx == Compartment.RESECTION
    depth = ndimage.distance_transform_edt(np.pad(resection, 1))[1:-1, 1:-1, 1:-1]
    z, y, x = (int(n) for n in np.unravel_index(depth.argmax(), depth.shape))
    start, end = case.geometry.world_mm(np.array([[x, y, z], [x + 3, y, z]], float)).tolist()
    with open_page() as page:
        pictures = correct(page, demo.server, series, "remnant", (start, end), "Ann Otator", folder, said.append)
    assert len(pictures) == 4
    assert direct.get(f"{url}/info/", timeout=60).json()["datastore"]["completed"] == 1
    answer = direct.post(f"{url}/infer/measure?image={series.series_uid}&output=json", timeout=120).json()
    assert "volumes" in answer, answer
    before, after = stored["volumes"], answer["volumes"]
    assert after["liver_ml"] >= before["liver_ml"] - 1
    assert 1 < after["flr_ml"] - before["flr_ml"] < before["lrs_ml"], "what was painted is remnant now"
    kept = direct.get(f"{url}/datastore/label/info?label={series.series_uid}&tag=final", timeout=60).json()
    assert (kept["origin"]["author"], kept["origin"]["author_verified"]) == ("Ann Otator", False)
    assert kept["origin"]["description"] == "corrected by Ann Otator"
    assert kept["origin"]["date"]
    assert kept["submission"]["changes"]["liver"]["dice"] > 0.95, "it lies where the label before does"


@pytest.mark.usefixtures("drivable")
@pytest.mark.timeout(900)  # 40 s on two quiet cores
def test_the_worst_label_is_handed_out_corrected_in_ohif_and_sent_back(tmp_path: Path) -> None:
    """The first half of benchmark/whole_day.py on two cases: the worst label first, cascade, click, submit, brush, back to the server."""
    from whole_day import FAULTS, begun, in_the_viewer

    assert FAULTS[1] == "left_right"  # the worse of the first two
    with begun(tmp_path, CaseSize.SMALL, 2, "") as day:
        case, seen = in_the_viewer(day, "label_faults", "clicks")
    assert case.name.endswith("0001")
    assert [seen[f"state_{when}"] for when in ("before", "submitted", "after")] == ["open", "drafted", "refined"]
    assert seen["dice_sent_back"]["liver"] > 0.7
    assert any(finding.startswith("swapped (error)") for finding in seen["findings_before"])
    assert not any(finding.startswith("swapped") for finding in seen["findings_after"])
    assert {"next-sample", "cascade", "submitted"} <= {p.stem.removeprefix("1-") for p in (tmp_path / "pictures").iterdir()}


@pytest.mark.slow
@pytest.mark.usefixtures("drivable")
@pytest.mark.timeout(1800)  # 2.5 minutes on two quiet cores, 12 where six other programs compute on them
def test_a_browser_runs_the_cascade_on_a_real_series_beside_a_synthetic_one(
    lidc_series: Path, real_data: Path, tmp_path: Path
) -> None:
    said: Says = []
    with running_demo(said.append, [lidc_series], CaseSize.SMALL) as demo:
        synthetic, real = drive_demo(demo, tmp_path, said.append)
        log = demo.server.process.log.read_text(errors="replace")
    assert [s.patient_id for s in demo.series] == [demo.case.case_id, "LIDC-IDRI-0001"]
    for seen, series in zip((synthetic, real), demo.series, strict=True):
        looks_like_an_answer(seen)
        assert ran_whole_cascade(log, series)
    assert synthetic.geometry.is_same_grid(demo.case.geometry)
    assert dice(synthetic.answer_zyx > 0, structure_mask(demo.case.planning_zyx, Structure.LIVER)) > 0.7
    assert real.geometry.is_same_grid(read_ct(lidc_series).geometry)
    # Another model's liver, on a coarser grid of the lower part of this CT.
    liver = sitk.ReadImage(str(real_data / "lidc0001" / "abdomen_1p4x1p4x2p5_liver.nii.gz")) > 0
    liver = sitk.Resample(liver, real.geometry.image(real.answer_zyx), sitk.Transform(), sitk.sitkNearestNeighbor)
    assert dice(real.answer_zyx > 0, sitk.GetArrayFromImage(liver) > 0) > 0.8


def looks_like_an_answer(seen: Driven) -> None:
    assert sorted(seen.names) == sorted(c.label_name for c in Compartment)
    assert len(seen.agreement) >= 2
    assert min(seen.agreement.values()) > 0.8
    assert 0.1 < seen.centre[0] < 0.5  # the liver is on the patient's right, the viewer's left
    assert 0.2 < seen.centre[1] < 0.8
    assert len(seen.pictures) == 4
    assert all(Image.open(p).size == (browser.WINDOW["width"], browser.WINDOW["height"]) for p in seen.pictures)


def ran_whole_cascade(log: str, series: orthanc.LoadedSeries) -> bool:
    return all(f"{series.series_uid}: {s}" in log for s in (Structure.LIVER, Structure.CRLM, Structure.FLR))


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield int(listener.getsockname()[1])


def test_a_port_in_use_is_told(busy_port: int, tmp_path: Path) -> None:
    with pytest.raises(
        ServiceError, match=f"port {busy_port} is in use, perhaps by another MONAI Label server; end that program"
    ):
        server.require_port(busy_port)
    with pytest.raises(ServiceError, match="is in use"), server.running_server("studies", tmp_path, print, busy_port):
        pytest.fail("it must not start")
    server.require_port(background.free_port())


def test_an_absent_orthanc_is_told_by_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(orthanc.shutil, "which", lambda *_, **__: None)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["demo-ohif"]) == 1
    assert signal.getsignal(signal.SIGTERM) is before, "a handler that stays is inherited by forked processes, which then hang"
    error = capsys.readouterr().err
    assert "flrplan demo-ohif: Orthanc, the DICOM server of this demo, is not installed" in error
    assert "apt-get install --no-install-recommends orthanc orthanc-dicomweb" in error


def test_orthanc_is_given_the_seconds_that_the_message_advises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = tmp_path / "Orthanc"
    stand_in.write_text("#!/bin/sh\nexec sleep 300\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(orthanc, "find_orthanc", lambda: stand_in)
    monkeypatch.setattr("flrplan.demo.ohif.run.find_orthanc", lambda: stand_in)
    monkeypatch.setattr("flrplan.demo.ohif.run.require_port", lambda port: None)
    assert main(["demo-ohif", "--size", "small", "--start-seconds", "2"]) == 1
    error = capsys.readouterr().err
    assert "Orthanc did not answer at " in error
    assert "within 2 s; on a slow or busy machine give it more with --start-seconds" in error


def test_an_orthanc_that_is_gone_is_told_while_files_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "slice.dcm").write_bytes(b"a slice")
    gone = orthanc.Orthanc(f"http://{LOOPBACK}:{background.free_port()}")
    with pytest.raises(ServiceError, match=r"Orthanc at http://127.* did not answer POST /instances .*start the demo again"):
        gone.load([tmp_path / "slice.dcm"])


def test_an_absent_plugin_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(orthanc.shutil, "which", lambda *_, **__: "/usr/sbin/Orthanc")
    monkeypatch.setattr(orthanc, "PLUGIN", tmp_path / "absent.so")
    with pytest.raises(ServiceError, match=r"no DICOMweb plugin .*absent\.so"):
        find_orthanc()


def test_an_absent_chromium_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser.shutil, "which", lambda *_, **__: None)
    assert main(["demo-ohif", "--drive"]) == 1
    error = capsys.readouterr().err
    assert "Chromium is not installed; on Debian: apt-get install --no-install-recommends chromium" in error
    assert "starting" not in error


def test_an_absent_playwright_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(ServiceError, match=r"playwright, which drives the browser, cannot be imported .*flrplan\[ohif\]"):
        require_playwright()


def test_a_folder_without_a_ct_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flrplan.demo.ohif.run.find_orthanc", lambda: Path("Orthanc"))
    monkeypatch.setattr("flrplan.demo.ohif.run.require_port", lambda port: None)
    with pytest.raises(ImageError, match="no DICOM images"), running_demo(print, [tmp_path]):
        pytest.fail("it must not start")
    assert capsys.readouterr().out == ""


def test_a_folder_that_is_not_there_is_told_and_no_other_series_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("flrplan.demo.ohif.run.find_orthanc", lambda: Path("Orthanc"))
    monkeypatch.setattr("flrplan.demo.ohif.run.require_port", lambda port: None)
    case = make_case(5, 0, CaseSize.SMALL)
    write_dicom_series(tmp_path / "series", case.hu_zyx, case.geometry, case.case_id, "CT")
    with (
        pytest.raises(ImageError, match=r"series/mistyped: no such file or folder"),
        running_demo(print, [tmp_path / "series" / "mistyped"]),
    ):
        pytest.fail("it must not start")


@pytest.mark.parametrize("seconds", ["-3", "0", "nan", "inf"])
def test_a_wait_that_can_not_be_is_told(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo-ohif", "--start-seconds", seconds]) == 1
    assert "--start-seconds must be a number of seconds above 0" in capsys.readouterr().err


def test_screenshots_that_cannot_be_kept_are_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["demo-ohif", "--drive", "--screenshots", str(tmp_path / "file")]) == 1
    assert f"{tmp_path / 'file'}: cannot be made or written to (File exists)" in capsys.readouterr().err
