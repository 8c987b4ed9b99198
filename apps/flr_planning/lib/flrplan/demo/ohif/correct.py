"""What a reader does in OHIF: opens a stored label in the Segmentation mode, paints with the brush, sends it back by "Export DICOM SEG"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flrplan.demo.ohif.background import Tell
from flrplan.demo.ohif.drive import Visit
from flrplan.demo.ohif.orthanc import LoadedSeries
from flrplan.demo.ohif.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

PointLPS = Sequence[float]
"""A place in the patient, LPS, mm."""

_VIEW = "const view = window.cornerstone.getEnabledElements()[0].viewport;"
_SHOW_SLICE = f"""z => {{
  {_VIEW}
  const away = view.getImageIds().map(id => Math.abs(window.cornerstone.metaData.get('imagePlaneModule', id).imagePositionPatient[2] - z));
  return view.setImageIdIndex(away.indexOf(Math.min(...away)));
}}"""
_ON_SCREEN = f"""point => {{
  {_VIEW}
  const box = view.canvas.getBoundingClientRect(), place = view.worldToCanvas(point);
  return [box.x + place[0], box.y + place[1]];
}}"""
_LOADED = "() => window.services?.segmentationService?.getSegmentations().length > 0"
_HAS_IMAGE = "() => window.cornerstone?.getEnabledElements?.().some(e => e.viewport.getImageData?.())"
_MENUS = "button[aria-haspopup='menu']:visible"


def correct(
    page: Page,
    server: Server,
    series: LoadedSeries,
    segment: str,
    stroke: tuple[PointLPS, PointLPS],
    reader: str,
    screenshots: Path,
    tell: Tell,
) -> tuple[Path, ...]:
    """Paints ``segment`` from one place to another of the same slice, over the first stored label of a study, and exports it as ``reader``.

    Returns: screenshots. Raises: ServiceError for a step that does not work.
    """
    visit = Visit(page, server, screenshots, "correct-", tell)
    page.on("dialog", lambda dialog: dialog.accept(reader))
    with visit.step("open the label in the Segmentation mode"):
        page.goto(f"{server.ohif}segmentation?StudyInstanceUIDs={series.study_uid}")
        label = page.locator("[data-cy='study-browser-thumbnail-no-image']").first
        label.wait_for()
        page.wait_for_function(_HAS_IMAGE)
        page.wait_for_timeout(2000)
        banner = page.get_by_role("button", name="Confirm and Hide")
        if banner.count():
            banner.click()
        label.dblclick()
        page.get_by_role("button", name="Yes").first.click()
        page.wait_for_function(_LOADED)
        page.evaluate(_SHOW_SLICE, float(stroke[0][2]))
        page.wait_for_timeout(3000)
        visit.picture("1-opened")
    with visit.step(f"paint {segment}"):
        page.locator("[data-cy='data-row']").filter(has=page.get_by_text(segment, exact=True)).first.click()
        page.locator("[data-cy='Brush']").click()
        page.wait_for_timeout(1000)
        start, end = (page.evaluate(_ON_SCREEN, [float(mm) for mm in place]) for place in stroke)
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=8)
        page.mouse.up()
        page.wait_for_timeout(2000)
        visit.picture("2-painted")
    with visit.step("send it back by Export DICOM SEG"):
        right = page.locator("[data-cy='side-panel-header-right']").bounding_box() or {"x": 0.0, "y": 0.0}
        menus = [(m, m.bounding_box() or {"x": 0.0, "y": 0.0}) for m in page.locator(_MENUS).all()]
        next(m for m, box in menus if box["x"] >= right["x"] and box["y"] > right["y"]).click()
        # By keys: on its way from one menu to the other a mouse crosses others, which on a busy machine close the second.
        page.get_by_role("menuitem").filter(has_text="Export & Download").press("ArrowRight")
        page.get_by_role("menuitem").filter(has_text="Export DICOM SEG").press("Enter")
        page.locator("input[type='text']:visible").first.fill(f"corrected by {reader}")
        visit.picture("3-name")
        with page.expect_response(lambda r: r.request.method == "POST" and r.url.rstrip("/").endswith("/studies")):
            page.get_by_role("button", name="Save").last.click()
        page.get_by_text("Label stored").first.wait_for()
        page.wait_for_timeout(700)  # it fades in
        visit.picture("4-stored")
    return tuple(visit.pictures)
