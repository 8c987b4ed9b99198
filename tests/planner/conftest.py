"""Shared by the tests of the planner's page: servers on loopback, uploads, a small DICOM series."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from flrplan.cohort import SyntheticCase
from flrplan.image import Geometry
from flrplan.image.dicom_write import write_dicom_series
from flrplan.planner import Jobs, planner_router
from flrplan.planner.upload import Upload
from flrplan.server.serve.access import Door


@contextmanager
def _serve(jobs: Jobs) -> Iterator[str]:
    app = FastAPI()
    app.include_router(planner_router(jobs))
    app.add_middleware(Door, users=None)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/planner/"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def serve_planner() -> Callable[[Jobs], AbstractContextManager[str]]:
    """The address of the page, served as ``flrplan serve`` does: behind its door, on a free loopback port."""
    return _serve


@pytest.fixture(scope="session")
def series(small_case: SyntheticCase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve slices of a small CT, called as a person's export has them."""
    folder = tmp_path_factory.mktemp("exports") / "DOE JOHN 1960"
    array = small_case.hu_zyx[30:42]
    geometry = Geometry(array.shape[::-1], small_case.geometry.spacing_mm)
    for path in write_dicom_series(folder, array, geometry, "DOE-1960", "Portal venous"):
        path.rename(path.with_name(path.name.replace("slice", "DOE_JOHN")))
    return folder


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., Upload]:
    """An upload of these files, as a form or a zip gives them; at most 1 MB."""

    def make(files: dict[str, bytes], folder: str = "upload", largest_bytes: int = 1_000_000) -> Upload:
        made = Upload(tmp_path / folder, largest_bytes)
        for name, content in files.items():
            with made.new_file(name) as file:
                made.write(file, content)
        return made

    return make
