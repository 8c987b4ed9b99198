"""``flrplan serve``: who comes in, and how long the others wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from flrplan.cli import main
from flrplan.cohort import SyntheticCase
from flrplan.errors import SettingsError
from flrplan.server.serve import ServeSettings
from flrplan.server.serve.users import Users, add_user

pytestmark = pytest.mark.timeout(300)
ANNA = ("anna", "correct horse")


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

    def infer() -> None:
        begun = time.monotonic()
        url = f"{served.url}/infer/cascade?image={case.case_id}&output=json"
        assert requests.post(url, data={"params": "{}"}, auth=ANNA, timeout=200).status_code == 200
        took["infer"] = time.monotonic() - begun

    thread = threading.Thread(target=infer)
    thread.start()
    time.sleep(0.3)
    while thread.is_alive():
        begun = time.monotonic()
        assert requests.get(f"{served.url}/info/", auth=ANNA, timeout=60).status_code == 200
        took["info"] = max(took.get("info", 0.0), time.monotonic() - begun)
    thread.join()
    assert took["info"] < 0.5 * took["infer"], took


@pytest.fixture
def users(tmp_path: Path) -> Path:
    add_user(tmp_path / "users", *ANNA)
    return tmp_path / "users"


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


def test_the_shared_token_enters_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    known = Users(ServeSettings(str(tmp_path), host="0.0.0.0", token_file=tmp_path / "token"))
    assert known.by_token("0123456789abcdef") == (True, None)
    assert known.by_password("anyone", "0123456789abcdef") == (True, None)
    assert known.by_token("0123456789abcdeg") == (False, None)
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(SettingsError, match="fewer than 16 characters; make one with"):
        ServeSettings(str(tmp_path), token_file=tmp_path / "token")
