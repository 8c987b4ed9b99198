"""The plain MONAI Label server with this app, as the README starts it, on loopback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import flrplan
from flrplan.demo.ohif.background import Background, Tell, is_port_free, start
from flrplan.demo.ohif.direct import LOOPBACK
from flrplan.errors import ServiceError

OHIF_PORT = 8000
"""The MONAI Label panel of OHIF asks ``http://<host>:8000/``, whatever address it came from."""
START_SECONDS = 300.0
APP = Path(flrplan.__file__).resolve().parents[2]
"""The app of this checkout: the folder with main.py."""


@dataclass(frozen=True)
class Server:
    """A running server; ``folder`` holds its log, cache, sessions and temporary files."""

    url: str
    folder: Path
    process: Background

    @property
    def ohif(self) -> str:
        """Address of the viewer."""
        return f"{self.url}/ohif/"


@contextmanager
def running_server(
    studies: str,
    folder: Path,
    tell: Tell,
    port: int = OHIF_PORT,
    seconds: float = START_SECONDS,
    conf: Mapping[str, str] = MappingProxyType({}),
    temporary: Path | None = None,
) -> Iterator[Server]:
    """``monailabel start_server`` on ``studies`` (a DICOMweb URL or a folder) while the block runs; ``conf``: settings of the app.

    ``temporary``: see :func:`flrplan.demo.ohif.background.start`.

    Raises: ServiceError where MONAI Label or the app is missing, the port is in use, or it does not answer in time.
    """
    command = [*_command(studies), "--host", LOOPBACK, "--port", str(port)]
    for key, value in conf.items():
        command += ["--conf", key, value]
    require_port(port)
    private = folder / "tmp"  # MONAI Label leaves converted files in the temporary folder
    private.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "TMPDIR": str(private),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"),
    }
    # Relative paths: the host's start script breaks at spaces.
    process = start("the MONAI Label server", command, folder / "server.log", APP.parent, environment, temporary)
    server = Server(f"http://{LOOPBACK}:{port}", folder, process)
    try:
        process.wait_until_it_answers(f"{server.url}/info/", seconds, tell)
        yield server
    finally:
        process.stop()


def require_port(port: int) -> None:
    """Raises: ServiceError where another program listens on this loopback port."""
    if not is_port_free(port):
        raise ServiceError(
            f"port {port} is in use, perhaps by another MONAI Label server; end that program (`ss -ltnp 'sport = :{port}'` "
            f"names it) and try again. OHIF's MONAI Label panel asks port {OHIF_PORT} and no other"
        )


def _command(studies: str) -> list[str]:
    program = Path(sys.executable).parent / "monailabel"
    if not program.is_file():
        raise ServiceError(f"the monailabel command is not beside {sys.executable}; run make install")
    if not (APP / "main.py").is_file():
        raise ServiceError(f"no MONAI Label app in {APP}; run this from a checkout of the repository (make install)")
    return [str(program), "start_server", "--app", APP.name, "--studies", studies]
