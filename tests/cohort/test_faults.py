"""Planted faults: what is listed is what differs from the truth, no more and no less."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.anatomy import Structure, structure_mask
from flrplan.cohort import FaultKind, FaultyLabel, SyntheticCase, plant_fault, plant_faults
from flrplan.cohort.asked_faults import plant_asked_faults
from flrplan.cohort.faults import PLANTERS
from flrplan.errors import SettingsError

Planted = list[tuple[SyntheticCase, FaultyLabel]]


@pytest.fixture(scope="module")
def planted(small_cases: list[SyntheticCase]) -> Planted:
    """Every case faulty, with faults of six seeds."""
    return [(case, plant_faults(case, seed, i, 1.0)) for seed in range(6) for i, case in enumerate(small_cases[:16])]


def truth(case: SyntheticCase, structure: Structure) -> np.ndarray:
    return structure_mask(case.planning_zyx, structure)


def test_every_case_is_faulty_and_every_kind_occurs(planted: Planted) -> None:
    assert all(label.faults for _, label in planted)
    assert {fault.kind for _, label in planted for fault in label.faults} == set(PLANTERS)


def test_the_list_adds_up_to_what_differs(planted: Planted) -> None:
    for case, label in planted:
        for structure, mask in ((Structure.LIVER, label.liver), (Structure.CRLM, label.crlm)):
            right = truth(case, structure)
            faults = [fault for fault in label.faults if fault.structure is structure]
            assert sum(f.voxels_added for f in faults) == np.count_nonzero(mask & ~right)
            assert sum(f.voxels_removed for f in faults) == np.count_nonzero(right & ~mask)
            left = mask ^ right
            for fault in faults:
                low, high = fault.box_zyx
                box = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
                assert left[box].any() or len(faults) > 1
                left[box] = False
            assert not left.any()


def test_the_remnant_follows_the_liver(planted: Planted) -> None:
    for case, label in planted:
        both = label.liver & truth(case, Structure.LIVER)
        assert not (label.flr & ~label.liver).any()
        assert np.array_equal(label.flr & both, truth(case, Structure.FLR) & both)


def test_each_kind_does_what_it_says(planted: Planted) -> None:
    for case, label in planted:
        liver = truth(case, Structure.LIVER)
        kinds = {fault.kind for fault in label.faults}
        for fault in label.faults:
            assert fault.voxels_added + fault.voxels_removed > 0
            if fault.kind in (FaultKind.VOID, FaultKind.MISSED):
                assert fault.voxels_added == 0
            elif fault.kind is not FaultKind.RAGGED:
                assert fault.voxels_removed == 0
        outside = np.count_nonzero(label.crlm & ~liver)
        assert (outside > 0) == (FaultKind.OUTSIDE in kinds)
        assert bool(label.planning_map()[1].findings()) == (FaultKind.OUTSIDE in kinds)


def test_centres_are_in_mm(planted: Planted) -> None:
    case, label = planted[0]
    fault = label.faults[0]
    middle = [(a + b) / 2 for a, b in zip(*fault.box_zyx, strict=True)]
    origin, spacing = case.geometry.origin_mm, case.geometry.spacing_mm
    expected = [o + s * i for o, s, i in zip(origin, spacing, middle[::-1], strict=True)]
    assert fault.centre_mm == pytest.approx(expected)
    assert fault.as_dict()["centre_mm"] == pytest.approx(expected, abs=0.006)


def test_the_share_decides_how_many_labels_are_faulty(small_cases: list[SyntheticCase]) -> None:
    none = [plant_faults(case, 0, i, 0.0) for i, case in enumerate(small_cases)]
    half = [plant_faults(case, 0, i, 0.5) for i, case in enumerate(small_cases)]
    assert not any(label.faults for label in none)
    for case, label in zip(small_cases, none, strict=True):
        assert np.array_equal(label.planning_map()[0], case.planning_zyx)
    assert 4 <= sum(bool(label.faults) for label in half) <= 20


@pytest.mark.parametrize("kind", FaultKind)
def test_a_fault_of_every_kind_can_be_asked_for(kind: FaultKind, small_cases: list[SyntheticCase]) -> None:
    planted = [(case, plant_fault(case, kind, 3, i)) for i, case in enumerate(small_cases[:4])]
    assert any(label.faults for _, label in planted)
    for index, (case, label) in enumerate(planted):
        assert {fault.kind for fault in label.faults} <= {kind}
        assert label.liver.shape == label.crlm.shape == label.flr.shape == label.geometry.shape_zyx
        image = case.geometry if label.view is None else case.geometry.crop(label.view)
        assert (label.image_geometry or case.geometry).size_xyz == image.size_xyz
        again = plant_fault(case, kind, 3, index)
        assert np.array_equal(again.liver, label.liver)
        assert again.geometry == label.geometry


def test_kinds_that_were_asked_for_alternate_by_index(small_cases: list[SyntheticCase]) -> None:
    labels = [plant_asked_faults(case, 3, i, 1.0, ["spacing", "up_down"]) for i, case in enumerate(small_cases[:4])]
    assert [label.faults[0].kind for label in labels] == [FaultKind.SPACING, FaultKind.UP_DOWN] * 2
    assert not plant_asked_faults(small_cases[0], 3, 0, 0.0, ["all"]).faults
    with pytest.raises(SettingsError, match="unknown kinds of fault spelling; known are all, void, ragged"):
        plant_asked_faults(small_cases[0], 3, 0, 1.0, ["spelling"])


def test_asking_leaves_the_faults_that_are_drawn_as_they_were(small_cases: list[SyntheticCase]) -> None:
    before = plant_faults(small_cases[0], 3, 0, 1.0)
    plant_fault(small_cases[0], FaultKind.SHELL, 3, 0)
    assert plant_faults(small_cases[0], 3, 0, 1.0).faults == before.faults
