"""Debian's Orthanc with its DICOMweb plugin: empty, on loopback, its data in a folder that is given to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from flrplan.demo.ohif.background import Tell, free_port, start
from flrplan.demo.ohif.direct import LOOPBACK, ask
from flrplan.errors import ServiceError
from flrplan.files import write_json

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
INSTALL = "on Debian or Ubuntu: apt-get install --no-install-recommends orthanc orthanc-dicomweb"
START_SECONDS = 60.0
_REQUEST_SECONDS = 60.0
_PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
"""Where Orthanc lies; Debian's is not on a plain user's PATH."""


@dataclass(frozen=True)
class LoadedSeries:
    """A CT series in Orthanc."""

    patient_id: str
    study_uid: str
    series_uid: str


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc; ``url`` is that of its REST API."""

    url: str

    @property
    def dicomweb(self) -> str:
        """What MONAI Label takes as ``--studies``."""
        return f"{self.url}/dicom-web"

    def load(self, files: Iterable[Path]) -> LoadedSeries:
        """Stores the DICOM files of one series. Raises: ServiceError where Orthanc refuses one, or answers nothing."""
        parent = ""
        for file in files:
            answer = self._ask("POST", "/instances", file.read_bytes())
            if not answer.ok:
                raise ServiceError(f"Orthanc refused {file} ({answer.status_code}): {answer.text[:300]}")
            parent = str(answer.json()["ParentSeries"])
        series = self._ask("GET", f"/series/{parent}").json()
        study = self._ask("GET", f"/studies/{series['ParentStudy']}").json()
        return LoadedSeries(
            str(study["PatientMainDicomTags"]["PatientID"]),
            str(study["MainDicomTags"]["StudyInstanceUID"]),
            str(series["MainDicomTags"]["SeriesInstanceUID"]),
        )

    def _ask(self, method: str, path: str, data: bytes | None = None) -> requests.Response:
        try:
            return ask(method, f"{self.url}{path}", _REQUEST_SECONDS, data)
        except requests.RequestException as error:
            raise ServiceError(
                f"Orthanc at {self.url} did not answer {method} {path} ({error}); start the demo again"
            ) from error


def find_orthanc() -> Path:
    """The program. Raises: ServiceError that says how to install it, or its plugin."""
    found = shutil.which("Orthanc", path=_PLACES) or shutil.which("Orthanc")
    if found is None:
        raise ServiceError(f"Orthanc, the DICOM server of this demo, is not installed; {INSTALL}")
    if not PLUGIN.exists():
        raise ServiceError(f"Orthanc has no DICOMweb plugin ({PLUGIN} is missing); {INSTALL}")
    return Path(found)


@contextmanager
def running_orthanc(
    folder: Path, tell: Tell, seconds: float = START_SECONDS, temporary: Path | None = None
) -> Iterator[Orthanc]:
    """An empty Orthanc on a free loopback port while the block runs. Raises: ServiceError where it does not answer in time.

    ``temporary``: see :func:`flrplan.demo.ohif.background.start`.
    """
    program, port = find_orthanc(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "Name": "flrplan",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": port,
        "HttpBindAddresses": [LOOPBACK],  # known from Orthanc 1.12.10 on
        "RemoteAccessAllowed": False,  # older ones listen on all interfaces, and answer 401 to every other machine
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    write_json(folder / "orthanc.json", config)
    orthanc = Orthanc(f"http://{LOOPBACK}:{port}")
    command = [str(program), str(folder / "orthanc.json")]
    process = start("Orthanc", command, folder / "orthanc.log", folder, temporary=temporary)
    try:
        process.wait_until_it_answers(f"{orthanc.dicomweb}/studies", seconds, tell)
        yield orthanc
    finally:
        process.stop()
