"""The page in headless Chromium, with the demo models: a folder dropped, its plan read and deleted. Skips where there is no Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import SimpleITK as sitk

from flrplan.demo.ohif.browser import find_chromium, open_page, require_playwright
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import ServiceError
from flrplan.image import CT, Geometry
from flrplan.image.dicom_write import write_dicom_series
from flrplan.planner import Jobs, PlannerSettings

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(300)
LAPTOP = {"width": 1280, "height": 720}


@pytest.fixture(scope="module")
def url(
    serve_planner: Callable[[Jobs], AbstractContextManager[str]],
    demo_store: ModelStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    settings = PlannerSettings(tmp_path_factory.mktemp("jobs"))
    with serve_planner(Jobs(settings, lambda: Cascade(demo_store, CascadeSettings(device="cpu")))) as address:
        yield address


@pytest.fixture(scope="module")
def folder(small_ct: CT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 133 files, more than a browser hands out at once: the slices, and what a medium has beside them."""
    folder = tmp_path_factory.mktemp("medium") / "DOE JOHN"
    slices = write_dicom_series(folder / "IMAGES", small_ct.array_zyx, small_ct.geometry, "DOE", "Portal venous")
    for number in range(133 - len(slices)):
        (folder / "IMAGES" / f"viewer{number}.txt").write_text("no image")
    return folder


@pytest.fixture
def page() -> Iterator[Page]:
    try:
        find_chromium()
        require_playwright()
    except ServiceError as error:
        pytest.skip(str(error).split(";")[0])
    with open_page() as page:
        page.set_viewport_size(LAPTOP)
        yield page


def drop(page: Page, path: Path) -> None:
    """Drops a file or folder of this machine onto the page, as a person does from their files."""
    devices = page.context.new_cdp_session(page)
    box = page.locator("#drop").bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devices.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 20, "y": box["y"] + 20, "data": data})


def test_a_dropped_folder_is_planned_read_taken_away_and_deleted(
    page: Page, url: str, folder: Path, small_ct: CT, tmp_path: Path
) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    assert page.locator("#plan").is_disabled()
    drop(page, folder)
    page.get_by_text("133 files, ").wait_for()

    page.fill("#height_cm", "1.72")
    page.click("#plan")
    page.get_by_role("alert").get_by_text("which looks like metres: 172 cm?").wait_for()
    page.fill("#height_cm", "172")
    page.locator("#plan").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/planner/plans/*/")
    page.get_by_role("heading", name="Download").wait_for(timeout=240_000)

    page.wait_for_load_state()  # of the report in its frame, too; from then on, Chromium without a screen may lose a click beside it
    with page.expect_download() as taken:
        page.get_by_role("link", name="planning.nii.gz").press("Enter")
    assert taken.value.suggested_filename == "planning.nii.gz"
    taken.value.save_as(tmp_path / "planning.nii.gz")
    assert small_ct.geometry.is_same_grid(Geometry.of(sitk.ReadImage(str(tmp_path / "planning.nii.gz"))))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits on a small laptop"

    page.get_by_role("button", name="Delete this plan now").press("Enter")
    page.wait_for_url(url)
    page.go_back()
    page.get_by_text("It was deleted, by its user or after its time").wait_for()
    assert [text for text in said if "favicon" not in text and "404" not in text and "400" not in text] == []
    assert {urlsplit(address).netloc for address in asked if address.startswith("http")} == {urlsplit(url).netloc}


def test_the_page_says_what_is_no_ct_and_goes_on(page: Page, url: str, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    page.goto(url)
    page.set_input_files("#file", tmp_path / "report.pdf")
    page.click("#plan")
    page.get_by_role("alert").get_by_text("no CT in the upload (report.pdf)").wait_for()
    assert page.locator("#plan").is_enabled()
    page.evaluate("document.getElementById('form').dataset.largestBytes = 3")
    page.set_input_files("#file", tmp_path / "report.pdf")
    page.get_by_role("alert").get_by_text("This is larger than 2.1 GB").wait_for()
    assert page.locator("#plan").is_disabled()
