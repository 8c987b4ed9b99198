"""What an annotator does in OHIF, by a browser: study list, MONAI Label mode, Connect, ``cascade``, Run, look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Compartment
from flrplan.demo.ohif import overlay, viewer_state
from flrplan.demo.ohif.background import Tell
from flrplan.demo.ohif.orthanc import LoadedSeries
from flrplan.demo.ohif.server import Server
from flrplan.errors import ServiceError
from flrplan.image import Geometry, read_label_map

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

MODEL = "cascade"
STEP_SECONDS = 120.0
INFER_SECONDS = 600.0
"""For the whole cascade; the first one also loads the models."""


@dataclass(frozen=True)
class Driven:
    """What was seen in OHIF.

    ``answer_zyx``: the server's label map of compartments on ``geometry``. ``names``: as OHIF lists them. ``agreement``: Dice of
    drawn pixels and answer, by name, in the axial slice. ``centre``: of the overlay, as parts of the viewport, (0, 0) upper left.
    ``pictures``: the screenshots.
    """

    answer_zyx: NDArray[np.uint8]
    geometry: Geometry
    names: tuple[str, ...]
    agreement: dict[str, float]
    centre: tuple[float, float]
    pictures: tuple[Path, ...]


class Visit:
    """One visit to one series; every step is named in its errors, and a failed one leaves a picture."""

    def __init__(self, page: Page, server: Server, screenshots: Path, prefix: str, tell: Tell) -> None:
        self.page, self.server, self.folder, self.prefix, self.tell = page, server, screenshots, prefix, tell
        self.pictures: list[Path] = []
        page.set_default_timeout(STEP_SECONDS * 1000)

    def picture(self, name: str) -> None:
        """Keeps a screenshot."""
        path = self.folder / f"{self.prefix}{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        self.pictures.append(path)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Names what is done in the block, for its errors."""
        from playwright.sync_api import Error

        self.tell(f"  {what}")
        try:
            yield
        except Error as error:
            with suppress(Error):
                self.picture("failed")
            seen = f"see {self.pictures[-1]}; " if self.pictures else ""
            raise ServiceError(
                f"OHIF at {self.server.ohif}: could not {what}: {error.message.strip().splitlines()[0]}; "
                f"{seen}{self.server.process.log_end()}"
            ) from error


def drive(page: Page, server: Server, series: LoadedSeries, screenshots: Path, tell: Tell) -> Driven:
    """Runs :data:`MODEL` on a series in OHIF and compares what is drawn with what the server answered.

    Raises: ServiceError for a step that does not work, and for names, voxels, colours or pixels that are not the answer's.
    """
    prefix = re.sub(r"[^A-Za-z0-9._-]+", "_", series.patient_id) + "-"
    visit = Visit(page, server, screenshots, prefix, tell)
    open_mode(visit, series)
    connect(visit)
    answer_zyx, geometry = run_model(visit)
    names = _listed_names(visit)
    segments = viewer_state.read_segments(page)
    held = viewer_state.read_labelmap(page)
    if held is None:
        raise ServiceError("OHIF holds no label map after Run")
    wrong = [*overlay.compare(answer_zyx, geometry, *held, segments), *overlay.wrong_colors(segments)]
    if not answer_zyx.any():
        wrong.append("the answer has no voxels")
    if wrong:
        visit.picture("failed")
        raise ServiceError(f"OHIF does not hold the answer: {'; '.join(wrong)}")
    with visit.step("look at the overlay"):
        viewer_state.show_place(page, overlay.place_to_look(answer_zyx, geometry))
        page.wait_for_timeout(3000)  # notices fade, the slices are drawn
        visit.picture("4-result")
        picture = viewer_state.read_axial_picture(page)
    found = overlay.agreement(picture, answer_zyx, geometry, segments)
    if not found or min(found.values()) < overlay.MIN_AGREEMENT:
        raise ServiceError(
            f"the overlay in the axial viewport is not the answer: Dice of pixels and voxels {found or 'of nothing'}, "
            f"expected at least {overlay.MIN_AGREEMENT}; see {visit.pictures[-1]}"
        )
    return Driven(answer_zyx, geometry, names, found, overlay.centre_of_overlay(picture), tuple(visit.pictures))


def open_mode(visit: Visit, series: LoadedSeries) -> None:
    """Opens the study of a series in the MONAI Label mode. Raises: ServiceError."""
    page = visit.page
    with visit.step("open the study list"):
        page.goto(visit.server.ohif)
        row = page.get_by_text(series.patient_id, exact=True).first
        row.wait_for()
        banner = page.get_by_role("button", name="Confirm and Hide")
        if banner.count():
            banner.click()
        visit.picture("1-study-list")
    with visit.step("open the study in the MONAI Label mode"):
        row.click()
        page.get_by_text("MONAI Label", exact=True).first.click()
        page.locator("#monailabelServerURL").wait_for()
        page.wait_for_url(lambda url: series.study_uid in url)
        page.wait_for_function(viewer_state.ALL_VIEWPORTS_HAVE_SLICES)
        page.locator("[data-cy='side-panel-header-left']").click()  # folds the list of series away
        page.wait_for_timeout(2000)
        visit.picture("2-mode")


def connect(visit: Visit) -> None:
    """Connects the panel to the server. Raises: ServiceError."""
    page = visit.page
    with visit.step("connect to the server"):
        page.locator(".settingsTable button.actionButton").click()
        page.locator(f".modelSelector:visible option[value='{MODEL}']").first.wait_for(state="attached")
        page.wait_for_function("() => window.services.segmentationService.getLabelmapVolume('1')")
        page.wait_for_timeout(2500)  # the panel sets its colours one second after it has made the segments
        visit.picture("3-connected")


def run_model(visit: Visit) -> tuple[NDArray[np.uint8], Geometry]:
    """Runs :data:`MODEL`; the server's answer and its grid. Raises: ServiceError."""
    page, answers = visit.page, []

    def relay(route: Route) -> None:
        # Chromium does not keep a body of this size for Response.body() to read.
        answers.append(route.fetch(timeout=INFER_SECONDS * 1000))
        route.fulfill(response=answers[0])

    page.route(f"**/infer/{MODEL}**", relay)
    with visit.step(f"run {MODEL}"):
        page.locator(".modelSelector select:visible").first.select_option(MODEL)
        with page.expect_response(lambda r: f"/infer/{MODEL}" in r.url, timeout=INFER_SECONDS * 1000):
            page.locator("button[title='Run Segmentation']:visible").click()
    body = answers[0].body()
    if answers[0].status != 200:
        visit.picture("failed")
        raise ServiceError(f"the server answered {answers[0].status} to Run: {body[:500].decode(errors='replace')}")
    with visit.step("show the answer"):
        page.wait_for_function(
            "() => window.services.segmentationService.getLabelmapVolume('1').voxelManager.getCompleteScalarDataArray().some(v => v)"
        )
    with TemporaryDirectory(dir=visit.server.folder) as folder:
        path = Path(folder, "answer.nrrd")
        path.write_bytes(body)
        label, geometry = read_label_map(path)
    return label.astype(np.uint8), geometry


def _listed_names(visit: Visit) -> tuple[str, ...]:
    """The names of the model's segments as the panel lists them. Raises: ServiceError unless they are the compartments."""
    page = visit.page
    with visit.step("list the segments"):
        page.get_by_text("Class Prompts", exact=True).click()
        page.locator(".modelSelector select:visible").last.select_option(MODEL)
        table = page.locator(".bodyTableContainer table.optionsTable:visible").last  # that of the point prompts comes first
        table.locator(f"td:text-is('{Compartment.REMNANT.label_name}')").wait_for()
        rows = table.locator("tr").all_inner_texts()
    names = tuple(row.strip() for row in rows)
    if sorted(names) != sorted(c.label_name for c in Compartment):
        raise ServiceError(
            f"OHIF lists the segments {', '.join(names)}; expected {', '.join(c.label_name for c in Compartment)}"
        )
    return names
