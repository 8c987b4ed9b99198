"""The coherent plan on small livers whose answer is known by hand; spacing anisotropic."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.errors import GridError, SettingsError
from flrplan.image import CT, Geometry
from flrplan.method import CascadeResult, Source
from flrplan.planning import CoherentSettings, Plan
from flrplan.planning.coherent import coherent_flr, coherent_result

GRID = Geometry((40, 40, 24), (2.0, 2.0, 4.0))  # 80 x 80 x 96 mm, voxels of 0.016 ml
VOXEL_ML = 0.016


def block(z: slice, y: slice, x: slice) -> Mask:
    mask = np.zeros(GRID.shape_zyx, np.bool_)
    mask[z, y, x] = True
    return mask


LIVER = block(slice(2, 22), slice(2, 38), slice(2, 38))
LEFT = LIVER & block(slice(None), slice(None), slice(0, 20))
NOTHING = np.zeros(GRID.shape_zyx, np.bool_)


def as_network(flr: Mask) -> NDArray[np.uint8]:
    """The probability of an FLR as networks give it: low near the capsule, and one voxel in a hundred the other way round."""
    depth = ndimage.distance_transform_edt(LIVER, sampling=GRID.spacing_zyx_mm)
    p = np.where(flr, np.where(depth > 6, 0.9, 0.4), 0.1)
    crumbs = np.random.default_rng(0).random(flr.shape) < 0.01
    return np.where(crumbs, 255 * (1 - p), 255 * p).astype(np.uint8)


def sizes_ml(mask: Mask) -> list[float]:
    return sorted((np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:] * VOXEL_ML).tolist())


def test_a_shell_and_crumbs_become_one_cut() -> None:
    probability = as_network(LEFT)
    raw = (probability > 127) & LIVER
    assert len(sizes_ml(LIVER & ~raw)) > 20
    assert raw.sum() < 0.8 * LEFT.sum()
    flr = coherent_flr(LIVER, NOTHING, probability, GRID)
    assert not (flr & ~LIVER).any()
    assert len(sizes_ml(flr)) == len(sizes_ml(LIVER & ~flr)) == 1
    front = flr.sum(axis=2)[2:22, 2:38]  # voxels of remnant in each row, from x = 2 on
    assert flr.sum() / LIVER.sum() == pytest.approx(0.47, abs=0.03), "half, less something for the shell"
    assert np.ptp(front[2:-2, 3:-3]) <= 1, "the cut is flat, but for the outermost 8 mm"
    assert np.array_equal(flr, LIVER & (np.arange(40) < 2 + flr.sum(axis=2)[:, :, None])), "each row is remnant, then resection"


def test_of_a_lobe_that_the_network_is_undecided_about_as_much_stays_as_it_expects() -> None:
    """Thirds from left to right; 0.5 as a level would resect the middle one as a whole."""
    p = np.select([np.arange(40) < 14, np.arange(40) < 26], [0.95, 0.35], 0.05) * np.ones(GRID.shape_zyx)
    flr = coherent_flr(LIVER, NOTHING, (255 * p).astype(np.uint8), GRID)
    assert flr.sum() / LIVER.sum() == pytest.approx((0.95 + 0.35 + 0.05) / 3, abs=0.03)
    assert len(sizes_ml(flr)) == len(sizes_ml(LIVER & ~flr)) == 1
    at_half = coherent_flr(LIVER, NOTHING, (255 * p).astype(np.uint8), GRID, CoherentSettings(undecided=0))
    assert at_half.sum() / LIVER.sum() < 0.4


@pytest.mark.parametrize("undecided", [0.42, 0.58])
def test_no_part_is_there_by_the_expectation_alone(undecided: float) -> None:
    """An undecided third behind the resection is no island of remnant, one behind the remnant no second resection."""
    sides = (0.95, 0.05) if undecided < 0.5 else (0.05, 0.95)
    p = np.select([np.arange(40) < 14, np.arange(40) < 26], sides, undecided) * np.ones(GRID.shape_zyx)
    flr = coherent_flr(LIVER, NOTHING, (255 * p).astype(np.uint8), GRID)
    assert len(sizes_ml(flr)) == len(sizes_ml(LIVER & ~flr)) == 1


@pytest.mark.parametrize(("left", "right"), [(0.45, 0.35), (0.65, 0.55)])
def test_where_the_liver_holds_nothing_likelier_than_not_the_expectation_alone_decides(left: float, right: float) -> None:
    """But for a voxel in a hundred on the other side of 0.5, which the smoothing takes."""
    p = np.where(np.arange(40) < 20, left, right) * np.ones(GRID.shape_zyx)
    p[np.random.default_rng(0).random(GRID.shape_zyx) < 0.01] = 0.9 if left < 0.5 else 0.1
    flr = coherent_flr(LIVER, NOTHING, (255 * p).astype(np.uint8), GRID)
    assert flr.sum() / LIVER.sum() == pytest.approx((left + right) / 2, abs=0.1)


def test_where_the_network_is_decided_nothing_is_resected_to_meet_an_expectation() -> None:
    """0.85 of everything but one block would be 15 % resected, wherever it is likeliest."""
    wedge = block(slice(6, 18), slice(2, 14), slice(2, 14))
    flr = coherent_flr(LIVER, NOTHING, np.where(wedge, 25, 217).astype(np.uint8), GRID)
    assert (LIVER & ~flr).sum() / LIVER.sum() < 0.10
    assert (LIVER & ~flr & ~wedge).sum() < 0.5 * wedge.sum()


def test_the_plan_is_the_same_however_the_ct_is_stored() -> None:
    """The same patient with z and x swapped and x reversed, to the voxel."""
    probability = as_network(LEFT)
    turned = Geometry(GRID.size_xyz[::-1], GRID.spacing_mm[::-1], direction=(0, 0, -1, 0, 1, 0, 1, 0, 0))
    flr = coherent_flr(LIVER, NOTHING, probability, GRID)
    other = coherent_flr(LIVER.T[::-1], NOTHING.T[::-1], probability.T[::-1], turned)
    assert np.array_equal(flr, other[::-1].T)


@pytest.mark.parametrize(
    ("liver", "flr", "expected"),
    [
        (NOTHING, LEFT, NOTHING),
        (LIVER, NOTHING, NOTHING),
        (LIVER, ~LIVER, NOTHING),
        (LIVER, LIVER, LIVER),
        (LIVER, ~NOTHING, LIVER),
    ],
    ids=["no liver", "no FLR", "FLR outside the liver only", "FLR is the liver", "FLR is everywhere"],
)
def test_empty_and_full_masks_have_declared_results(liver: Mask, flr: Mask, expected: Mask) -> None:
    for given in (flr, flr.astype(np.uint8) * 255):
        assert np.array_equal(coherent_flr(liver, NOTHING, given, GRID), expected)


def test_a_liver_that_fills_the_image() -> None:
    whole = np.ones((8, 10, 12), np.bool_)
    flr = whole & (np.arange(12) < 6)
    found = coherent_flr(whole, np.zeros_like(whole), flr, Geometry((12, 10, 8), (5.0, 5.0, 5.0)))
    assert np.array_equal(found, flr)


def test_a_metastasis_lies_on_one_side_as_a_whole() -> None:
    on_cut = block(slice(10, 14), slice(16, 22), slice(14, 22))  # six of eight columns are remnant
    flr = coherent_flr(LIVER, on_cut, LEFT, GRID)
    assert flr[on_cut].all()
    on_cut = np.roll(on_cut, 4, axis=2)  # two of eight
    assert not coherent_flr(LIVER, on_cut, LEFT, GRID)[on_cut].any()
    outside = block(slice(0, 2), slice(0, 5), slice(0, 5))
    assert not coherent_flr(LIVER, outside, LEFT, GRID)[outside].any()


def test_a_part_below_the_smallest_goes_and_one_above_stays() -> None:
    wedge = block(slice(8, 14), slice(14, 26), slice(2, 16))  # 6 x 12 x 14 voxels: 24 x 24 x 28 mm, 16 ml, no metastasis in it
    grain = block(slice(16, 18), slice(6, 9), slice(6, 9))  # 0.3 ml
    flr = coherent_flr(LIVER, NOTHING, LEFT & ~wedge & ~grain, GRID)
    assert flr[grain].all()
    small, large = sizes_ml(LIVER & ~flr)
    assert 11 < small < 16, "a wedge is kept, with or without a metastasis; its corners are rounded"
    assert large > 100
    without = coherent_flr(LIVER, NOTHING, LEFT & ~wedge, GRID, CoherentSettings(smallest_part_ml=30.0))
    assert len(sizes_ml(LIVER & ~without)) == 1


@pytest.mark.parametrize(("rows", "kept"), [(12, False), (36, True)], ids=["21 ml", "66 ml"])
def test_an_island_of_remnant_behind_the_resection_goes_unless_it_is_large(rows: int, kept: bool) -> None:
    island = LIVER & block(slice(None), slice(2, 2 + rows), slice(32, 38))
    flr = coherent_flr(LIVER, NOTHING, LEFT | island, GRID)
    assert len(sizes_ml(flr)) == 1 + kept
    assert len(sizes_ml(LIVER & ~flr)) == 1
    assert flr[LEFT].mean() > 0.98, "the largest part stays, however small it is"
    small = CoherentSettings(smallest_remnant_ml=1000.0)
    assert len(sizes_ml(coherent_flr(LIVER, NOTHING, LEFT | island, GRID, small))) == 1


def test_a_small_piece_of_the_liver_that_no_resection_reaches_stays_remnant() -> None:
    piece = block(slice(2, 22), slice(2, 14), slice(35, 38))  # 11 ml, one empty column beside the rest
    liver = (LIVER & block(slice(None), slice(None), slice(0, 34))) | piece
    assert coherent_flr(liver, NOTHING, LEFT | piece, GRID)[piece].all()


def test_a_piece_of_the_liver_mask_by_itself_is_no_resection() -> None:
    liver = LIVER | block(slice(0, 1), slice(0, 2), slice(0, 2))
    flr = coherent_flr(liver, NOTHING, LEFT & ~block(slice(0, 1), slice(None), slice(None)), GRID)
    assert flr[0].sum() == 4
    assert len(sizes_ml(liver & ~flr)) == 1


def test_bad_input_is_told() -> None:
    with pytest.raises(GridError, match=r"expected \(24, 40, 40\) \(z, y, x\), got liver \(24, 40, 40\), crlm \(40, 40, 24\)"):
        coherent_flr(LIVER, NOTHING.T, LEFT, GRID)
    with pytest.raises(SettingsError, match=r"smoothing_mm must be at least 0.1, got 0"):
        CoherentSettings(smoothing_mm=0)


def result_of(flr: Mask, source: Source) -> CascadeResult:
    ct = CT(np.zeros(GRID.shape_zyx, np.int16), GRID, "one", "synthetic")
    masks = {Structure.LIVER: LIVER, Structure.CRLM: NOTHING, Structure.FLR: flr}
    return CascadeResult(ct, masks, dict.fromkeys(masks, source), {}, {}, ())


def test_a_predicted_remnant_is_made_coherent_and_both_are_told() -> None:
    probability = as_network(LEFT)
    raw = probability > 127
    plan = Plan.coherent(result_of(raw, Source.PREDICTED), probability)
    assert plan.flr_source == "coherent"
    assert plan.volumes.flr_fraction == pytest.approx(0.47, abs=0.03)
    assert plan.raw_volumes is not None
    assert plan.raw_volumes.flr_fraction == np.count_nonzero(raw & LIVER) / np.count_nonzero(LIVER)
    here, before = (f"{100 * v.flr_fraction:.0f} %" for v in (plan.volumes, plan.raw_volumes))
    assert any("this plan is not sure" in w and here in w and before in w for w in plan.warnings)
    report = plan.report()
    assert report["flr_source"] == "coherent"
    assert report["raw_volumes"] == plan.raw_volumes.to_json()
    assert len(report["resection_parts"]) == 1
    same = Plan.coherent(result_of(LEFT, Source.PREDICTED))
    assert not any("not sure" in w for w in same.warnings), "a difference of 5 points or less is not worth a word"


def test_a_given_remnant_is_never_touched() -> None:
    given = result_of(as_network(LEFT) > 127, Source.GIVEN)
    assert coherent_result(given) is given
    plan = Plan.coherent(given)
    assert (plan.flr_source, plan.raw_volumes) == ("given", None)
    assert np.array_equal(plan.masks[Structure.FLR], given.masks[Structure.FLR])
    alone = result_of(LEFT, Source.PREDICTED)
    without_liver = CascadeResult(alone.ct, {Structure.FLR: LEFT}, {Structure.FLR: Source.PREDICTED}, {}, {}, ())
    assert coherent_result(without_liver) is without_liver
