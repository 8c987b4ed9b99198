"""Wide cases: smaller fields of view on the same voxels, lesions of more numbers, sizes and looks; the others stay as they were."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from flrplan.anatomy import Structure, structure_mask
from flrplan.cohort import CohortSettings, SyntheticCase, case, make_case
from flrplan.cohort.lesion_mix import WIDE_MAX_LESIONS, WIDE_MAX_MM, LesionKind, Place, draw_wishes
from flrplan.cohort.lesion_spread import TISSUE_HU, spread_looks
from flrplan.cohort.lesions import Lesion
from flrplan.cohort.patient import draw_patient
from flrplan.cohort.render import Intensities
from flrplan.cohort.scan import Phase, Scan, View, cropped, draw_scan, view_box
from flrplan.image import Geometry

SEED = 7


def scan(index: int = 0) -> Scan:
    return draw_scan(SEED, index, draw_patient(SEED, index))


def test_a_case_that_is_not_wide_is_as_before() -> None:
    """By a digest of version 4; whoever changes it raises COHORT_VERSION."""
    made = make_case(5, 2, "small")
    assert sha256(made.planning_zyx.tobytes()).hexdigest()[:16] == "6ea580066d8bc04e"
    assert "view" not in made.facts


def test_wide_cases_stay_wide_at_larger_shares() -> None:
    few, many = CohortSettings(cases=400, wide=0.2), CohortSettings(cases=400, wide=0.5)
    wide = [{i for i in settings.indices if settings.is_wide(i)} for settings in (few, many)]
    assert wide[0] < wide[1]
    assert [len(found) / 400 for found in wide] == pytest.approx([0.2, 0.5], abs=0.07)
    assert not any(CohortSettings(cases=50).is_wide(i) for i in range(50))
    assert all(CohortSettings(cases=50, wide=1).is_wide(i) for i in range(50))


def test_views_reach_from_the_whole_scan_to_less_than_the_liver() -> None:
    scans = [cropped(SEED, i, scan(0)) for i in range(400)]
    assert [sum(s.view is view for s in scans) / 400 for view in View] == pytest.approx([0.35, 0.2, 0.3, 0.15], abs=0.06)
    for one in scans:
        assert (one.margins_mm is None) == (one.view is View.WHOLE)
        margins = np.array(one.margins_mm or 0).ravel()
        assert np.count_nonzero(margins < 0) == (one.view is View.LIVER_CUT)
        assert margins.max() <= (90 if one.view is View.ABDOMEN else 20)


GRID = Geometry((40, 30, 20), (2.0, 2.0, 5.0))


def box(margins: tuple[tuple[float, float], ...], *tumour_zyx: int) -> tuple[tuple[int, int], ...]:
    """Of a liver at z 5..14, y 4..23, x 10..29, with one voxel of tumour."""
    liver, tumour = np.zeros(GRID.shape_zyx, bool), np.zeros(GRID.shape_zyx, bool)
    liver[5:15, 4:24, 10:30] = True
    if tumour_zyx:
        tumour[tumour_zyx] = True
    cuts = view_box(replace(scan(), margins_mm=margins), GRID, liver, tumour)  # type: ignore[arg-type]
    return tuple((cut.start, cut.stop) for cut in cuts)


def test_the_box_of_a_view() -> None:
    assert box(((10, 0), (4, 20), (0, 6))) == ((3, 15), (2, 30), (10, 33))  # 20 mm behind y 23 would end at 34 of 30
    assert box(((-5, 0), (0, 0), (0, -6))) == ((6, 15), (4, 24), (10, 27))
    assert box(((0, 0), (0, 0), (-45, 0))) == ((5, 15), (4, 24), (15, 30)), "at most a quarter of 20 voxels"
    assert box(((0, 0), (0, 0), (-45, 0)), 9, 9, 12) == ((5, 15), (4, 24), (12, 30)), "no tumour is cut off"
    whole = view_box(scan(), GRID, np.ones(GRID.shape_zyx, bool), np.zeros(GRID.shape_zyx, bool))
    assert [(cut.start, cut.stop) for cut in whole] == [(0, 20), (0, 30), (0, 40)]
    nothing = np.zeros(GRID.shape_zyx, bool)
    assert view_box(replace(scan(), margins_mm=((0, 0),) * 3), GRID, nothing, nothing) == whole  # type: ignore[arg-type]


def test_a_cropped_case_is_a_part_of_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    index = next(i for i in range(50) if cropped(SEED, i, scan(i)).view is View.LIVER)
    part = make_case(SEED, index, "small", wide=True)
    monkeypatch.setattr(case, "cropped", lambda seed, index, scan: scan)
    whole = make_case(SEED, index, "small", wide=True)
    assert part.hu_zyx.size < 0.6 * whole.hu_zyx.size
    offset = np.subtract(part.geometry.origin_mm, whole.geometry.origin_mm) / part.geometry.spacing_mm
    x, y, z = np.rint(offset).astype(int)
    assert offset == pytest.approx([x, y, z], abs=1e-6)
    cut = tuple(slice(start, start + n) for start, n in zip((z, y, x), part.hu_zyx.shape, strict=True))
    for name in ("hu_zyx", "planning_zyx", "organs_zyx", "vessels_zyx"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[cut]), name
    assert part.facts["liver_ml"] == whole.facts["liver_ml"]
    assert part.facts["lesions"] == whole.facts["lesions"]
    assert structure_mask(part.planning_zyx, Structure.CRLM).any()


def test_wide_lesions_are_more_and_larger() -> None:
    rng = np.random.default_rng(0)
    cases = [draw_wishes(rng, wide=True) for _ in range(1500)]
    counts = np.array([len(wishes) for wishes in cases])
    diameters = np.array([wish.diameter_mm for wishes in cases for wish in wishes])
    assert (counts.min(), counts.max()) == (1, WIDE_MAX_LESIONS)
    assert np.mean(counts > 12) == pytest.approx(0.35, abs=0.1)
    assert 130 < diameters.max() <= WIDE_MAX_MM
    assert diameters.min() == 3.0
    assert np.mean([max(w.diameter_mm for w in wishes) > 70 for wishes in cases]) == pytest.approx(0.27, abs=0.1)


def looks(phase: Phase, liver_hu: float, patients: int = 80) -> list[Lesion]:
    """Eight lesions of 30 mm in each of many patients whose livers are alike."""
    lumps = np.zeros((4, 5))
    one = Lesion((0.0, 0.0, 0.0), 30.0, (1.0, 1.0, 1.0), lumps, LesionKind.HYPODENSE, Place.DEEP, 40.0, 0.0, 0.0, 0.0, 2.0)
    look = Intensities(np.zeros(256, np.float32), liver_hu, np.zeros(8, np.float32), (0.0, 0.0), "normal", (0.0, 0.0))
    found: list[Lesion] = []
    for index in range(patients):
        lesions, spread = spread_looks(SEED, index, phase, [one] * 8, look)
        assert spread.lesion_hu == pytest.approx([liver_hu - lesion.contrast_hu for lesion in lesions], abs=1e-4)
        found += lesions
    return found


def test_wide_looks() -> None:
    lesions = looks(Phase.PORTAL_VENOUS, 110.0)
    assert {lesion.kind for lesion in [*lesions, *looks(Phase.PORTAL_VENOUS, 75.0)]} == set(LesionKind)
    assert np.mean([lesion.contrast_hu > 12 for lesion in lesions]) > 0.85, "most are darker than a liver without fat"
    rims = [lesion for lesion in lesions if lesion.rim_hu]
    assert len(rims) / len(lesions) == pytest.approx(0.72, abs=0.1)
    assert np.mean([lesion.rim_hu > 0 for lesion in rims]) == pytest.approx(0.84, abs=0.1)
    assert all(1 <= lesion.rim_mm <= 12 for lesion in rims)
    # The margin, rim or not, is nowhere near the liver but in few.
    margins = np.array([lesion.rim_hu - lesion.contrast_hu for lesion in lesions])
    assert np.mean(np.abs(margins) < 11.9) < 0.05
    assert min(110 - lesion.contrast_hu - max(lesion.core_hu, 0) for lesion in lesions) >= 8 - 1e-6, "not below fluid"


def test_in_a_fatty_liver_most_lesions_are_brighter() -> None:
    mean, _ = TISSUE_HU[Phase.PORTAL_VENOUS]
    lesions = looks(Phase.PORTAL_VENOUS, mean - 40)
    assert np.mean([lesion.contrast_hu < 0 for lesion in lesions]) > 0.8


def test_a_wide_case_holds_all_structures() -> None:
    made: list[SyntheticCase] = [make_case(SEED, i, "small", wide=True) for i in range(2)]
    for one in made:
        assert all(structure_mask(one.planning_zyx, structure).any() for structure in Structure)
        assert one.hu_zyx.shape == one.geometry.shape_zyx == one.planning_zyx.shape
        assert one.facts["view"] in {view.value for view in View}
