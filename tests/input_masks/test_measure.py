"""How predicted masks differ from true ones, on shapes whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.input_masks.mask_errors import DEFAULT_ERRORS
from flrplan.input_masks.measure import LiverPair, compare_lesions, compare_livers, signed_depth_mm, summarise
from flrplan.metrics.lesions import SizeClass


def block(low: tuple[int, int, int], high: tuple[int, int, int], shape: tuple[int, int, int] = (60, 60, 60)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_the_surface_runs_between_voxels_also_of_thick_slices() -> None:
    depth = signed_depth_mm(block((5, 5, 5), (10, 25, 25), (15, 30, 30)), (4.0, 1.0, 1.0))
    assert depth[5, 15, 15] == pytest.approx(2.0)
    assert depth[4, 15, 15] == pytest.approx(-2.0)
    assert depth[3, 15, 15] == pytest.approx(-6.0)
    assert depth[7, 5, 15] == pytest.approx(0.5)
    assert depth[7, 3, 15] == pytest.approx(-1.5)


def test_a_mask_that_fills_its_box_has_no_surface() -> None:
    assert np.isinf(signed_depth_mm(np.ones((2, 2, 2), bool), (1.0, 1.0, 1.0))).all()


def test_equal_livers_have_no_errors() -> None:
    liver = block((10, 10, 10), (40, 40, 40))
    assert compare_livers(liver, liver, (2.0, 1.0, 1.0)) == LiverPair(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("voxels", [2, -2])
def test_a_surface_that_is_shifted(voxels: int) -> None:
    truth = block((10, 10, 10), (50, 50, 50))
    moved = block((10 - voxels,) * 3, (50 + voxels,) * 3)
    pair = compare_livers(truth, moved, (1.0, 1.0, 1.0))
    assert pair is not None
    assert pair.shift_mm == pytest.approx(voxels, abs=0.1), "edges of the cube add a little"
    assert pair.local_std_mm < 0.5
    assert (pair.missing, pair.added) == (0.0, 0.0)


def test_a_missing_end_and_something_beside_the_liver() -> None:
    truth = block((10, 10, 5), (40, 40, 45))
    prediction = block((10, 10, 5), (40, 40, 33)) | block((10, 50, 5), (40, 60, 33))
    pair = compare_livers(truth, prediction, (1.0, 1.0, 1.0))
    assert pair is not None
    assert pair.missing == pytest.approx(12 / 40), "12 of 40 columns; the last two are further than 10 mm"
    assert pair.added == pytest.approx(10 * 28 / (30 * 40))
    assert pair.shift_mm == pytest.approx(0.0, abs=1.0), "of the far parts only the rim counts as a shift"


def test_a_thin_layer_is_a_shift_and_not_a_missing_part() -> None:
    pair = compare_livers(block((10, 10, 5), (40, 40, 45)), block((10, 10, 5), (40, 40, 40)), (1.0, 1.0, 1.0))
    assert pair is not None
    assert pair.missing == 0.0
    assert pair.shift_mm < 0


@pytest.mark.parametrize("empty", ["truth", "prediction"])
def test_an_empty_liver_is_no_pair(empty: str) -> None:
    masks = {"truth": block((1, 1, 1), (5, 5, 5)), "prediction": block((1, 1, 1), (5, 5, 5))}
    masks[empty] = np.zeros((60, 60, 60), bool)
    assert compare_livers(masks["truth"], masks["prediction"], (1.0, 1.0, 1.0)) is None


def diameter(voxels: int) -> float:
    return float(np.cbrt(6 * voxels / np.pi))


def test_lesions_that_are_missed_too_large_or_invented() -> None:
    truth = block((5, 5, 5), (9, 9, 9)) | block((20, 20, 20), (32, 32, 32))
    prediction = block((19, 19, 19), (33, 33, 33)) | block((50, 50, 50), (53, 53, 53))
    pair = compare_lesions(truth, prediction, (1.0, 1.0, 1.0))
    assert pair.lesions == ((pytest.approx(diameter(64)), False), (pytest.approx(diameter(12**3)), True))
    assert pair.shifts_mm == (pytest.approx((diameter(14**3) - diameter(12**3)) / 2),)
    assert pair.invented_mm == (pytest.approx(diameter(27)),)

    errors = summarise([LiverPair(1.0, 2.0, 0.2, 0.0), LiverPair(3.0, 4.0, 0.0, 0.0)], [pair, pair]).lesions
    assert errors.missed[SizeClass.SMALL] == 1.0
    assert errors.missed[SizeClass.MEDIUM] == 0.0, "14.9 mm, found in both"
    assert errors.missed[SizeClass.LARGE] == DEFAULT_ERRORS.lesions.missed[SizeClass.LARGE], "none was there"
    assert errors.invented_per_case == 1.0
    assert errors.invented_diameter_mm == pytest.approx(diameter(27))
    assert errors.invented_log_std == pytest.approx(0.0)


def test_livers_are_summarised_over_cases() -> None:
    errors = summarise([LiverPair(1.0, 2.0, 0.2, 0.0), LiverPair(3.0, 4.0, 0.0, 0.0)], []).liver
    assert (errors.shift_mean_mm, errors.shift_std_mm, errors.local_std_mm) == (2.0, 1.0, 3.0)
    assert (errors.missing_rate, errors.missing_fraction) == (0.5, 0.2)
    assert (errors.added_rate, errors.added_fraction) == (0.0, DEFAULT_ERRORS.liver.added_fraction)


def test_empty_masks_have_no_lesions() -> None:
    nothing = np.zeros((4, 4, 4), bool)
    pair = compare_lesions(nothing, nothing, (1.0, 1.0, 1.0))
    assert (pair.lesions, pair.shifts_mm, pair.invented_mm) == ((), (), ())
    nothing_seen = summarise([], [])
    assert (nothing_seen.liver, nothing_seen.lesions, nothing_seen.cases) == (DEFAULT_ERRORS.liver, DEFAULT_ERRORS.lesions, 0)
