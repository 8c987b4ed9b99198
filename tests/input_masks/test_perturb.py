"""Masks with errors: none asked for, none made; what was asked for is what can be measured in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flrplan.anatomy import Mask, Structure
from flrplan.cohort import SyntheticCase
from flrplan.input_masks.mask_errors import DEFAULT_ERRORS, LesionErrors, LiverErrors
from flrplan.input_masks.measure import compare_lesions, compare_livers, summarise
from flrplan.input_masks.perturb import MOST_MISSING, perturb_lesions, perturb_liver
from flrplan.metrics.lesions import SizeClass

PERFECT = LiverErrors(0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.1)
FOUND = LesionErrors(dict.fromkeys(SizeClass, 0.0), 0.0, 0.0, 0.0, 8.0, 0.3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def liver(small_truth: dict[Structure, Mask]) -> Mask:
    return small_truth[Structure.LIVER]


@pytest.fixture
def spacing(small_case: SyntheticCase) -> tuple[float, float, float]:
    return small_case.geometry.spacing_zyx_mm


def test_without_errors_the_masks_are_the_true_ones(
    small_truth: dict[Structure, Mask], spacing: tuple[float, float, float]
) -> None:
    liver, crlm = small_truth[Structure.LIVER], small_truth[Structure.CRLM]
    assert crlm.any()
    assert np.array_equal(perturb_liver(liver, spacing, PERFECT, rng()), liver)
    assert np.array_equal(perturb_lesions(crlm, np.ones_like(liver), spacing, FOUND, rng()), crlm)


@pytest.mark.parametrize("shift", [-4.0, 4.0])
def test_the_surface_moves_by_what_was_asked(liver: Mask, spacing: tuple[float, float, float], shift: float) -> None:
    pair = compare_livers(liver, perturb_liver(liver, spacing, replace(PERFECT, shift_mean_mm=shift), rng()), spacing)
    assert pair is not None
    assert pair.shift_mm == pytest.approx(shift, abs=1.5), "the voxels are coarse"


def test_errors_that_were_drawn_can_be_measured_again(liver: Mask, spacing: tuple[float, float, float]) -> None:
    asked = LiverErrors(1.0, 1.5, 2.5, 0.5, 0.2, 0.0, 0.1)
    pairs = [compare_livers(liver, perturb_liver(liver, spacing, asked, rng(seed)), spacing) for seed in range(24)]
    found = summarise([p for p in pairs if p], []).liver
    assert found.shift_mean_mm == pytest.approx(asked.shift_mean_mm, abs=1.5)
    assert found.shift_std_mm == pytest.approx(asked.shift_std_mm, abs=1.2)
    assert found.local_std_mm == pytest.approx(asked.local_std_mm, abs=1.5)
    assert found.missing_rate == pytest.approx(asked.missing_rate, abs=0.3)
    assert found.missing_fraction == pytest.approx(asked.missing_fraction, abs=0.12)


def test_a_missing_part_is_never_more_than_half(liver: Mask, spacing: tuple[float, float, float]) -> None:
    for seed in range(8):
        rest = perturb_liver(liver, spacing, replace(PERFECT, missing_rate=1.0, missing_fraction=500.0), rng(seed))
        assert not (rest & ~liver).any()
        assert rest.sum() == pytest.approx((1 - MOST_MISSING) * liver.sum(), rel=0.05)


def test_something_beside_the_liver_is_added(liver: Mask, spacing: tuple[float, float, float]) -> None:
    more = perturb_liver(liver, spacing, replace(PERFECT, added_rate=1.0, added_fraction=0.2), rng(3))
    assert (liver & ~more).sum() == 0
    assert more.sum() > 1.02 * liver.sum()


def test_a_liver_that_would_vanish_stays(spacing: tuple[float, float, float]) -> None:
    tiny = np.zeros((8, 8, 8), bool)
    assert perturb_liver(tiny, spacing, DEFAULT_ERRORS.liver, rng()) is tiny
    tiny[4, 4, 4] = True
    assert perturb_liver(tiny, spacing, replace(PERFECT, shift_mean_mm=-50.0), rng()).sum() == 1


def test_lesions_are_dropped_by_their_size(small_truth: dict[Structure, Mask], spacing: tuple[float, float, float]) -> None:
    crlm = small_truth[Structure.CRLM]
    everywhere = np.ones_like(crlm)
    assert not perturb_lesions(crlm, everywhere, spacing, replace(FOUND, missed=dict.fromkeys(SizeClass, 1.0)), rng()).any()
    kept = [size for size in SizeClass if size is not SizeClass.SMALL]
    rest = perturb_lesions(crlm, everywhere, spacing, replace(FOUND, missed={**FOUND.missed, SizeClass.SMALL: 1.0}), rng())
    for diameter, found in compare_lesions(crlm, rest, spacing).lesions:
        assert found == (SizeClass.of(diameter) in kept)


def test_invented_lesions_lie_in_the_liver_and_are_as_many_as_asked(liver: Mask, spacing: tuple[float, float, float]) -> None:
    nothing = np.zeros_like(liver)
    counts = []
    for seed in range(20):
        made = perturb_lesions(
            nothing, liver, spacing, replace(FOUND, invented_per_case=2.0, invented_diameter_mm=12.0), rng(seed)
        )
        assert not (made & ~liver).any()
        counts.append(len(compare_lesions(nothing, made, spacing).invented_mm))
    assert np.mean(counts) == pytest.approx(2.0, abs=0.8)


def test_no_lesion_is_invented_without_a_liver() -> None:
    nothing = np.zeros((6, 6, 6), bool)
    assert not perturb_lesions(nothing, nothing, (1.0, 1.0, 1.0), replace(FOUND, invented_per_case=9.0), rng()).any()


def test_a_lesion_at_the_border_of_the_image() -> None:
    lesion = np.zeros((8, 8, 8), bool)
    lesion[0:3, 0:3, 0:3] = True
    grown = perturb_lesions(lesion, np.ones_like(lesion), (1.0, 1.0, 1.0), replace(FOUND, shift_mean_mm=2.0), rng())
    assert grown[:5, 1, 1].tolist() == [True] * 5
    assert not grown[5, 1, 1]
