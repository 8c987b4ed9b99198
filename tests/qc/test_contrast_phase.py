"""The aorta is found in front of a spine, and its HU tell the contrast phase; a small body whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.image import CT, Geometry
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan
from flrplan.qc import QcCase, Severity, check_case

SHAPE, MM = (24, 88, 112), (5.0, 2.5, 2.5)  # 120 x 220 x 280 mm


def body(aorta: int | None, spine: bool = True, liver_hu: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """HU and liver: a body with a spine of spongy bone at the back, an aorta of 20 mm width to the left before it, and the liver on the right."""
    z, y, x = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(SHAPE, MM, strict=True)), indexing="ij")
    rng = np.random.default_rng(0)
    hu = np.where(((y - 110) / 100) ** 2 + ((x - 140) / 130) ** 2 < 1, 50.0, -1000.0)
    liver = ((z - 60) / 45) ** 2 + ((y - 90) / 60) ** 2 + ((x - 80) / 55) ** 2 < 1
    hu[liver] = liver_hu
    if aorta is not None:
        hu[(y - 125) ** 2 + (x - 155) ** 2 < 10**2] = aorta
    hu += rng.normal(0, 12, SHAPE)
    if spine:
        bone = (y - 165) ** 2 + (x - 140) ** 2 < 20**2
        hu[bone] = rng.normal(260, 70, SHAPE)[bone]
    return hu.round().astype(np.int16), liver


def case(hu: np.ndarray, liver: np.ndarray, direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> QcCase:
    grid = Geometry(SHAPE[::-1], MM[::-1], direction=direction)
    return QcCase("one", grid, {Structure.LIVER: liver}, CT(hu, grid, "one", "synthetic"))


@pytest.mark.parametrize(
    ("aorta", "said"),
    [
        (320, "the CT seems to be of the arterial phase (aorta 3"),
        (150, None),
        (45, "the CT seems to be without contrast (aorta "),
    ],
)
def test_the_phase_is_told_by_the_aorta(aorta: int, said: str | None) -> None:
    seen = case(*body(aorta))
    assert seen.aorta_hu == pytest.approx(aorta, abs=12)  # without contrast muscle is as bright
    messages = [f.message for f in check_case(seen, rules=["contrast_phase"]).findings]
    assert messages == [] if said is None else messages[0].startswith(said) and "liver 70 HU" in messages[0]


def test_a_bright_liver_beside_dark_blood_is_no_ct_without_contrast() -> None:
    assert check_case(case(*body(45, liver_hu=110)), rules=["contrast_phase"]).findings == ()


def test_a_ct_stored_the_other_way_round_has_the_same_aorta() -> None:
    hu, liver = body(320)
    turned = case(hu[:, ::-1, ::-1], liver[:, ::-1, ::-1], (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert turned.aorta_hu == case(hu, liver).aorta_hu


@pytest.mark.parametrize("what", ["no spine", "no liver", "no mask of it", "two slabs", "air", "no CT"])
def test_an_aorta_that_cannot_be_seen_says_nothing(what: str) -> None:
    hu, liver = body(45 if what == "no spine" else 320, spine=what != "no spine")
    if what == "no liver":
        liver[:] = False
    if what == "two slabs":
        liver[:10], liver[14:] = False, False
    if what == "air":
        hu[:] = -1000
    seen = case(hu, liver)
    if what == "no CT":
        seen = QcCase("one", seen.geometry, seen.masks)
    if what == "no mask of it":
        seen = QcCase("one", seen.geometry, {}, seen.ct)
    assert seen.aorta_hu is None
    assert check_case(seen, rules=["contrast_phase"]).findings == ()


def test_a_note_on_a_label_is_a_warning_of_a_plan() -> None:
    hu, liver = body(320)
    seen = case(hu, liver)
    assert [f.severity for f in check_case(seen, rules=["contrast_phase"]).findings] == [Severity.NOTE]
    masks = {Structure.LIVER: liver, Structure.CRLM: np.zeros_like(liver), Structure.FLR: liver}
    plan = Plan(CascadeResult(seen.ct, masks, dict.fromkeys(masks, Source.GIVEN), {}, {}, ()))
    assert any("arterial phase" in warning for warning in plan.warnings)
