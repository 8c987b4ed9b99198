"""Every door of MONAI Label that led out of the studies, tried against both ways of starting the server: all of them shut."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flrplan.cohort import SyntheticCase
from flrplan.errors import ImageError, LabelError
from flrplan.server.doors import is_own_file, require_id, require_tag

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=["plain", "served"])
def server(request: pytest.FixtureRequest, cases: list[SyntheticCase], write_image: Callable[..., Path]) -> Any:
    """Either kind; beside its studies lie a CT and a folder with a session's file, which are none of its business."""
    found = request.getfixturevalue(request.param)
    write_image(found.folder / "secret" / "ct.nii.gz", cases[0].hu_zyx, cases[0].geometry)
    (found.folder / "secret" / "meta.info").write_text(json.dumps({"image": str(found.folder / "secret" / "ct.nii.gz")}))
    return found


@pytest.fixture(autouse=True)
def nothing_outside(request: pytest.FixtureRequest, show_log_on_failure: Callable[[Any], None]) -> Iterator[None]:
    """No file beside the studies comes, goes or changes, and none in the studies but their index."""
    if "server" not in request.fixturenames:
        yield
        return
    server = request.getfixturevalue("server")
    show_log_on_failure(server)
    before = _files(server.folder)
    yield
    assert _files(server.folder) == before


def _files(folder: Path) -> dict[str, bytes]:
    own = ("tmp", "sessions", "server.log", "audit")
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes()
        for name, path in files.items()
        if name.parts[0] not in own and name.name not in (".lock", "datastore_v2.json")
    }


def _refused(answer: Any, *words: str) -> None:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    for word in words:
        assert word in answer.json()["detail"], answer.text[:300]


@pytest.mark.parametrize("image", ["/root", "/", "SECRET", "../secret/ct.nii.gz", ".", "..", "a\x00b", "C:\\x", "x" * 300])
@pytest.mark.parametrize("where", ["query", "params"])
def test_an_inference_opens_no_path(server: Any, image: str, where: str) -> None:
    image = image.replace("SECRET", str(server.folder / "secret" / "ct.nii.gz"))
    asked = {"image": image} if where == "query" else {"image": "x"}
    params = {"image": image} if where == "params" else {}
    for path in ("/infer/liver", "/infer/cascade"):
        _refused(server.ask("POST", path, params=asked, data={"params": json.dumps(params)}), "is no image id")


def test_an_inference_takes_no_list_of_files(server: Any, case: SyntheticCase) -> None:
    asked = {"image": [str(server.folder / "secret" / "ct.nii.gz")]}
    _refused(server.ask("POST", "/infer/liver", params={"image": "x"}, data={"params": json.dumps(asked)}), "is no image id")


def test_another_programs_temporary_file_is_no_upload(server: Any, case: SyntheticCase) -> None:
    foreign = server.folder / "tmp" / "report.nii.gz"
    foreign.write_bytes((server.folder / "secret" / "ct.nii.gz").read_bytes())
    uploads = next((server.folder / "tmp").glob("flrplan-serve-*/requests"), server.folder / "tmp")
    link = uploads / "tmpabcdefgh.nii.gz"
    link.unlink(missing_ok=True)
    link.symlink_to(server.folder / "secret" / "ct.nii.gz")
    for path in (foreign, link):
        _refused(server.ask("POST", "/infer/liver", params={"image": str(path)}, data={"params": "{}"}), "is no image id")


@pytest.mark.parametrize("tag", ["../../out", "/tmp/out", "..", "", "a b", "x" * 65])
def test_a_result_is_saved_under_no_path(server: Any, case: SyntheticCase, tag: str) -> None:
    asked = {"save_label": True, "label_tag": tag}
    _refused(
        server.ask("POST", "/infer/liver", params={"image": case.case_id}, data={"params": json.dumps(asked)}), "is no tag"
    )


@pytest.mark.parametrize("image", ["../out", "ABSOLUTE", "..", ".hidden", "a/b", "a\\b", "x" * 300])
def test_an_upload_lands_in_the_studies_alone(server: Any, image: str) -> None:
    image = image.replace("ABSOLUTE", str(server.folder / "out"))
    content = (server.folder / "secret" / "ct.nii.gz").read_bytes()
    for path in ("/datastore/image", "/datastore/"):
        _refused(server.ask("PUT", path, params={"image": image}, files={"file": ("x.nii.gz", content)}), "is no image id")


@pytest.mark.parametrize(
    ("image", "tag"), [("CASE", "../../out"), ("CASE", "/tmp/out"), ("../out", "final"), ("/tmp/out", "final")]
)
def test_a_label_lands_in_the_studies_alone(server: Any, case: SyntheticCase, image: str, tag: str) -> None:
    asked = {"image": image.replace("CASE", case.case_id), "tag": tag}
    _refused(server.ask("PUT", "/datastore/label", params=asked, files={"label": ("x.nii.gz", b"x")}), "is no ")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/datastore/image?image=../secret/ct"),
        ("HEAD", "/datastore/image?image=../secret/ct"),
        ("GET", "/datastore/image/info?image=../secret/ct"),
        ("GET", "/datastore/label?label=../secret/ct&tag=final"),
        ("GET", "/datastore/label?label=x&tag=../../secret"),
        ("HEAD", "/datastore/label?image=x&tag=../../secret"),
        ("GET", "/datastore/label/info?label=x&tag=../../secret"),
        ("DELETE", "/datastore/label?id=../../secret/ct&tag=final"),
        ("DELETE", "/datastore/label?id=x&tag=../../secret"),
        ("DELETE", "/datastore/image?id=../secret/ct"),
        ("DELETE", "/datastore/?id=../secret/ct"),
        ("PUT", "/datastore/image/info?image=../secret/ct"),
        ("PUT", "/datastore/label/info?label=../secret/ct&tag=final"),
        ("PUT", "/datastore/updatelabelinfo?label=x&tag=../../secret"),
        ("GET", "/session/..%2fsecret"),
        ("GET", "/session/..%2fsecret?image=true"),
        ("DELETE", "/session/..%2fsecret"),
        ("DELETE", "/session/%2e%2e"),
    ],
)
def test_no_endpoint_of_the_datastore_reads_or_removes_beside_it(server: Any, method: str, path: str) -> None:
    answer = server.ask(method, path)
    assert 400 <= answer.status_code < 500, answer.text[:300]


def test_no_session_is_taken_from_another_folder(server: Any) -> None:
    for session in ("../secret", str(server.folder / "secret")):
        _refused(server.ask("POST", "/infer/liver", params={"session_id": session}, data={"params": "{}"}), "is no session")


def test_an_archive_unpacks_into_its_session_alone(server: Any) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("../../out.txt", "good.txt"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"out"))
    answer = server.ask("PUT", "/session/?uncompress=true", files={"files": ("ct.tar.gz", packed.getvalue())})
    _refused(answer, "ct.tar.gz cannot be unpacked", "outside the destination")
    with tarfile.open(fileobj=(linked := io.BytesIO()), mode="w:gz") as archive:
        member = tarfile.TarInfo("passwords")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    answer = server.ask("PUT", "/session/?uncompress=true", files={"files": ("ct.tar.gz", linked.getvalue())})
    _refused(answer, "'passwords' is a link")
    _refused(server.ask("PUT", "/session/?uncompress=true", files={"files": ("ct.zip", b"junk")}), "neither a zip nor a tar")
    assert not list((server.folder / "tmp").glob("out.txt"))


def test_a_session_and_an_upload_are_opened(server: Any) -> None:
    """They hold junk here, so that what is told is about the file: an inference would take seconds."""
    session = server.ask("PUT", "/session/", files={"files": ("mine.nii.gz", b"junk")}).json()["session_id"]
    asked = {"params": {"session_id": session}, "data": {"params": "{}"}}
    _refused(server.ask("POST", "/infer/liver", **asked), "mine.nii.gz")
    upload = {"data": {"params": "{}"}, "files": {"file": ("mine.nii.gz", b"junk")}}
    _refused(server.ask("POST", "/infer/liver", **upload), "tmp", ".nii.gz")
    assert server.ask("DELETE", f"/session/{session}").status_code == 200


def test_what_there_is_not_is_told_with_what_there_is(server: Any, case: SyntheticCase) -> None:
    asked = {"params": {"image": case.case_id}, "data": {"params": "{}"}}
    _refused(server.ask("POST", "/infer/heart", **asked), "no model 'heart' here; known are liver, crlm, flr, flr_e2e, cascade")
    _refused(server.ask("POST", "/activelearning/best", json={}), "no strategy 'best' here; known are random, first")
    _refused(server.ask("POST", "/train/heart", json={}), "no model 'heart' here; known are liver")
    _refused(
        server.ask("POST", "/scoring/dice?run_sync=true", json={}),
        "no scoring method 'dice' here; known are label_qc, case_scores",
    )
    _refused(
        server.ask("POST", "/infer/wsi/liver?image=/root", json={}),
        *(["no models for whole-slide"] if server.auth is None else []),
    )


def test_ids_and_tags() -> None:
    for good in ("case-1", "1.2.840.113619", "Fall 7", "patient_ä", "a.b"):
        assert require_id(good) == good
    for bad in ("", "..", "a/b", "a\\b", "/a", "a\n", "\0", ".a", 3, None, ["a"], "ä" * 101):
        with pytest.raises(ImageError, match="is no image id: expected the name of one image"):
            require_id(bad)
    for bad in ("", "..", "../x", "a/b", "final\n", None, 1, "-x"):
        with pytest.raises(LabelError, match="is no tag"):
            require_tag(bad)
    assert require_tag("version_1") == "version_1"


def test_a_session_file_is_ours_and_the_folder_of_sessions_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ct.nii.gz").touch()
    assert is_own_file(str(tmp_path / "a" / "ct.nii.gz"), str(tmp_path))
    assert not is_own_file(str(tmp_path / "a"), str(tmp_path))
    assert not is_own_file(str(tmp_path / "a" / ".." / ".." / "x"), str(tmp_path))
    assert not is_own_file("a/ct.nii.gz", str(tmp_path))
