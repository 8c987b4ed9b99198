"""The report of a plan as page and PDF: what stands in it, that it needs nothing else, and what becomes of plans without a cut."""

from __future__ import annotations

import html
import importlib
import json
import re
import shutil
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

from flrplan.anatomy import Structure
from flrplan.errors import OutputError
from flrplan.image import CT, Geometry
from flrplan.method import CascadeResult, Source
from flrplan.planning import Clinical, LiverState, Plan, fonts
from flrplan.planning.interval import Bounds, Interval
from flrplan.planning.patient import Patient
from flrplan.planning.picture import key_views
from flrplan.planning.report import report_content, write_report
from flrplan.planning.segments import segments_of

GRID = Geometry((40, 36, 14), (2.0, 2.0, 5.0), (-40.0, -36.0, 100.0))


def plan_of(flr_to: int, state: LiverState | None = LiverState.INJURED) -> Plan:
    """A box of 48 x 48 x 50 mm; remnant are its voxels before column ``flr_to``, a metastasis lies at columns 26 to 28."""
    liver, crlm, flr = np.zeros((3, *GRID.shape_zyx), bool)
    liver[2:12, 6:30, 8:32] = True
    crlm[5:7, 14:17, 26:29] = True
    flr[liver] = True
    flr[:, :, flr_to:] = False
    ct = CT(np.where(liver, 100, -50).astype(np.int16), GRID, "ca<se & 1", "synthetic")
    masks = {Structure.LIVER: liver, Structure.CRLM: crlm, Structure.FLR: flr}
    result = CascadeResult(ct, masks, dict.fromkeys(masks, Source.GIVEN), {}, {}, ("a warning",))
    return Plan(result, clinical=Clinical(Patient(170.0, 80.0), state), veins={"portal veins": flr & ~crlm})


class _Page(HTMLParser):
    """Sources and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:", "#"))]

    def handle_data(self, data: str) -> None:
        self.words += data + " "


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, plan_of(20))
    return folder


def test_the_page_says_the_remnant_the_threshold_and_each_metastasis_and_needs_no_other_file(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    page = _Page(text)
    parenchyma = (24 * 24 * 10 - 18) * 0.02
    flr = 12 * 24 * 10 * 0.02  # 57.6 ml
    assert f"FLR {flr:.0f} ml" in page.words
    assert f"{100 * flr / parenchyma:.1f} %" in page.words
    assert "met: 40 % over measured liver without tumours (Azoulay 2000; fibrosis or cirrhosis), here 50.2 %" in page.words
    assert re.search(r"1\s+0\.4\s+\S+\s+resected\s+12", page.words), "number, 18 voxels, diameter, fate, six columns of 2 mm"
    assert "part of the liver: not computable: sectors and segments end at planes" in page.words, "never guessed"
    assert "a warning" in page.words
    assert "for research use only" in page.words
    assert "Plan of ca<se & 1" in page.words, "escaped"
    assert page.outside == []
    assert not re.search(r"https?://|url\(|@import", text.replace("http://www.w3.org", ""))
    assert len(text) < 3e6


def test_the_3d_view_holds_closed_parts_in_millimetres(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    scene = json.loads(re.search(r'id="scene">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert [part["name"] for part in scene["parts"]] == ["cut", "resected", "portal veins", "remnant", "resection"]
    assert scene["radius"] == pytest.approx(np.linalg.norm([48, 48, 50]) / 2, rel=0.1)
    label = scene["labels"][0]
    assert (label["text"], label["moves"]) == ("1", True)
    assert label["place"] == pytest.approx([15, -5, -5], abs=0.5)
    assert scene["away"][0] > 0.9 * scene["radius"], "the resection lies to the left"


def test_the_pdf_has_two_pages_and_no_clock(written: Path, tmp_path: Path) -> None:
    pdf = (written / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") == 2
    assert b"(D:2000" in pdf


def test_what_is_not_defined_is_said_in_words(tmp_path: Path) -> None:
    nothing, tumour = plan_of(0), plan_of(20)
    masks = {**tumour.masks, Structure.CRLM: tumour.masks[Structure.LIVER]}
    for folder, plan in (
        ("no remnant", replace(nothing, compared={"predicted": nothing})),
        (
            "no parenchyma",
            replace(nothing, result=replace(tumour.result, masks=masks), raw=replace(tumour.result, masks=masks)),
        ),
    ):
        content = report_content(plan, with_scene=False)
        texts = [cell for table in content.tables for row in table.rows for cell in row]
        assert "undefined" in " ".join(texts), folder
        assert not [t for t in texts if "nan" in t.split()], folder
    assert (
        "not applicable: 40 % over measured liver without tumours (Azoulay 2000; fibrosis or cirrhosis), here no parenchyma"
        in (text for _, text in content.verdicts)
    )


def test_the_footer_of_a_very_long_name_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Canvas, "drawString", lambda _canvas, _x, _y, text: lines.append(text))
    plan = plan_of(20)
    write_report(tmp_path, replace(plan, result=replace(plan.result, ct=replace(plan.ct, name="x" * 250))))
    assert len(lines) == 2
    assert all(stringWidth(line, "DejaVuSans", 6.5) < 500 < A4[0] for line in lines)


@pytest.mark.parametrize("has_font", [True, False])
def test_letters_of_other_scripts_are_shown_or_stand_as_numbers_and_never_as_boxes(
    has_font: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_font:
        monkeypatch.setattr("flrplan.planning.fonts.fallback", lambda: None)
        monkeypatch.setattr("flrplan.planning.pdf.fallback", lambda: None)
    elif fonts.fallback() is None:
        pytest.skip("no font with Chinese, Japanese and Korean letters on this system")
    name = "王小明 & <\U0001fa7a>"
    lines: list[str] = []
    monkeypatch.setattr(Canvas, "drawString", lambda _canvas, _x, _y, text: lines.append(text))
    plan = plan_of(20)
    plan = replace(plan, result=replace(plan.result, ct=replace(plan.ct, name=name)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")  # matplotlib's, of a box
        plan.save(tmp_path)
    footer = "".join(lines[: len(lines) // 2])
    expected = "王小明 & <U+1FA7A>" if has_font else "U+738B U+5C0F U+660E & <U+1FA7A>"
    assert expected in footer
    assert html.escape(name, quote=False) in (tmp_path / "report.html").read_text(encoding="utf-8"), (
        "a browser has its own fonts"
    )


@pytest.mark.parametrize(("flr_to", "said"), [(40, "the resection is empty"), (0, "the remnant is empty")])
def test_a_plan_without_a_cut_has_its_report(flr_to: int, said: str, tmp_path: Path) -> None:
    write_report(tmp_path, plan_of(flr_to, None))
    words = _Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert said in words
    assert "no threshold is judged: the state of the liver is not stated" in words


def test_saving_draws_each_key_image_and_makes_each_mesh_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(module: str, name: str) -> None:
        real = getattr(importlib.import_module(module), name)
        monkeypatch.setattr(f"{module}.{name}", lambda *a, **k: (made.append(name), real(*a, **k))[1])

    counted("flrplan.planning.picture", "_draw")
    counted("flrplan.planning.meshes", "surface_mesh")
    counted("flrplan.planning.meshes", "cut_mesh")
    plan = replace(plan_of(20), veins={})
    plan.save(tmp_path)
    assert made.count("_draw") == len(plan.key_images) == 4
    assert made.count("surface_mesh") == 4, "liver, remnant, resection, the metastasis"
    assert made.count("cut_mesh") == 1
    with Image.open(tmp_path / "plan.png") as picture:
        drawn = np.asarray(picture.convert("RGB"))
    first = plan.key_images[0].rgb
    top = 20 + (max(len(image.rgb) for image in plan.key_images) - len(first)) // 2
    assert np.array_equal(drawn[len(drawn) - top - len(first) : len(drawn) - top, 20 : 20 + first.shape[1]], first)


def test_no_report_of_an_earlier_plan_stays_where_saving_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = [tmp_path / name for name in ("report.html", "report.pdf", "plan.png", "plan.json")]
    for path in earlier:
        path.write_text("of an earlier plan")
    (tmp_path / "meshes").mkdir()
    for name in (".part-0123abcd-planning.nii.gz", "meshes/.part-0123abcd-liver.stl"):  # of one that was killed
        earlier.append(tmp_path / name)
        earlier[-1].write_text("half")
    monkeypatch.setattr("flrplan.planning.picture.write_picture", killed)
    with pytest.raises(KeyboardInterrupt):
        plan_of(10).save(tmp_path)
    assert [path for path in earlier if path.exists()] == []


def test_names_that_are_not_utf8_are_saved_in_letters_that_are(tmp_path: Path) -> None:
    """Linux gives the bytes of such a name as lone surrogates, which no file of UTF-8 can hold."""
    plan = plan_of(20)
    odd = "M\udcfcller"
    ct = replace(plan.ct, name=odd, source=f"/x/{odd}.nii.gz", warnings=(f"{odd}: look",))
    result = replace(plan.result, ct=ct, warnings=ct.warnings)
    request = {"ct": [f"/x/{odd}.nii.gz", 1, 2]}
    replace(plan, result=result, request=request).save(tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (content["case"], content["warnings"][0]) == (r"M\udcfcller", r"M\udcfcller: look")
    assert content["request"] == request, "so it is known for the same request again"
    assert r"M\udcfcller" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "report.pdf").is_file()


def test_a_plan_is_not_saved_over_a_file_that_it_is_made_of(tmp_path: Path) -> None:
    ct = tmp_path / "planning.nii.gz"
    ct.write_bytes(b"the CT")
    with pytest.raises(OutputError, match=r"planning\.nii\.gz: the plan is made of this file and would replace it"):
        replace(plan_of(20), request={"ct": [str(ct), 1, 2], "options": {"raw": False}}).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ct.name]
    assert ct.read_bytes() == b"the CT"


def test_a_liver_in_one_thick_slice_has_its_report(tmp_path: Path) -> None:
    plan = plan_of(20)
    grid = replace(GRID, spacing_mm=(2.0, 2.0, 12.0))
    only = np.arange(GRID.size_xyz[2])[:, None, None] == 5
    masks = {structure: mask & only for structure, mask in plan.masks.items()}
    write_report(tmp_path, Plan(replace(plan.result, ct=replace(plan.ct, geometry=grid), masks=masks)))
    assert "resection" in _Page((tmp_path / "report.html").read_text(encoding="utf-8")).words


def test_the_interval_is_shown_and_where_there_is_none_the_reason(tmp_path: Path) -> None:
    plan = plan_of(20)
    sure = Interval("given", True, 300, Bounds(50.0, 64.0), Bounds(0.44, 0.56), {30.0: 0.02}, calibrated_on="synthetic cases")
    write_report(tmp_path, replace(plan, interval=sure))
    words = _Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert "90 % interval: 44 to 56 %, 50 to 64 ml" in words
    assert sure.describe() in words
    content = report_content(replace(plan, interval=Interval("given", False, 3, not_valid=("3 cases",))), with_scene=False)
    assert content.sure == ("no interval", "not calibrated: 3 cases")


def test_plans_beside_it_are_compared_and_their_cut_is_drawn(tmp_path: Path) -> None:
    other = replace(plan_of(28), remark="arithmetic, not advice")
    plan = replace(plan_of(20), compared={"predicted": other})
    write_report(tmp_path, plan)
    words = _Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert re.search(r"metastases\s+1 resected\s+1 cut through", words)
    assert "arithmetic, not advice" in words
    assert "white, dash-dotted: the cut of the plan “predicted”" in words


def test_segments_of_a_map_stand_beside_the_metastases_and_in_a_table_and_the_report_keeps_its_two_pages(
    tmp_path: Path,
) -> None:
    plan = plan_of(20)
    liver = plan.masks[Structure.LIVER]
    given = np.where(liver, np.clip((np.arange(40) - 5) // 3, 1, 8), 0).astype(np.uint8)  # V from column 20 on
    plan = replace(plan, segments=segments_of(given, liver, liver & False, GRID, "map"))
    many = plan.masks[Structure.CRLM]
    many[5:7, 8:28:4, 9:25:4] = True
    plan = replace(plan, compared={"predicted": plan, "at least 30 %": plan})
    write_report(tmp_path, plan)
    words = _Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert re.search(r"largest diameter, mm\s+segment\s+fate", words)
    assert re.search(r"1\s+0\.4\s+\S+\s+VII\s+resected", words)
    assert re.search(r"Segments\s+I\s+II\s+III\s+IV\s+V\s+VI\s+VII\s+VIII\s+liver, ml", words)
    assert "resected: V, VI, VII, VIII whole (right hepatectomy); names of operations: Brisbane 2000, HPB 2:333" in words
    assert "part of the liver: Couinaud's segments by the given map" in words
    assert "not computable: sectors" not in words
    assert len(re.findall(r"V, VI, VII, VIII whole", words)) == 4, "the table, and beside the two others"
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") == 2


def test_key_images_show_the_cut_and_the_smallest_margin_in_radiological_view() -> None:
    plan = plan_of(20)
    plan.masks[Structure.FLR][4:8, 6:30, 20:24] = True  # most of the cut across z lies where the remnant has a shelf
    axial, coronal, sagittal, *_ = key_views(plan.ct, plan.label_zyx, plan.parts.lesions)
    assert (axial.letters, coronal.letters, sagittal.letters) == (("R", "L"), ("R", "L"), ("A", "P"))
    assert axial.spacing_mm == (2.0, 2.0)
    assert coronal.spacing_mm == sagittal.spacing_mm == (5.0, 2.0)
    resected = np.argwhere(axial.label == 2)
    assert resected[:, 1].min() > np.argwhere(axial.label == 1)[:, 1].min(), "the patient's left is on the right"


def test_in_a_browser_the_3d_view_turns_and_shows_the_metastasis_and_the_page_prints_on_two_sheets(written: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="flrplan[ohif] is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    errors: list[str] = []
    with playwright.sync_playwright() as running:
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = running.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_context(offline=True).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((written / "report.html").as_uri())
        page.get_by_role("button", name="from the left").click()
        for part in ("remnant", "portal veins", "resection"):
            page.get_by_role("checkbox", name=part, exact=True).uncheck()
        yellow = page.evaluate(
            """() => { const canvas = document.querySelector("canvas"), gl = canvas.getContext("webgl");
            const seen = new Uint8Array(4 * canvas.width * canvas.height);
            gl.readPixels(0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, seen);
            let count = 0;
            for (let k = 0; k < seen.length; k += 4) if (seen[k] > 100 && seen[k + 1] > 80 && seen[k + 2] < 20) count++;
            return count; }"""
        )
        page.evaluate("document.querySelector('h1').textContent = 'x'.repeat(250)")  # a file may be called so
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a long name wraps"
        sheets = page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n")
        browser.close()
    assert errors == []
    assert yellow > 50
    assert sheets == 2
