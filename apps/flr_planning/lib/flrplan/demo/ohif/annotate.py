"""What an annotator does in OHIF's MONAI Label mode beside running a model: next sample, a click, submit, update the model."""

from __future__ import annotations

from collections.abc import Sequence

from flrplan.demo.ohif import viewer_state
from flrplan.demo.ohif.drive import INFER_SECONDS, Visit, connect
from flrplan.errors import ServiceError

PointLPS = Sequence[float]
"""A place in the patient, LPS, mm."""

_ON_SCREEN = f"""point => {{
  const view = window.cornerstone.getEnabledElements().map(e => e.viewport).find(v => v.id === '{viewer_state.AXIAL}');
  const box = view.canvas.getBoundingClientRect(), place = view.worldToCanvas(point);
  return [box.x + place[0], box.y + place[1]];
}}"""
_TAB = ".tab:has(label:text-is('{}'))"


def next_sample(visit: Visit, strategy: str) -> str:
    """Asks the panel for the next sample of a strategy, and goes there; its StudyInstanceUID. Raises: ServiceError."""
    page = visit.page
    tab = page.locator(_TAB.format("Active Learning"))
    with visit.step(f"ask {strategy} for the next sample"):
        tab.locator("label").click()
        tab.locator("select").select_option(strategy)
        with page.expect_response(lambda r: f"/activelearning/{strategy}" in r.url) as asked:
            tab.get_by_role("button", name="Next Sample").click()
        study = str(asked.value.json().get("StudyInstanceUID") or "")
        page.locator(".nextSampleForm").first.wait_for()
        page.wait_for_timeout(1000)
        visit.picture("next-sample")
        page.once("dialog", lambda dialog: dialog.accept())
        page.locator(".nextSampleForm button[type='submit']").click()
        page.wait_for_url(lambda url: bool(study) and study in url)
        page.locator("#monailabelServerURL").wait_for()
        page.wait_for_function(viewer_state.ALL_VIEWPORTS_HAVE_SLICES)
    connect(visit)
    return study


def click(visit: Visit, model: str, label: str, place: PointLPS) -> None:
    """Clicks one point of a label in the axial viewport, and runs the model of clicks. Raises: ServiceError."""
    page = visit.page
    tab = page.locator(_TAB.format("Point Prompts"))
    with visit.step(f"click {label}"):
        tab.locator("label").first.click()
        tab.locator("select").select_option(model)
        tab.locator("tr.clickable-row").filter(has=page.locator(f"td:text-is('{label}')")).click()
        viewer_state.show_place(page, place)
        page.wait_for_timeout(2000)
        page.mouse.click(*page.evaluate(_ON_SCREEN, [float(mm) for mm in place]))
        page.wait_for_timeout(1000)
        visit.picture(f"click-{label}")
    with visit.step(f"run {model}"):
        with page.expect_response(lambda r: f"/infer/{model}" in r.url, timeout=INFER_SECONDS * 1000) as asked:
            tab.locator("button[title='Run PointPrompts']").click()
        if not asked.value.ok:
            raise ServiceError(f"the server answered {asked.value.status} to a click on {label}")
        page.wait_for_timeout(3000)
        visit.picture(f"clicked-{label}")


def submit(visit: Visit, reader: str) -> None:
    """Submits what is drawn, as ``reader``. Raises: ServiceError."""
    page = visit.page
    with visit.step("submit the label"):
        page.once("dialog", lambda dialog: dialog.accept(reader))
        page.locator("#flrplan-submit").click()
        page.get_by_text("Label stored").first.wait_for()
        page.wait_for_timeout(700)  # it fades in
        visit.picture("submitted")


def update_model(visit: Visit) -> None:
    """Starts the trainings. Raises: ServiceError."""
    page = visit.page
    tab = page.locator(_TAB.format("Active Learning"))
    with visit.step("update the model"):
        if not tab.get_by_role("button", name="Update Model").is_visible():
            tab.locator("label").click()
        with page.expect_response(lambda r: r.request.method == "POST" and r.url.rstrip("/").endswith("/train")) as asked:
            tab.get_by_role("button", name="Update Model").click()
        if not asked.value.ok:
            raise ServiceError(f"the server answered {asked.value.status} to Update Model: {asked.value.text()[:500]}")
        page.wait_for_timeout(1500)
        visit.picture("update-model")
