"""The demo as a whole: Orthanc with its series, the server, and what is left when it ends: nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flrplan.cohort import CaseSize, SyntheticCase, make_case
from flrplan.demo.held_out import DEMO_INDEX, DEMO_SEED
from flrplan.demo.ohif.background import Tell
from flrplan.demo.ohif.browser import open_page
from flrplan.demo.ohif.drive import Driven, drive
from flrplan.demo.ohif.orthanc import LoadedSeries, find_orthanc, running_orthanc
from flrplan.demo.ohif.server import OHIF_PORT, START_SECONDS, Server, require_port, running_server
from flrplan.image.dicom_files import choose_series
from flrplan.image.dicom_write import SYNTHETIC_DESCRIPTION, write_dicom_series


@dataclass(frozen=True)
class Demo:
    """A running demo: its server, the series in Orthanc (the synthetic case first), and the synthetic case with its truth."""

    server: Server
    series: tuple[LoadedSeries, ...]
    case: SyntheticCase


@contextmanager
def running_demo(
    tell: Tell, dicom: Sequence[Path] = (), size: CaseSize = CaseSize.MEDIUM, start_seconds: float = START_SECONDS
) -> Iterator[Demo]:
    """Orthanc with a synthetic case and one CT series of each folder in ``dicom``, and the server on it, while the block runs.

    Each of the two programs has ``start_seconds`` to answer.

    Raises: ServiceError where a program is missing, the port is in use, or one does not start; ImageError for a folder
        without one CT series.
    """
    find_orthanc()
    require_port(OHIF_PORT)
    given = [choose_series(folder) for folder in dicom]
    with TemporaryDirectory(prefix="flrplan-ohif-") as name:
        folder = Path(name)
        tell("starting Orthanc")
        # From here on the folder goes with the programs, too: a patient's data are not left to a process that can be killed.
        with running_orthanc(folder / "orthanc", tell, start_seconds, temporary=folder) as orthanc:
            tell(f"making a synthetic CT ({size})")
            case = make_case(DEMO_SEED, DEMO_INDEX, size)
            written = write_dicom_series(folder / "dicom", case.hu_zyx, case.geometry, case.case_id, SYNTHETIC_DESCRIPTION)
            loaded = [orthanc.load(written)]
            for chosen in given:
                tell(f"loading {len(chosen.slices)} slices of series {chosen.title}")
                for warning in chosen.warnings:
                    tell(f"warning: {warning}")
                loaded.append(orthanc.load(chosen.files))
            tell("starting the MONAI Label server")
            with running_server(orthanc.dicomweb, folder / "server", tell, seconds=start_seconds, temporary=folder) as server:
                yield Demo(server, tuple(loaded), case)


def drive_demo(demo: Demo, screenshots: Path, tell: Tell) -> list[Driven]:
    """Drives OHIF through every series of a running demo, each in a browser of its own. Raises: ServiceError."""
    seen = []
    for series in demo.series:
        tell(f"OHIF, patient {series.patient_id}")
        with open_page() as page:
            seen.append(drive(page, demo.server, series, screenshots, tell))
    return seen
