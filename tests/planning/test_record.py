"""``plan.json`` as a type: what is written is of the form that is declared, and what is read is checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.errors import SettingsError
from flrplan.image import CT, Geometry
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan
from flrplan.planning.index import write_index
from flrplan.planning.record import PlanRecord, checked_plan, plan_schema, read_plan
from flrplan.planning.segments import segments_of

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    grid = Geometry((12, 10, 6), (2.0, 2.0, 5.0))
    liver, crlm, flr = np.zeros((3, *grid.shape_zyx), bool)
    liver[1:5, 2:8, 2:10] = True
    crlm[2, 4, 8] = True
    flr[liver] = True
    flr[:, :, 6:] = False
    masks = {Structure.LIVER: liver, Structure.CRLM: crlm, Structure.FLR: flr}
    ct = CT(np.zeros(grid.shape_zyx, np.int16), grid, "case", "synthetic")
    plan = Plan(CascadeResult(ct, masks, dict.fromkeys(masks, Source.GIVEN), {}, {}, ()), veins={"portal veins": flr})
    segments = segments_of(np.where(liver, 1 + np.arange(12) // 2, 0).astype(np.uint8), liver, crlm, grid, "map")
    plan = Plan(plan.result, veins=plan.veins, segments=segments, compared={"predicted": plan})
    return dict(json.loads(json.dumps(plan.report())))


def test_a_plan_writes_the_declared_keys_and_no_other(report: dict[str, Any]) -> None:
    optional = {"request", "dicom"}
    assert set(report) | optional == set(PlanRecord.__annotations__)
    assert checked_plan(report, "here") == report
    assert report["schema"] == 1
    before = {key: value for key, value in report.items() if key not in ("segments", "liver_part", "compared")}
    before["lesions"] = [{key: value for key, value in lesion.items() if key != "segments"} for lesion in report["lesions"]]
    assert checked_plan(before, "here") == before, "a plan of before knows no segments"


def test_the_published_schema_is_that_of_the_type() -> None:
    assert json.loads((DOCS / "plan.schema.json").read_text(encoding="utf-8")) == json.loads(json.dumps(plan_schema()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "expected a plan of form 1, found 2: another version of flrplan wrote it"),
        (
            {"volumes": {"liver_ml": "much"}},
            "is no plan.json of flrplan: volumes.liver_ml: input should be a valid number, found 'much'",
        ),
        ({"lesions": [{}]}, "lesions.0.number: field required"),
        ({"warnings": None}, "warnings: input should be a valid list, found None"),
    ],
)
def test_what_is_no_plan_is_named_with_its_key(
    change: dict[str, Any], said: str, report: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**report, **change}))
    with pytest.raises(SettingsError, match=re.escape(said)):
        read_plan(tmp_path / "plan.json")


def test_the_page_over_many_cases_links_their_reports_and_says_what_cannot_be_read(
    report: dict[str, Any], tmp_path: Path
) -> None:
    assert write_index(tmp_path) is None
    for name, content in (("case_2", report), ("case_10", {**report, "case": "<b>"}), ("case_3", {"schema": 9})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text(json.dumps(content))
    (tmp_path / "case_2" / "report.html").touch()
    page = write_index(tmp_path)
    assert page is not None
    text = page.read_text(encoding="utf-8")
    assert text.index("case_2") < text.index("case_3") < text.index("case_10")
    assert '<a href="case_2/report.html">case_2</a>' in text
    assert "could not be read: plan.json: expected a plan of form 1, found 9" in text
    assert str(tmp_path) not in text
    assert "1 resected" in text
