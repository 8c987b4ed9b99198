"""Shared by the tests of the app: small synthetic cases, the app in process, and the real server in a process of its own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from monailabel.utils.others.class_utils import get_class_of_subclass_from_file
from numpy.typing import NDArray

from flrplan.anatomy import Structure, structure_mask
from flrplan.cohort import SyntheticCase, make_case
from flrplan.demo.ohif.background import Background, free_port, start
from flrplan.demo.ohif.server import APP, running_server
from flrplan.image import Geometry
from flrplan.server.serve.users import add_user

START_SECONDS = 300


@pytest.fixture(scope="session")
def cases() -> list[SyntheticCase]:
    return [make_case(11, index, "small") for index in range(2)]


@pytest.fixture(scope="session")
def case(cases: list[SyntheticCase]) -> SyntheticCase:
    return cases[0]


@pytest.fixture(scope="session")
def liver(case: SyntheticCase) -> NDArray[np.bool_]:
    """An annotator's liver: the true one, with a block cut out so that no prediction can equal it by chance."""
    mask = structure_mask(case.planning_zyx, Structure.LIVER).copy()
    z, y, x = (int(n) for n in np.argwhere(mask).mean(axis=0))
    mask[z - 1 : z + 2, y - 2 : y + 3, x - 2 : x + 3] = False
    return mask


@pytest.fixture(scope="session")
def write_image() -> Callable[[Path, NDArray[Any], Geometry], Path]:
    def write(path: Path, array_zyx: NDArray[Any], geometry: Geometry) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(geometry.image(array_zyx), str(path), useCompression=True)
        return path

    return write


@pytest.fixture(scope="session")
def read_image() -> Callable[[Path | str], tuple[NDArray[Any], Geometry]]:
    def read(path: Path | str) -> tuple[NDArray[Any], Geometry]:
        image = sitk.ReadImage(str(path))
        return sitk.GetArrayFromImage(image), Geometry.of(image)

    return read


@pytest.fixture(scope="session")
def make_studies(cases: list[SyntheticCase], write_image: Callable[..., Path]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for case in cases:
            write_image(folder / f"{case.case_id}.nii.gz", case.hu_zyx, case.geometry)
        return folder

    return make


@pytest.fixture(scope="session")
def make_app() -> Callable[..., Any]:
    """The app as MONAI Label builds it: the class found in main.py, no server."""
    found = get_class_of_subclass_from_file("main", str(APP / "main.py"), "MONAILabelApp")

    def make(studies: Path, conf: Mapping[str, Any] | None = None) -> Any:
        return found(app_dir=str(APP), studies=str(studies), conf=conf or {})

    return make


@dataclass
class RunningServer:
    """``monailabel start_server`` on a loopback port."""

    url: str
    client: MONAILabelClient
    log: Path
    folder: Path
    auth: tuple[str, str] | None = None

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request, as the server's user."""
        return requests.request(method, self.url + path, **{"auth": self.auth, "timeout": START_SECONDS, **more})


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers on free ports, and ends them with the session. A server that does not answer shows its log."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(START_SECONDS)  # MONAILabelClient waits for ever otherwise
    with ExitStack() as running:

        def start(studies: str, folder: Path, conf: Mapping[str, str] | None = None) -> RunningServer:
            server = running.enter_context(running_server(studies, folder, print, free_port(), START_SECONDS, conf or {}))
            return RunningServer(server.url, MONAILabelClient(server.url, tmpdir=str(folder)), server.process.log, folder)

        yield start
    socket.setdefaulttimeout(before)


def _stop_tidily(process: Background, folder: Path) -> None:
    process.stop()
    left = [str(path) for path in (folder / "tmp").glob("flrplan-serve-*")]
    assert not left, f"the served app left its temporary folder behind: {left}"


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., RunningServer]]:
    """Starts ``flrplan serve`` on free ports, and ends it with the session; its temporary files go into ``folder/tmp``."""
    with ExitStack() as running:

        def serve(studies: str, folder: Path, *options: str, auth: tuple[str, str] | None = None) -> RunningServer:
            port = free_port()
            command = [sys.executable, "-m", "flrplan.cli", "serve", "--studies", studies, "--port", str(port), *options]
            (folder / "tmp").mkdir(parents=True, exist_ok=True)
            environment = {
                "TMPDIR": str(folder / "tmp"),
                "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
                "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"),
            }
            process = start("flrplan serve", command, folder / "server.log", folder, environment)
            running.callback(_stop_tidily, process, folder)
            url = f"http://127.0.0.1:{port}"
            process.wait_until_it_answers(f"{url}/auth/", START_SECONDS, print)
            return RunningServer(url, MONAILabelClient(url, tmpdir=str(folder)), process.log, folder, auth)

        yield serve


ANNA, BEN = ("anna", "correct horse"), ("ben", "battery staple")
"""The users of ``served``; anna is its administrator."""


@pytest.fixture(scope="session")
def plain(
    tmp_path_factory: pytest.TempPathFactory, make_studies: Callable[[Path], Path], start_server: Callable[..., Any]
) -> Any:
    """``monailabel start_server`` on two cases."""
    folder = tmp_path_factory.mktemp("plain")
    return start_server(str(make_studies(folder / "studies")), folder)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, make_studies: Callable[[Path], Path], serve: Callable[..., Any]) -> Any:
    """``flrplan serve`` on two cases, for two users."""
    folder = tmp_path_factory.mktemp("served")
    for user in (ANNA, BEN):
        add_user(folder / "users", *user)
    return serve(
        str(make_studies(folder / "studies")),
        folder,
        "--users",
        str(folder / "users"),
        "--admin",
        ANNA[0],
        "--audit",
        str(folder / "audit"),
        auth=ANNA,
    )


@pytest.fixture
def show_log_on_failure(request: pytest.FixtureRequest) -> Iterator[Callable[[RunningServer], None]]:
    """Prints what the server logged during this test; pytest shows it where the test fails."""
    shown: list[tuple[Path, int]] = []

    def show(server: RunningServer) -> None:
        shown.append((server.log, server.log.stat().st_size))

    yield show
    for log, seen in shown:
        with log.open("rb") as file:
            file.seek(seen)
            sys.stdout.write(file.read().decode(errors="replace")[-6000:])
