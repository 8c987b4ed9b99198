"""The demo in OHIF: driven end to end where Orthanc and Chromium are, and what it says where they are not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import SimpleITK as sitk
from PIL import Image

from flrplan.cli import main
from flrplan.cohort import CaseSize
from flrplan.demo.measure import dice
from flrplan.demo.ohif import background, browser, orthanc, server
from flrplan.demo.ohif.browser import find_chromium, require_playwright
from flrplan.demo.ohif.direct import LOOPBACK, with_direct_loopback
from flrplan.demo.ohif.drive import Driven
from flrplan.demo.ohif.orthanc import find_orthanc
from flrplan.demo.ohif.run import drive_demo, running_demo
from flrplan.errors import ImageError, ServiceError
from flrplan.io import read_ct
from flrplan.labels import Compartment, Structure, structure_mask

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


@pytest.fixture
def closed_proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A proxy for everything, as in a hospital's environment, that refuses all connections."""
    proxy = f"http://127.0.0.1:{background.free_port()}"
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.setenv(name.upper(), proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return proxy


@pytest.mark.usefixtures("drivable", "closed_proxy")  # the proxy is for none of Orthanc, the server, its DICOMweb client, OHIF
@pytest.mark.timeout(600)
def test_a_browser_runs_the_cascade_in_ohif(tmp_path: Path) -> None:
    said: Says = []
    with running_demo(said.append) as demo:
        (seen,) = drive_demo(demo, tmp_path, said.append)
        log = demo.server.process.log.read_text(errors="replace")
    looks_like_an_answer(seen)
    assert seen.geometry.is_same_grid(demo.case.geometry)
    assert dice(seen.answer_zyx > 0, structure_mask(demo.case.planning_zyx, Structure.LIVER)) > 0.7  # it lies on the liver
    assert ran_whole_cascade(log, demo.series[0])
    assert any("starting Orthanc" in line for line in said)

    assert not demo.server.process.runs
    assert background.is_port_free(server.OHIF_PORT)
    assert not demo.server.folder.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("drivable")
@pytest.mark.timeout(600)
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


Start = Callable[..., background.Background]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[background.Background] = []

    def run(code: str) -> background.Background:
        program = background.start("the helper", [sys.executable, "-c", code], tmp_path / "helper.log", tmp_path)
        started.append(program)
        return program

    yield run
    for program in started:
        program.stop()


def test_a_program_that_ends_shows_the_end_of_its_log(start: Start) -> None:
    program = start("import sys; print('first'); print('no such disk', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ServiceError, match=r"the helper ended with exit code 3 before it answered") as caught:
        program.wait_until_it_answers(f"http://127.0.0.1:{background.free_port()}/", 30, print)
    assert "  no such disk" in str(caught.value)


def test_a_slow_program_is_told_with_its_log(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_TELL_EVERY_SECONDS", 0.2)
    program, said = start("import time; print('still loading', flush=True); time.sleep(60)"), []
    with pytest.raises(ServiceError, match=r"did not answer at http://127.* within 2 s; .*--start-seconds") as caught:
        program.wait_until_it_answers(f"http://127.0.0.1:{background.free_port()}/", 2, said.append)
    assert "  still loading" in str(caught.value)
    assert any("waiting for the helper: " in line for line in said)


def test_a_program_that_answers_and_is_stopped(start: Start) -> None:
    port = background.free_port()
    program = start(f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()")
    program.wait_until_it_answers(f"http://127.0.0.1:{port}/", 30, print)
    assert not background.is_port_free(port)
    program.stop()
    assert background.is_port_free(port)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/", timeout=5)


@pytest.mark.usefixtures("closed_proxy")
def test_loopback_is_asked_past_the_proxy_by_us_and_by_what_we_start(start: Start) -> None:
    port = background.free_port()
    url = f"http://127.0.0.1:{port}/"
    serve = f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    start(serve).wait_until_it_answers(url, 30, print)
    child = start(f"import requests; requests.get({url!r}, timeout=5).raise_for_status()")
    assert child.process.wait(60) == 0, child.log_end()


@pytest.mark.parametrize(
    ("said", "hosts"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": ".hospital.example, 10.0.0.0/8"}, ".hospital.example,10.0.0.0/8,127.0.0.1,localhost"),
        ({"no_proxy": "a,localhost", "NO_PROXY": "b"}, "a,localhost,b,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_no_proxy_keeps_what_it_said(said: dict[str, str], hosts: str) -> None:
    assert with_direct_loopback({"HTTP_PROXY": "http://p:1", **said}) == {
        "HTTP_PROXY": "http://p:1",
        "no_proxy": hosts,
        "NO_PROXY": hosts,
    }


def test_nothing_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    shell = "sleep 300 & echo $$ $!; wait"
    code = (
        "from pathlib import Path; import time; from flrplan.demo.ohif.background import start; "
        f"start('it', ['sh', '-c', {shell!r}], Path('it.log'), Path('.')); time.sleep(300)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    log, pids = tmp_path / "it.log", []
    until = time.monotonic() + 60
    while len(pids) < 2 and time.monotonic() < until:
        pids = log.read_text().split() if log.is_file() else []
        time.sleep(0.1)
    assert [is_alive(int(p)) for p in pids] == [True, True]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(is_alive(int(p)) for p in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert [is_alive(int(p)) for p in pids] == [False, False]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
