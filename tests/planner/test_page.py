"""The page's server: from an upload to files to take away, one plan after another, and nothing that stays."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from filelock import FileLock

from flrplan.errors import EmptyLiverError, ImageError
from flrplan.image import read_ct
from flrplan.planner import Jobs, PlannerSettings, form, router
from flrplan.planner import jobs as module
from flrplan.planning import LiverState

ServePlanner = Callable[[Jobs], AbstractContextManager[str]]


@dataclass
class Planned:
    """What a plan of the stand-in saves."""

    name: str = ""

    @property
    def ct(self) -> Planned:
        return self

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "plan.json").write_text(
            json.dumps({"volumes": {"flr_functional_ml": 812.3, "flr_fraction": 0.447}, "warnings": ["<thin>"]})
        )
        (folder / "planning.nii.gz").write_bytes(b"map")
        (folder / "report.html").write_text("<script>alert(1)</script>")
        (folder / ".part-x").write_bytes(b"not whole")


class Networks:
    """A stand-in for ``plan``: it reads the CT, and goes on once it is let."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.goes_on = threading.Event()
        self.error: Exception | None = None

    def __call__(self, path: Path, *, cascade: object, on_step: Callable[[str], None], **asked: Any) -> Planned:
        self.asked.append({"shape": read_ct(path, asked["series"]).array_zyx.shape, **asked})
        on_step(f"{asked['name']}: liver")
        assert self.goes_on.wait(20)
        on_step(f"{asked['name']}: crlm")
        if self.error is not None:
            raise self.error
        return Planned()


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Networks:
    stand_in = Networks()
    stand_in.goes_on.set()
    monkeypatch.setattr(module, "plan", stand_in)
    return stand_in


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(PlannerSettings(folder=tmp_path / "jobs", max_upload_gib=1e7 / 2**30), lambda: object())  # type: ignore[arg-type,return-value]


@pytest.fixture
def url(serve_planner: ServePlanner, jobs: Jobs, networks: Networks) -> Iterator[str]:
    with serve_planner(jobs) as address:
        yield address


@pytest.fixture(scope="session")
def slices(series: Path) -> list[tuple[str, tuple[str, bytes]]]:
    """The series as a browser sends a folder."""
    return [("files", (f"{series.name}/{p.name}", p.read_bytes())) for p in sorted(series.iterdir())]


def test_a_second_opinion_is_told_and_is_no_step_of_its_own(
    url: str, jobs: Jobs, slices: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def stand_in(path: Path, *, on_step: Callable[[str], None], name: str, **_: Any) -> Planned:
        (job,) = jobs._jobs.values()
        for step in ("flr", "flr, second opinion by stunet"):
            on_step(f"{name}: {step}")
            told.append((job.step, job.steps_done))
        return Planned()

    monkeypatch.setattr(module, "plan", stand_in)
    wait_for(send_well(url, slices), "done")
    assert [done for _, done in told] == [1, 1]
    assert told[0][0].startswith("looking for: ")
    assert told[1][0] == f"{told[0][0]}, second opinion by stunet"


def send(url: str, files: Any, **fields: str) -> requests.Response:
    return requests.post(f"{url}plans", files=files, data=fields, timeout=30)


def send_well(url: str, files: Any, **fields: str) -> str:
    answer = send(url, files, **fields)
    assert answer.status_code == 201, answer.text
    return urljoin(url, answer.json()["plan"])


def wait_for(plan: str, *states: str) -> dict[str, Any]:
    for _ in range(600):
        found: dict[str, Any] = requests.get(f"{plan}state", timeout=30).json()
        if found["state"] in states:
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def kept(jobs: Jobs) -> list[str]:
    """Every file that the server keeps, as a path below its folder."""
    root = jobs.settings.folder
    assert root is not None
    files = [
        Path(here, name) for here, _, names in os.walk(root) for name in names
    ]  # rglob fails where a folder goes meanwhile
    return sorted(p.relative_to(root).as_posix() for p in files if p.name != ".lock")


def test_a_folder_is_planned_and_its_files_are_taken_away(
    url: str, jobs: Jobs, networks: Networks, slices: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    networks.goes_on.clear()
    plan = send_well(url, slices, height_cm="172,5", weight_kg="80", liver_state="chemotherapy", raw="1")
    assert re.fullmatch(r"[0-9a-f]{32}", plan.split("/")[-2])
    assert wait_for(plan, "planning")["steps"] == 5
    while not networks.asked:
        time.sleep(0.02)
    time.sleep(0.1)
    assert wait_for(plan, "planning") == {"state": "planning", "text": "looking for: liver", "done": 1, "steps": 5}
    assert "Looking for: liver" in requests.get(plan, timeout=30).text
    assert len(kept(jobs)) == len(slices)
    networks.goes_on.set()
    wait_for(plan, "done")
    (asked,) = networks.asked
    assert asked == {
        "shape": asked["shape"], "series": None, "name": f"plan-{plan[-7:-1]}", "raw": True, "anonymize": False,
        "height_cm": 172.5, "weight_kg": 80.0, "liver_state": LiverState.CHEMOTHERAPY,
    }  # fmt: skip
    assert asked["shape"][0] == len(slices)
    assert [name.rpartition("/")[2] for name in kept(jobs)] == [
        ".part-x", f"plan-{plan[-7:-1]}.zip", "plan.json", "planning.nii.gz", "report.html",
    ]  # fmt: skip

    page = requests.get(plan, timeout=30)
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert re.findall(r'<td>(.*?)</td><td><a href="(.*?)"', page.text) == [
        ("All files", f"files/plan-{plan[-7:-1]}.zip"), ("Report as a page", "files/report.html"), ("Label map (NIfTI)", "files/planning.nii.gz"), ("Numbers for programs", "files/plan.json"),
    ]  # fmt: skip
    report = requests.get(f"{plan}files/report.html", timeout=30)
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts"), (
        "it may run scripts, not ask this server"
    )
    label = requests.get(f"{plan}files/planning.nii.gz", timeout=30)
    assert (label.content, label.headers["content-disposition"]) == (b"map", 'attachment; filename="planning.nii.gz"')
    everything = requests.get(f"{plan}files/plan-{plan[-7:-1]}.zip", timeout=30).content
    assert {"plan.json", "planning.nii.gz", "report.html"} < {*zipfile.ZipFile(BytesIO(everything)).namelist()}
    for name in (".part-x", "../upload/x", "%2e%2e/%2e%2e/.lock", "nothing"):
        assert requests.get(f"{plan}files/{name}", timeout=30).status_code == 404

    answer = requests.post(f"{plan}delete", timeout=30, allow_redirects=False)
    assert urljoin(f"{plan}delete", answer.headers["location"]) == url
    gone = requests.get(plan, timeout=30)
    assert (gone.status_code, "It was deleted, by its user or after its time" in gone.text) == (404, True)
    assert kept(jobs) == []
    assert "DOE" not in caplog.text


def test_a_zip_or_a_file_is_planned_as_well(url: str, networks: Networks, slices: list[Any]) -> None:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for _, (name, content) in slices:
            archive.writestr(name, content)
    wait_for(send_well(url, {"files": ("DOE.zip", stream.getvalue())}, anonymize="1"), "done")
    assert networks.asked[0]["shape"][0] == len(slices)
    assert (networks.asked[0]["raw"], networks.asked[0]["anonymize"]) == (False, True)


def test_of_several_series_the_page_asks_which(
    url: str, networks: Networks, slices: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arterial = [
        (key, (f"b/{name}", content.replace(b"Portal venous ", b"Late arterial ").replace(b"2.25.", b"2.26.")))
        for key, (name, content) in slices
    ]
    plan = send_well(url, slices + arterial[:5])
    assert wait_for(plan, "choose")
    page = requests.get(plan, timeout=30).text
    asked = re.findall(r'action="(choices/\d)"><button>(.*?)</button>', page)
    assert asked == [("choices/0", f"Portal venous, {len(slices)} slices"), ("choices/1", "Late arterial, 5 slices")]
    assert networks.asked == []
    assert requests.post(f"{plan}choices/2", timeout=30).status_code == 409
    assert requests.post(f"{plan}choices/1", timeout=30).url == plan
    wait_for(plan, "done")
    assert networks.asked[0]["shape"][0] == 5
    assert requests.post(f"{plan}choices/0", timeout=30).status_code == 409


def test_plans_are_made_one_after_another_and_a_deleted_one_is_left(url: str, networks: Networks, slices: list[Any]) -> None:
    networks.goes_on.clear()
    first = send_well(url, slices)
    while not networks.asked:
        time.sleep(0.02)
    second, third = send_well(url, slices), send_well(url, slices)
    assert wait_for(second, "waiting")["text"] == "waiting for 1 other plan"
    assert wait_for(third, "waiting")["text"] == "waiting for 2 other plans"
    requests.post(f"{first}delete", timeout=30)
    requests.post(f"{second}delete", timeout=30)
    networks.goes_on.set()
    wait_for(third, "done")
    assert [asked["name"] for asked in networks.asked] == [f"plan-{first[-7:-1]}", f"plan-{third[-7:-1]}"]


def test_what_the_networks_say_is_shown_with_the_persons_own_names(
    url: str, jobs: Jobs, networks: Networks, slices: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    networks.error = EmptyLiverError("file-00003.dcm: the liver is empty")
    plan = send_well(url, slices)
    wait_for(plan, "failed")
    assert "DOE_JOHN_0004.dcm: the liver is empty" in requests.get(plan, timeout=30).text
    networks.error = KeyError("DOE^JOHN")
    plan = send_well(url, slices)
    wait_for(plan, "failed")
    assert "something went wrong that should not have" in requests.get(plan, timeout=30).text
    assert "KeyError" in caplog.text
    assert "in _plan" in caplog.text
    assert "DOE" not in caplog.text
    assert kept(jobs) == []
    networks.error = None
    wait_for(send_well(url, slices), "done")


@pytest.mark.parametrize(
    ("files", "fields", "said"),
    [
        ({"files": ("report.pdf", b"%PDF")}, {}, "no CT in the upload (report.pdf); expected a DICOM folder"),
        ({"files": ("ct.zip", b"PK\x05\x06" + bytes(18))}, {}, "no CT in the upload (it is empty)"),
        ({"files": ("ct.nii.gz", b"x")}, {"height_cm": "1.72"}, "got 1.72, which looks like metres: 172 cm?"),
        ({"files": ("ct.nii.gz", b"x")}, {"weight_kg": "eighty"}, "weight in kg: expected a number, got 'eighty'"),
        ({"files": ("ct.nii.gz", b"x")}, {"liver_state": "fine"}, "unknown state of the liver 'fine'; known are normal"),
        ({"files": ("ct.nii.gz", b"x")}, {"height_cm": "1" * 1001}, "expected at most 20 fields of 1000 letters"),
        ({"files": ("ct.nii.gz", b"x")}, {f"field {n}": "" for n in range(21)}, "expected at most 20 fields of 1000 letters"),
        ({"files": ("ct.nii.gz", b"x" * 11_100_000)}, {}, "larger than 10 MB, the most that is taken"),
        ({"files": ("ct.nii.gz", b"x" * 10_100_000)}, {}, "larger than 10 MB, the most that is taken"),
        (None, {"height_cm": "172"}, "expected a form with files"),
    ],
    ids=["pdf", "empty zip", "metres", "words", "state", "long field", "many fields", "large", "a little large", "no form"],
)  # fmt: skip
def test_what_cannot_be_planned_is_told_at_once_and_not_kept(
    url: str, jobs: Jobs, files: Any, fields: dict[str, str], said: str
) -> None:
    answer = send(url, files, **fields)
    assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.text
    assert kept(jobs) == []


def test_a_browser_that_goes_away_leaves_nothing(url: str, jobs: Jobs) -> None:
    address = urlsplit(url)
    head = "POST /planner/plans HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000\r\n\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.dcm"\r\n\r\nabc'
    with socket.create_connection((str(address.hostname), address.port or 0)) as browser:
        browser.sendall((head + part).encode())
        while not kept(jobs):
            time.sleep(0.02)
    for _ in range(200):
        if not kept(jobs):
            return
        time.sleep(0.02)
    pytest.fail(str(kept(jobs)))


def test_a_browser_that_falls_silent_is_told_and_leaves_nothing(url: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    address = urlsplit(url)
    head = "POST /planner/plans HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000\r\n\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.dcm"\r\n\r\nabc'
    monkeypatch.setattr(form, "_LONGEST_SILENCE_SECONDS", 0.6)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=20) as browser:
        browser.sendall((head + part).encode())
        answer = b""
        while b"}" not in answer and (more := browser.recv(4096)):  # the connection stays open
            answer += more
    assert b"nothing more of the upload arrived for 0.01 minutes; send it again" in answer
    assert kept(jobs) == []


def test_a_boundary_that_cannot_be_one_is_told(url: str, jobs: Jobs) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={'x' * 5000}"}
    answer = requests.post(f"{url}plans", data=b"abc", headers=headers, timeout=30)
    assert answer.json() == {"error": "the upload did not arrive whole; send it again"}
    assert kept(jobs) == []


def test_a_form_that_is_cut_off_is_told(url: str, jobs: Jobs) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\nabc'
    answer = requests.post(f"{url}plans", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"}, timeout=30)
    assert answer.json() == {"error": "the upload did not arrive whole; send it again"}
    assert kept(jobs) == []


def test_forms_of_other_sites_and_other_names_of_this_machine_are_refused(url: str, slices: list[Any], jobs: Jobs) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert requests.post(f"{url}plans", files=slices, headers=headers, timeout=30).status_code == 403
    for method in ("get", "post"):  # a name of the attacker's that was rebound to 127.0.0.1
        assert (
            requests.request(method, url, headers={"Host": f"evil.example:{urlsplit(url).port}"}, timeout=30).status_code == 400
        )
    assert kept(jobs) == []
    own = {"Origin": url.removesuffix("/planner/"), "Sec-Fetch-Site": "same-origin"}
    assert requests.post(f"{url}plans", files=slices, headers=own, timeout=30).status_code == 201


def test_no_more_plans_are_kept_than_there_is_place_for(url: str, slices: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_JOBS", 1)
    send_well(url, slices)
    assert send(url, slices).json() == {"error": "this server keeps 1 plans at most; delete one that you no longer need"}


def test_a_disk_without_room_is_told(url: str, jobs: Jobs, slices: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "require_room", lambda *_: (_ for _ in ()).throw(ImageError("no room")))
    assert send(url, slices).json() == {"error": "no room"}
    assert kept(jobs) == []


def test_the_plans_of_answers_are_kept_to_be_read_the_newest_of_them(
    url: str, jobs: Jobs, networks: Networks, slices: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    networks.goes_on.clear()
    wait_for(send_well(url, slices), "planning")
    places = [urljoin(url, f"../{jobs.keep(Planned('case-<7>'))}") for _ in range(4)]  # type: ignore[arg-type]
    assert [requests.get(place, timeout=30).status_code for place in places] == [404, 200, 200, 200], "few wait in memory"
    networks.goes_on.set()
    wait_for(places[3], "done")
    assert "of case-&lt;7&gt;" in requests.get(places[3], timeout=30).text
    assert requests.get(f"{places[3]}files/planning.nii.gz", timeout=30).content == b"map"
    monkeypatch.setattr(module, "_MOST_ANSWERS", 2)
    monkeypatch.setattr(module, "_MOST_JOBS", 1)  # what people upload is never deleted for an answer, nor refused
    jobs.keep(Planned("next"))  # type: ignore[arg-type]
    assert [requests.get(place, timeout=30).status_code for place in places] == [404, 404, 404, 200]


def test_plans_are_deleted_after_their_time(
    serve_planner: ServePlanner, networks: Networks, slices: list[Any], tmp_path: Path
) -> None:
    jobs = Jobs(PlannerSettings(folder=tmp_path, keep_hours=1.5 / 3600), lambda: object())  # type: ignore[arg-type,return-value]
    with serve_planner(jobs) as url:
        plan = send_well(url, slices)
        time.sleep(1.6)
        assert requests.get(plan, timeout=30).status_code == 404
        assert kept(jobs) == []


def test_a_server_that_stops_deletes_all_and_one_that_was_killed_is_cleaned_up_by_the_next(
    serve_planner: ServePlanner, jobs: Jobs, networks: Networks, slices: list[Any]
) -> None:
    root = jobs.settings.folder
    assert root is not None
    killed, runs, others = (root / name for name in ("flrplan-planner-killed", "flrplan-planner-runs", "else"))
    for folder in (killed, runs, others):
        folder.mkdir(parents=True)
        (folder / "ct.dcm").write_bytes(b"x")
    link = root / "flrplan-planner-link"
    link.symlink_to(others)
    with FileLock(runs / ".lock"):
        with serve_planner(jobs) as url:
            assert not killed.exists()
            (own,) = {*root.glob("flrplan-planner-*")} - {runs, link}
            assert own.stat().st_mode & 0o777 == 0o700
            os.utime(own, (0, 0))
            requests.get(f"{url}plans/none/", timeout=30)
            assert time.time() - own.stat().st_mtime < 60, "who tidies temporary folders by their age leaves it"
            networks.goes_on.clear()
            wait_for(send_well(url, slices), "planning")
            threading.Timer(0.5, networks.goes_on.set).start()
        assert kept(jobs) == ["else/ct.dcm", "flrplan-planner-runs/ct.dcm"]
    shutil.rmtree(root)


def test_what_a_killed_server_left_goes_where_the_system_names_no_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "getuid")  # Windows
    (tmp_path / "flrplan-planner-killed").mkdir()
    module._remove_left_behind(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_needs_nothing_from_elsewhere(url: str) -> None:
    page = requests.get(url, timeout=30).text
    script = requests.get(f"{url}upload.js", timeout=30)
    assert script.headers["content-type"].startswith("text/javascript")
    assert not re.findall(r"https?://", page + script.text)
    assert "10 MB" in page
    assert "the plan after 24 hours" in page.replace("\n", " ")
    assert requests.get(f"{url}jobs.js", timeout=30).status_code == 404


@pytest.mark.parametrize(
    ("name", "title"),
    [("planning.nii.gz", "Label map (NIfTI)"), ("seg.dcm", "Segmentation for PACS and viewers (DICOM SEG)"), ("x.bin", "File"),
     ("cut_plane.mrk.json", "Plane nearest to the cut for 3D Slicer"), ("PLAN.PDF", "Report to print")],
)  # fmt: skip
def test_each_kind_of_file_has_a_name(name: str, title: str) -> None:
    assert router.title_of(name) == title
