"""``flrplan serve``: who comes in, and how long the others wait."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from starlette.middleware.base import RequestResponseEndpoint

from flrplan.anatomy import Compartment
from flrplan.cli import main
from flrplan.cohort import SyntheticCase
from flrplan.errors import OutputError, SettingsError
from flrplan.server.serve import ServeSettings
from flrplan.server.serve.access import Door, login_routes
from flrplan.server.serve.private_temp import private_temp
from flrplan.server.serve.proxy import dicomweb_proxy
from flrplan.server.serve.users import Users, add_user
from flrplan.server.studies import PlanningLocalDatastore
from flrplan.server.user import set_current_user
from flrplan.studies.review import LabelUse

pytestmark = pytest.mark.timeout(300)
ANNA, BEN = ("anna", "correct horse"), ("ben", "battery staple")


def wait_until_planned(plan: str) -> None:
    until = time.monotonic() + 200
    while (
        requests.get(f"{plan}state", auth=ANNA, timeout=30).json()["state"] in ("waiting", "planning")
        and time.monotonic() < until
    ):
        time.sleep(0.3)


@pytest.fixture(autouse=True)
def shown(request: pytest.FixtureRequest, show_log_on_failure: Callable[[Any], None]) -> None:
    if "served" in request.fixturenames:
        show_log_on_failure(request.getfixturevalue("served"))


def test_beyond_this_machine_it_listens_only_with_a_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--studies", str(tmp_path), "--host", "0.0.0.0"]) == 1
    assert "0.0.0.0 lets other machines in, and nothing asks who they are; give --users FILE" in capsys.readouterr().err


def test_who_has_no_password_gets_in_nowhere(served: Any) -> None:
    for path in ("/", "/info/", "/datastore/?output=all", "/openapi.json", "/ohif/", "/session/x", "/nowhere"):
        answer = requests.get(served.url + path, timeout=30)
        assert answer.status_code == 401, path
        assert answer.json() == {"detail": "log in with your name and password (or a token)"}
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    assert requests.get(f"{served.url}/info/", auth=("anna", "wrong"), timeout=30).status_code == 401
    assert requests.get(f"{served.url}/info/", auth=("nobody", ANNA[1]), timeout=30).status_code == 401
    assert requests.get(f"{served.url}/info/", headers={"Authorization": "Basic Ω".encode()}, timeout=30).status_code == 401


def test_a_browser_comes_in_with_name_and_password(served: Any) -> None:
    assert requests.get(f"{served.url}/info/", auth=ANNA, timeout=30).json()["name"] == "FLR planning"


def test_slicer_logs_in_for_a_bearer_token(served: Any) -> None:
    client: MONAILabelClient = served.client
    assert client.auth_enabled()
    assert not client.auth_valid_token()
    with pytest.raises(MONAILabelClientException, match="wrong name or password") as caught:
        client.auth_token("anna", "wrong")
    assert "401" in caught.value.msg
    client.update_auth(client.auth_token(*ANNA))
    assert client.auth_valid_token()
    assert client.info()["datastore"]["total"] == 2
    assert client.next_sample("first", {})["id"]


def test_a_page_of_another_site_changes_nothing(served: Any, case: SyntheticCase) -> None:
    url = f"{served.url}/datastore/image/info?image={case.case_id}"
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = requests.put(url, data={"info": "{}"}, headers=headers, auth=ANNA, timeout=30)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    own = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
    assert requests.put(url, data={"info": "{}"}, headers=own, auth=ANNA, timeout=30).status_code == 200


def test_info_does_not_wait_for_an_inference(served: Any, case: SyntheticCase) -> None:
    took = {}
    answers: list[requests.Response] = []

    def infer() -> None:
        begun = time.monotonic()
        url = f"{served.url}/infer/cascade?image={case.case_id}&output=json"
        answers.append(requests.post(url, data={"params": "{}"}, auth=ANNA, timeout=200))
        took["infer"] = time.monotonic() - begun

    thread = threading.Thread(target=infer)
    thread.start()
    time.sleep(0.3)
    while thread.is_alive():
        begun = time.monotonic()
        assert requests.get(f"{served.url}/info/", auth=ANNA, timeout=60).status_code == 200
        took["info"] = max(took.get("info", 0.0), time.monotonic() - begun)
    thread.join()
    assert answers[0].status_code == 200
    assert took["info"] < 0.5 * took["infer"], took
    plan = f"{served.url}/{answers[0].json()['report']}"
    wait_until_planned(plan)
    assert "<h1>Plan of " in requests.get(f"{plan}files/report.html", auth=ANNA, timeout=30).text


@pytest.fixture
def users(tmp_path: Path) -> Path:
    add_user(tmp_path / "users", *ANNA)
    return tmp_path / "users"


def test_two_readers_with_passwords_take_a_case_from_draft_to_confirmed(
    served: Any,
    cases: list[SyntheticCase],
    write_image: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What each of them does is read where others look: the data store's list, the work list, the terminal, the choice of a training."""
    case = cases[1]
    image, studies = case.case_id, served.folder / "studies"
    names = [{"name": c.label_name, "idx": int(c)} for c in Compartment]
    upside_down = write_image(tmp_path / "draft.nii.gz", case.planning_zyx[::-1].copy(), case.geometry)
    right = write_image(tmp_path / "right.nii.gz", case.planning_zyx, case.geometry)

    def submit(file: Path, who: tuple[str, str]) -> None:
        params = {"params": json.dumps({"label_info": names, "client_id": "somebody else"})}
        with file.open("rb") as f:
            answer = served.ask(
                "PUT", f"/datastore/label?image={image}", data=params, files={"label": (file.name, f)}, auth=who
            )
        assert answer.status_code == 200, answer.text

    def decide(status: str, who: tuple[str, str], comment: str = "") -> requests.Response:
        meta = {"status": status, "approvedBy": "anybody", "level": "", "comment": comment, "editTime": 1}
        params = {"params": json.dumps({"segmentationMeta": meta})}
        return served.ask("PUT", f"/datastore/updatelabelinfo?label={image}&tag=final", data=params, auth=who)

    def seen() -> tuple[str, str, str | None]:
        table = csv.DictReader(io.StringIO(served.ask("GET", "/worklist.csv").text))
        listed = next(line["what"] for line in table if line["case"] == image)
        assert main(["studies", "status", str(studies)]) == 0
        assert f"  {image}: {listed}" in capsys.readouterr().out
        chosen = PlanningLocalDatastore(str(studies)).submitted(image)
        return listed, str(chosen.state), chosen.choose(LabelUse.APPROVED).tag

    submit(upside_down, ANNA)
    assert seen() == ("drafted", "drafted", None)
    refused = decide("approved", ANNA)
    assert refused.status_code == 400
    assert "anna drafted this case; a second reader must confirm it" in refused.json()["detail"]
    assert decide("flagged", BEN, "upside down").status_code == 200
    assert seen() == ("sent back by ben: upside down", "sent back", None)
    submit(right, ANNA)
    assert seen() == ("refined", "refined", None)
    assert decide("approved", ANNA).status_code == 400
    assert decide("approved", BEN).status_code == 200
    assert seen() == ("confirmed by ben", "confirmed", "final")

    labels = served.ask("GET", "/datastore/?output=all").json()["objects"][image]["labels"]
    assert {tag: label["info"]["submission"]["by"] for tag, label in labels.items()} == {"final": "anna", "version_1": "anna"}
    assert labels["final"]["info"]["segmentationMeta"]["verified"] is True
    assert labels["version_1"]["info"]["segmentationMeta"]["comment"] == "upside down"
    for method, path in (("DELETE", f"/datastore/label?id={image}&tag=final"), ("POST", "/train/liver"), ("DELETE", "/train/")):
        answer = served.ask(method, path, auth=BEN)
        assert answer.status_code == 403, path
        assert answer.json() == {"detail": "only an administrator of this server may do this (anna); ask one"}
    assert served.ask("DELETE", f"/datastore/label?id={image}&tag=version_1", auth=ANNA).status_code == 200
    assert seen() == ("confirmed by ben", "confirmed", "final")
    assert 'localStorage.setItem("flrplan.reader", "ben")' in served.ask("GET", "/ohif/app-config.js", auth=BEN).text


def test_an_administrator_is_a_user(tmp_path: Path, users: Path) -> None:
    with pytest.raises(SettingsError, match=r"admins: .*users names no 'zoe'; give --admin NAME of a user"):
        Users(ServeSettings(str(tmp_path), users=users, admins=frozenset({"anna", "zoe"})))
    with pytest.raises(SettingsError, match="who has not signed in has no name; give --users FILE"):
        ServeSettings(str(tmp_path), admins=frozenset({"anna"}))


def test_headers_without_end_are_refused_before_they_come(served: Any) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(b"GET /auth/ HTTP/1.1\r\nX: " + b"a" * 2**16)
        assert line.recv(64).startswith(b"HTTP/1.1 400")


def test_a_token_ends_with_the_password_it_was_given_for(tmp_path: Path, users: Path) -> None:
    known = Users(ServeSettings(str(tmp_path), users=users))
    token = known.log_in(*ANNA)
    assert token is not None
    assert known.by_token(token) == (True, "anna")
    add_user(users, "anna", "another horse")
    assert known.by_token(token) == (False, None)
    assert known.by_password(*ANNA) == (False, None)
    assert known.by_password("anna", "another horse") == (True, "anna")
    assert Users(ServeSettings(str(tmp_path), users=users)).by_token(token) == (False, None)


def test_a_forged_token_is_none(tmp_path: Path, users: Path) -> None:
    import jwt

    known = Users(ServeSettings(str(tmp_path), users=users))
    for key, algorithm in (("", "none"), ("x" * 32, "HS256")):
        assert known.by_token(jwt.encode({"sub": "anna"}, key, algorithm=algorithm)) == (False, None)


def test_a_password_file_that_was_damaged_lets_nobody_in(tmp_path: Path, users: Path) -> None:
    known = Users(ServeSettings(str(tmp_path), users=users))
    whole = users.read_text()
    assert known.by_password(*ANNA) == (True, "anna")
    users.write_text("a line without a colon\n")  # and anna is taken out
    assert [known.by_password(*ANNA) for _ in range(3)] == [(False, None)] * 3
    users.write_text(whole)
    assert known.by_password(*ANNA) == (True, "anna")


def test_a_password_may_have_any_letters(tmp_path: Path) -> None:
    add_user(tmp_path / "users", "jörg", "Zürcher Straße")
    app = FastAPI()
    known = Users(ServeSettings(str(tmp_path), users=tmp_path / "users"))
    app.include_router(login_routes(known))
    app.add_middleware(Door, users=known)
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    for encoding in ("utf-8", "latin-1"):  # browsers and curl; Python's requests
        sent = base64.b64encode("jörg:Zürcher Straße".encode(encoding)).decode()
        answer = client.get("/auth/token/valid", headers={"Authorization": f"Basic {sent}"})
        assert answer.json()["username"] == "jörg", encoding


def test_the_shared_token_enters_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    known = Users(ServeSettings(str(tmp_path), host="0.0.0.0", token_file=tmp_path / "token"))
    assert known.by_token("0123456789abcdef") == (True, None)
    assert known.by_password("anyone", "0123456789abcdef") == (True, None)
    assert known.by_token("0123456789abcdeg") == (False, None)
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(SettingsError, match="fewer than 16 characters; make one with"):
        ServeSettings(str(tmp_path), token_file=tmp_path / "token")


def test_the_surgeons_page_plans_with_the_models_of_the_app(
    served: Any, case: SyntheticCase, read_image: Callable[..., Any], tmp_path: Path
) -> None:
    assert requests.get(served.url, auth=ANNA, timeout=30).url == f"{served.url}/planner/"
    assert requests.get(f"{served.url}/planner/", timeout=30).status_code == 401
    with (served.folder / "studies" / f"{case.case_id}.nii.gz").open("rb") as image:
        answer = requests.post(f"{served.url}/planner/plans", files={"files": ("DOE.nii.gz", image)}, auth=ANNA, timeout=60)
    plan = f"{served.url}/planner/{answer.json()['plan']}"
    wait_until_planned(plan)
    label = requests.get(f"{plan}files/planning.nii.gz", auth=ANNA, timeout=30)
    assert label.status_code == 200, requests.get(plan, auth=ANNA, timeout=30).text
    (tmp_path / "planning.nii.gz").write_bytes(label.content)
    _, geometry = read_image(tmp_path / "planning.nii.gz")
    assert geometry.is_same_grid(case.geometry)
    assert len([*(served.folder / "tmp").rglob("flrplan-planner-*")]) == 1
    assert "DOE" not in served.log.read_text(errors="replace")


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "told"),
    [
        ("POST", "/infer/liver?image=x", {"data": {"params": "{"}}, 400, "params is not plain JSON"),
        ("POST", "/infer/liver?image=x", {"data": {"params": "[1]"}}, 400, "params must be JSON names with values"),
        ("POST", "/infer/liver", {"data": {"params": "{}"}}, 400, "no image: name one of the studies"),
        ("POST", "/infer/liver?image=x&output=dicom_seg", {"data": {"params": "{}"}}, 400, "a DICOM SEG needs DICOM images"),
        ("POST", "/infer/liver?image=x&output=pdf", {"data": {"params": "{}"}}, 422, "query output: Input should be"),
        ("PUT", "/datastore/image/info?image=CASE", {"data": {"info": '{"a": NaN}'}}, 400, "info is not plain JSON"),
        (
            "PUT",
            "/datastore/image/info?image=CASE",
            {"data": {"info": '{"strategy": 1}'}},
            400,
            "strategy is written by the server",
        ),
        ("PUT", "/datastore/image/info?image=nobody", {"data": {"info": "{}"}}, 400, "no image 'nobody' in this"),
        ("PUT", "/session/", {"files": {"files": ("..", b"x")}}, 200, None),
        ("PUT", "/model/liver", {"files": {"file": ("m.pt", b"x")}}, 400, "NOT configured"),
        ("HEAD", "/datastore/image?image=CASE&check_sum=CRC:1", {}, 400, None),
        ("GET", "/datastore/image", {}, 422, "query image: Field required"),
        ("POST", "/activelearning/random", {"data": b"x" * 2**20 + b"x"}, 413, "larger than the 1 MiB that are taken"),
        ("POST", "/activelearning/random", {"data": (b"x" * 2**16 for _ in range(17))}, 413, "larger than the 1 MiB"),
        ("POST", "/reload", {}, 404, "Not Found"),
        ("GET", "/logs/", {}, 404, "Not Found"),
    ],
)
def test_an_error_is_json_that_says_what_to_do(
    served: Any, case: SyntheticCase, method: str, path: str, more: dict[str, Any], status: int, told: str | None
) -> None:
    answer = served.ask(method, path.replace("CASE", case.case_id), headers={"Origin": served.url}, **more)
    assert answer.status_code == status, answer.text
    assert told is None or told in answer.json()["detail"]
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_who_did_what_is_written_down_without_names_of_patients(served: Any, case: SyntheticCase) -> None:
    served.ask("GET", f"/datastore/image/info?image={case.case_id}&PatientName=DOE^JANE")
    served.ask("POST", "/infer/liver?image=x", data={"params": json.dumps({"image": "another"})})
    requests.get(f"{served.url}/datastore/", timeout=30)
    (log,) = (served.folder / "audit").iterdir()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    read, inferred, refused = map(json.loads, log.read_text().splitlines()[-3:])
    assert "DOE" not in log.read_text()
    assert (read["user"], read["from"], read["method"], read["path"]) == ("anna", "127.0.0.1", "GET", "/datastore/image/info")
    assert (read["image"], read["status"]) == (case.case_id, 200)
    assert (inferred["path"], inferred["image"], inferred["status"]) == ("/infer/liver", "another", 400)
    assert (refused["user"], refused["status"]) == (None, 401)


def test_a_host_that_is_not_this_machine_is_refused_without_users(tmp_path: Path) -> None:
    app = FastAPI()

    @app.get("/")
    def page() -> str:
        return "here"

    app.add_middleware(Door, users=None)
    assert TestClient(app, base_url="http://127.0.0.1:8000").get("/").status_code == 200
    answer = TestClient(app, base_url="http://rebound.example").get("/")  # a name that its owner lets point to this machine
    assert (answer.status_code, "start it with --users FILE" in answer.json()["detail"]) == (400, True)
    client = TestClient(app, base_url="http://127.0.0.1:8000")
    assert client.get("/", headers={"Host": "[::1"}).status_code == 400
    assert client.post("/", headers={"Origin": "http://[::1"}).status_code == 403


def test_temporary_files_lie_in_a_folder_of_the_servers_own_that_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "flrplan-x" / "requests"
    left.mkdir(parents=True)
    (left / "of-a-killed-server").touch()
    with private_temp("x") as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == []
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == folder
        assert os.environ["TMPDIR"] == str(folder.parent / "tasks")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "flrplan-x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="temporary folder"), private_temp("x"):
        pass


@pytest.fixture
def dicomweb() -> Iterator[tuple[str, list[str]]]:
    """A server that answers everything, and what it was asked."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(200)
            self.send_header("content-type", "application/dicom+json")
            self.end_headers()
            self.wfile.write(b"[]" if self.command == "GET" else b'{"00081155": {"Value": ["1.2.840.7"]}}')

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/dicom-web", asked
    server.shutdown()
    server.server_close()


def test_the_proxy_reaches_dicomweb_and_nothing_else(dicomweb: tuple[str, list[str]]) -> None:
    url, asked = dicomweb
    app = FastAPI()
    app.include_router(dicomweb_proxy(url, requests.Session(), lambda uids, user: stored.update(dict.fromkeys(uids, user))))
    stored: dict[str, str] = {}

    @app.middleware("http")
    async def door(request: Request, call_next: RequestResponseEndpoint) -> Response:
        set_current_user("ben")
        return await call_next(request)

    client = TestClient(app)
    for path in (
        "qido/studies?PatientID=7",
        "wado/studies/1.2/series/3.4/instances/5.6/frames/1,2",
        "qido/studies/1.2/series/3/metadata",
    ):
        assert client.get(f"/proxy/dicom/{path}").json() == []
    assert (
        client.post("/proxy/dicom/stow/studies", content=b"x", headers={"content-type": "multipart/related"}).status_code == 200
    )
    assert asked == [
        "GET /dicom-web/studies?PatientID=7",
        "GET /dicom-web/studies/1.2/series/3.4/instances/5.6/frames/1,2",
        "GET /dicom-web/studies/1.2/series/3/metadata",
        "POST /dicom-web/studies",
    ]
    assert stored == {"1.2.840.7": "ben"}, "who stored an object is its author, whatever name it carries"
    asked.clear()
    for path in (
        "wado/%2e%2e/system", "wado/..%2fsystem", "%2e%2e/%2e%2e/patients", "wado/studies/%2e%2e/%2e%2e/system", "wado/studies/1.2%3f",
        "wado/studies/1.2/../../../system", "wado//example.com/studies", "wado/studies/1.2%0a/metadata", "wado/servers", "",
    ):  # fmt: skip
        assert client.get(f"/proxy/dicom/{path}").status_code == 404, path
    for path, kind in (
        ("stow/studies", "application/json"),
        ("stow/instances", "multipart/related"),
        ("wado/tools/reset", "multipart/related"),
    ):
        assert client.post(f"/proxy/dicom/{path}", content=b"x", headers={"content-type": kind}).status_code == 404
    assert asked == []


def test_two_hundred_requests_that_nobody_would_send(
    tmp_path: Path, make_studies: Callable[[Path], Path], serve: Callable[..., Any], show_log_on_failure: Callable[[Any], None]
) -> None:
    """A short form of benchmark/fuzz_server.py, on studies of its own: uploads that are sound are kept."""
    from fuzz_server import Fuzz, is_clear, samples

    server = serve(str(make_studies(tmp_path / "studies")), tmp_path, "--audit", str(tmp_path / "audit"))
    show_log_on_failure(server)
    before = {path for path in tmp_path.rglob("*") if path.relative_to(tmp_path).parts[0] not in ("studies", "sessions", "tmp")}
    fuzz = Fuzz(server.url, None, 0, samples())
    asked = [fuzz.ask() for _ in range(200)]
    assert [(words, answer.text[:300]) for words, answer in asked if not is_clear(answer)] == []
    assert min(sum(answer.status_code == status for _, answer in asked) for status in (200, 400, 404, 422)) > 20
    after = {path for path in tmp_path.rglob("*") if path.relative_to(tmp_path).parts[0] not in ("studies", "sessions", "tmp")}
    assert after == before
    assert {path.name for path in (tmp_path / "studies").iterdir() if path.is_dir()} <= {"labels", "refused", ".scores"}
    assert [path.name for path in tmp_path.glob("tmp/flrplan-serve-*/requests/*") if path.is_file()] == []
