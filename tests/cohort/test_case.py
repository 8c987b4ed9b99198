"""One case: truth that nests, the same at every call and size, in the ranges of the data set it stands for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from flrplan.anatomy import Compartment, Structure, structure_mask
from flrplan.cohort import COHORT_VERSION, CaseSize, CohortSettings, Organ, SyntheticCase, Vessel, make_case
from flrplan.cohort.settings import GRID_LIMITS
from flrplan.errors import SettingsError


def test_every_case_has_liver_remnant_resection_and_tumour(small_cases: list[SyntheticCase]) -> None:
    for case in small_cases:
        label = case.planning_zyx
        assert set(np.unique(label)) <= {0, *Compartment}, case.case_id
        for structure in Structure:
            assert structure_mask(label, structure).any(), (case.case_id, structure)
        assert (label == Compartment.REMNANT).any(), case.case_id


def test_planning_map_agrees_with_the_organs(small_cases: list[SyntheticCase]) -> None:
    for case in small_cases:
        liver = np.isin(case.organs_zyx, (Organ.LIVER, Organ.TUMOUR))
        assert np.array_equal(structure_mask(case.planning_zyx, Structure.LIVER), liver)
        assert np.array_equal(structure_mask(case.planning_zyx, Structure.CRLM), case.organs_zyx == Organ.TUMOUR)
        assert set(np.unique(case.vessels_zyx)) <= {0, *Vessel}
        assert not case.vessels_zyx[case.organs_zyx != Organ.LIVER].any()


def test_liver_is_one_piece_of_plausible_size_on_the_patients_right(small_cases: list[SyntheticCase]) -> None:
    for case in small_cases:
        liver = structure_mask(case.planning_zyx, Structure.LIVER)
        pieces, count = ndimage.label(liver)
        largest = np.bincount(pieces.ravel())[1:].max() if count else 0
        cut = liver[0].any() or liver[-1].any()  # a scan that ends in the liver may show its lobes apart
        assert largest >= (0.85 if cut else 0.999) * liver.sum(), case.case_id
        assert (250 if cut else 800) < case.facts["liver_ml"] < 2700, case.case_id
        # LPS: x grows to the patient's left, y to the back, z to the head.
        z, _, x = (float(np.mean(i)) for i in np.nonzero(liver))
        _, spine_y, spine_x = (float(np.mean(i)) for i in np.nonzero(case.organs_zyx == Organ.SPINAL_CANAL))
        spleen = np.nonzero(case.organs_zyx == Organ.SPLEEN)
        assert x < spine_x, case.case_id
        assert spleen[2].size == 0 or x < float(spleen[2].mean())
        assert spine_y > float(np.mean(np.nonzero(liver)[1]))
        lung = np.nonzero(case.organs_zyx == Organ.LUNG)[0]
        assert lung.size == 0 or float(lung.mean()) > z


def test_flr_fraction_spreads(small_cases: list[SyntheticCase]) -> None:
    fractions = [case.facts["flr_fraction"] for case in small_cases]
    assert min(fractions) < 0.4
    assert max(fractions) > 0.75
    assert all(0.1 < f < 1.0 for f in fractions)
    for case in small_cases:
        counts = [np.count_nonzero(case.planning_zyx == c) for c in (Compartment.REMNANT, Compartment.RESECTION)]
        assert case.facts["flr_fraction"] == pytest.approx(counts[0] / sum(counts), abs=1e-4)


def test_tumour_stays_in_the_remnant_only_in_two_stage_cases(small_cases: list[SyntheticCase]) -> None:
    for case in small_cases:
        left = bool((case.planning_zyx == Compartment.CRLM_IN_REMNANT).any())
        planned = any(lesion["left_behind"] for lesion in case.facts["lesions"])
        assert planned or not left, case.case_id
        assert planned == case.facts["resection"].startswith("first of two stages")


def test_grid_and_hu_are_in_range(small_cases: list[SyntheticCase]) -> None:
    low, high = GRID_LIMITS[CaseSize.SMALL].in_plane_mm
    for case in small_cases:
        assert case.hu_zyx.dtype == np.int16
        assert case.hu_zyx.shape == case.geometry.shape_zyx == case.planning_zyx.shape == case.organs_zyx.shape
        dx, dy, dz = case.geometry.spacing_mm
        assert dx == dy
        assert low <= dx <= high
        assert 3.0 <= dz <= 7.5
        assert 16 <= case.hu_zyx.shape[0] <= 84
        assert 90 <= case.hu_zyx.shape[1] <= 120
        assert case.hu_zyx.min() >= -2048
        assert case.hu_zyx.max() <= 3071
        liver_hu = float(np.median(case.hu_zyx[case.organs_zyx == Organ.LIVER]))
        assert liver_hu == pytest.approx(case.facts["liver_hu"], abs=15)


def test_a_case_is_the_same_at_every_call_and_differs_by_seed_and_index() -> None:
    one, again = make_case(5, 2, "small"), make_case(5, 2, CaseSize.SMALL)
    assert np.array_equal(one.hu_zyx, again.hu_zyx)
    assert np.array_equal(one.planning_zyx, again.planning_zyx)
    assert one.facts == again.facts
    assert one.geometry == again.geometry
    assert json.loads(json.dumps(one.facts)) == one.facts
    for other in (make_case(6, 2, "small"), make_case(5, 3, "small")):
        assert other.hu_zyx.shape != one.hu_zyx.shape or not np.array_equal(other.hu_zyx, one.hu_zyx)


def test_the_anatomy_is_the_same_at_every_size() -> None:
    small, medium = make_case(5, 2, "small"), make_case(5, 2, "medium")
    for key in ("resection", "lesions", "phase", "scan_range", "fov_mm", "liver_hu"):
        assert small.facts[key] == medium.facts[key]
    assert medium.facts["liver_ml"] == pytest.approx(small.facts["liver_ml"], rel=0.05)
    assert medium.facts["flr_fraction"] == pytest.approx(small.facts["flr_fraction"], abs=0.03)
    low, high = GRID_LIMITS[CaseSize.MEDIUM].in_plane_mm
    assert low <= medium.geometry.spacing_mm[0] <= high


def test_lesions_are_darker_than_the_liver_unless_it_is_fatty(small_cases: list[SyntheticCase]) -> None:
    checked = 0
    for case in small_cases:
        facts = case.facts
        if facts["steatosis"] or facts["noise_hu"] > 25 or facts["lesions"][0]["kind"] in ("calcified", "vanishing"):
            continue
        tumour = case.hu_zyx[case.organs_zyx == Organ.TUMOUR].mean()
        assert tumour < case.hu_zyx[case.organs_zyx == Organ.LIVER].mean(), case.case_id
        checked += 1
    assert checked >= 6


def test_nothing_is_labelled_where_nothing_was_reconstructed() -> None:
    case = make_case(2, 1364, "small")  # a wide patient whose liver leaves the circle of the field of view
    padding = case.hu_zyx == case.facts["padding_hu"]
    outside = padding.all(axis=0)
    assert case.facts["padding_hu"] == -2048
    assert 0.1 < outside.mean() < 0.3, "the corners outside the circle: 1 - pi / 4 of the square"
    for labels in (case.planning_zyx, case.vessels_zyx, case.organs_zyx):
        assert not labels[:, outside].any()
    beside = np.zeros_like(outside)
    for shift in (-1, 1):
        beside |= np.roll(outside, shift, axis=1) & ~outside
    assert case.planning_zyx[:, beside].any(), "the circle cuts this liver"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cases": 0}, "cases must be at least 1, got 0"),
        ({"cases": True}, "cases must be a whole number"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"cases": 10, "first_index": 9995}, "first_index must be at most 9990 for 10 cases, got 9995"),
        ({"faults": 2}, "faults must be at most 1, got 2"),
        ({"faults": "many"}, "faults must be a number, got 'many'"),
        ({"faults": True}, "faults must be a number, got True"),
        ({"wide": -0.1}, "wide must be at least 0, got -0.1"),
        ({"size": "huge"}, "size must be 'small', 'medium' or 'full', got 'huge'"),
    ],
)
def test_settings_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        CohortSettings(**values)  # type: ignore[arg-type]


def test_settings_take_size_by_name() -> None:
    settings = CohortSettings(cases=3, size="medium")  # type: ignore[arg-type]
    assert settings.size is CaseSize.MEDIUM
    assert settings.as_dict() == {
        "cases": 3,
        "seed": 0,
        "size": "medium",
        "first_index": 0,
        "faults": 0.0,
        "wide": 0.0,
        "fault_kinds": [],
    }
    assert COHORT_VERSION >= 1


def test_make_case_checks_its_arguments() -> None:
    with pytest.raises(SettingsError, match="first_index must be at most 9999"):
        make_case(0, 10_000, "small")
    with pytest.raises(SettingsError, match="size must be 'small', 'medium' or 'full', got 'tiny'"):
        make_case(0, 0, "tiny")
