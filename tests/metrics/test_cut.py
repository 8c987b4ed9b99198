"""The cut by hand: planes moved through a liver, rinds, voids and borders that are no cut, lesions beside it; and by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage
from scipy.spatial.distance import cdist

from flrplan.anatomy import Structure
from flrplan.errors import GridError
from flrplan.metrics import (
    EMPTY_CUTS,
    Cut,
    Emptiness,
    Fate,
    Region,
    Undefined,
    cut_outcomes,
    lesion_margins,
    score_mask,
    smallest_margin_mm,
)
from flrplan.metrics.cut import cut_of
from flrplan.metrics.surface_elements import area_table_mm2

SPACING = (2.5, 1.0, 2.0)  # z, y, x
SHAPE = (20, 40, 44)
EVERYWHERE = slice(2, -2)


def box(z=EVERYWHERE, y=EVERYWHERE, x=EVERYWHERE) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[z, y, x] = True
    return mask


LIVER, EMPTY = box(), np.zeros(SHAPE, bool)  # 16 x 36 x 40 voxels: 40 x 36 x 80 mm
PLANE = 20  # the FLR ends before this column
FLR = box(x=slice(2, PLANE))


def flr_to(column: int) -> np.ndarray:
    return box(x=slice(2, column))


def cut(flr: np.ndarray, liver: np.ndarray = LIVER) -> Cut:
    return Cut.of_masks(liver, flr, SPACING)


def outcomes(flr, reference=FLR, crlm=EMPTY, liver=LIVER, reference_liver=LIVER):
    return cut_outcomes(cut(reference, reference_liver), cut(flr, liver), Region.of(crlm, SPACING))


@pytest.mark.parametrize(
    ("columns", "mm", "within_5", "within_10"), [(2, 4, 1, 1), (3, 6, 0, 1), (5, 10, 0, 1), (10, 20, 0, 0)]
)
@pytest.mark.parametrize("side", [1, -1])
def test_a_plane_moved_through_the_liver_has_moved_by_that_much(columns, mm, within_5, within_10, side):
    found = outcomes(flr_to(PLANE + side * columns))
    assert (found["cut_mean_mm"], found["cut_hd95_mm"]) == (mm, mm)
    assert (found["cut_nsd_5mm"], found["cut_nsd_10mm"]) == (within_5, within_10)


def test_the_nsd_of_the_flr_is_blind_to_what_the_cut_shows():
    """In a round liver of 140 mm the FLR's NSD stays over 0.7 however far the cut moves; that of the cut is 0 at once."""
    spacing, shape = (5.0, 5.0, 2.0), (30, 30, 80)
    place = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    liver = np.add.outer(np.add.outer(place[0] ** 2, place[1] ** 2), place[2] ** 2) < 70**2
    columns = np.arange(80)

    def flr_to(column: int) -> Region:
        return Region.of(liver & (columns < column), spacing)

    truth = {Structure.LIVER: Region.of(liver, spacing), Structure.FLR: flr_to(44)}
    truth[Structure.CRLM] = Region.of(np.zeros(shape, bool), spacing)
    found = {mm: score_mask(Structure.FLR, truth, flr_to(44 + mm // 2)).values for mm in (6, 10, 20)}
    assert all(0.7 < values["nsd"] < 0.85 for values in found.values())
    assert [values["cut_nsd_5mm"] for values in found.values()] == [0.0, 0.0, 0.0]
    for mm, values in found.items():
        assert mm <= values["cut_mean_mm"] < 1.1 * mm, "farther at the rim, where the liver grows or shrinks between the planes"


def test_area_of_a_cut_is_that_of_its_corners_below_the_rind():
    # Corners 0..36 in y (1 mm) and 0..16 in z (2.5 mm); deeper than 5 mm: 6..30 and 3..13. Each is a face of 2.5 mm2.
    assert cut(FLR).area_mm2 == pytest.approx(25 * 11 * 2.5)
    # Every corner of a face between the two sides counts for tumours, on the capsule too.
    assert len(cut(FLR).points_zyx) == 37 * 17
    assert set(cut(FLR).points_zyx[:, 2]) == {PLANE}


def test_rind_of_liver_outside_the_flr_is_no_cut():
    short = FLR & ndimage.binary_erosion(LIVER, np.ones((5, 11, 5)))  # 5 mm in z, 5 mm in y, 4 mm in x short of the capsule
    assert len(cut(short).points_zyx) > 2 * len(cut(FLR).points_zyx)
    found = outcomes(short)
    assert (found["cut_mean_mm"], found["cut_hd95_mm"], found["cut_nsd_5mm"]) == (0.0, 0.0, 1.0)
    shorter = FLR & ndimage.binary_erosion(LIVER, np.ones((7, 1, 1)))  # 7.5 mm: resected, whatever it was meant to be
    assert outcomes(shorter)["cut_nsd_5mm"] < 1.0


def test_rind_is_at_least_one_voxel():
    thick = (7.5, 1.0, 2.0)
    lowest = box(z=slice(3, -2), x=slice(2, PLANE))  # a slice short
    both = [Cut.of_masks(LIVER, flr, thick).surface.points_zyx for flr in (FLR, lowest)]
    np.testing.assert_array_equal(*both)


def test_the_capsule_of_the_other_side_or_of_a_void_is_no_cut():
    void = box(z=slice(8, 11), y=slice(15, 25), x=slice(8, 14))
    liver, flr = LIVER & ~void, FLR & ~void
    assert set(cut(flr, liver).points_zyx[:, 2]) == {PLANE}
    assert cut(flr, liver).area_mm2 == cut(FLR).area_mm2, "a void beside the cut hides none of it"
    beside = LIVER & ~box(z=slice(8, 11), y=slice(15, 25), x=slice(PLANE - 1, PLANE + 1))
    # The void lies across the plane: 4 x 11 of its corners have no liver around them.
    assert cut(FLR & beside, beside).area_mm2 == pytest.approx((25 * 11 - 4 * 11) * 2.5)


def test_the_border_of_the_image_is_no_cut_and_closes_the_liver():
    whole = np.ones((16, 36, 40), bool)
    flr = whole.copy()
    flr[..., 18:] = False
    found = Cut.of_masks(whole, flr, SPACING)
    assert set(found.points_zyx[:, 2]) == {18}
    assert found.area_mm2 == cut(FLR).area_mm2


def test_sides_that_meet_at_an_edge_or_across_a_gap_only_have_no_cut():
    edge, gap = EMPTY.copy(), EMPTY.copy()
    edge[5:15, 10:20, 10:20] = edge[5:15, 20:30, 20:30] = True
    gap[5:15, 5:35, 5:20] = gap[5:15, 5:35, 21:40] = True
    for liver in (edge, gap):
        assert len(cut(liver & box(x=slice(0, 20)), liver).points_zyx) == 0


def test_flr_outside_the_liver_takes_no_part():
    more = FLR | np.pad(np.ones((4, 8, 4), bool), [(0, 16), (0, 32), (0, 40)])
    np.testing.assert_array_equal(cut(more).points_zyx, cut(FLR).points_zyx)


def test_the_cut_of_a_cascade_divides_its_own_liver():
    own = box(x=slice(12, -2))  # the predicted liver lacks 20 mm of the remnant's end
    truth = {s: Region.of(m, SPACING) for s, m in ((Structure.LIVER, LIVER), (Structure.FLR, FLR), (Structure.CRLM, EMPTY))}
    prediction = Region.of(FLR & own, SPACING)
    given = score_mask(Structure.FLR, truth, prediction).values
    cascade = score_mask(Structure.FLR, truth, prediction, given=Region.of(own, SPACING)).values
    assert (cascade["cut_mean_mm"], cascade["cut_nsd_5mm"]) == (0.0, 1.0)
    assert given["cut_mean_mm"] > 0, "of the true liver 20 mm would be resected"


TAKEN = box(z=slice(6, 10), y=slice(10, 20), x=slice(PLANE + 3, PLANE + 7))  # 3 columns of 2 mm from the plane
LEFT = box(z=slice(6, 10), y=slice(10, 20), x=slice(6, 10))


def test_fates_and_margins_of_lesions():
    through = box(z=slice(12, 14), y=slice(25, 30), x=slice(PLANE - 1, PLANE + 1))
    lung = box(z=slice(0, 1), y=slice(0, 1), x=slice(0, 1))
    margins = lesion_margins(cut(FLR), Region.of(TAKEN | LEFT | through | lung, SPACING))
    fates = {m.fate: m.distance_mm for m in margins}
    assert [fates[f] for f in (Fate.RESECTED, Fate.CUT_THROUGH)] == [6.0, 0.0]
    assert math.isnan(fates[Fate.LEFT])
    assert len(fates) == 4
    # Lung: corner (1, 1, 1) to the plane's nearest corner (2, 2, 20).
    assert fates[Fate.OUTSIDE] == pytest.approx(math.sqrt(2.5**2 + 1 + 38**2))
    assert smallest_margin_mm(margins) == 0.0
    assert smallest_margin_mm([m for m in margins if m.fate is not Fate.CUT_THROUGH]) == 6.0
    assert math.isnan(smallest_margin_mm([m for m in margins if m.fate is Fate.LEFT]))


def test_a_lesion_that_touches_the_cut_has_no_margin_left():
    touching = box(z=slice(6, 8), y=slice(10, 12), x=slice(PLANE, PLANE + 2))
    (margin,) = lesion_margins(cut(FLR), Region.of(touching, SPACING))
    assert (margin.fate, margin.distance_mm) == (Fate.RESECTED, 0.0)


def test_a_lesion_below_the_capsule_counts_with_the_cut_beside_it():
    at_capsule = box(z=slice(2, 3), y=slice(2, 4), x=slice(PLANE + 1, PLANE + 3))
    (margin,) = lesion_margins(cut(FLR), Region.of(at_capsule, SPACING))
    assert margin.distance_mm == 2.0, "the cut within the rind is a cut to a tumour"


@pytest.mark.parametrize(
    ("column", "expected", "left_ml"),
    [(PLANE + 2, 2.0, 0.0), (PLANE - 2, 10.0, 0.0), (PLANE + 5, 0.0, 0.4), (PLANE + 9, 0.0, 0.8), (42, 0.0, 0.8)],
    ids=["nearer", "farther", "cut through", "left behind", "everything remnant"],
)
def test_smallest_tumour_distance_of_the_prediction_against_the_reference(column, expected, left_ml):
    """A lesion of 4 x 10 x 4 voxels (0.8 ml) that the reference takes with 6 mm; to leave it never looks safer than to cut it."""
    found = outcomes(flr_to(column), crlm=TAKEN)
    names = ("reference", "prediction", "error", "abs_error")
    assert [found[f"tumour_cut_{n}_mm"] for n in names] == [6.0, expected, expected - 6.0, abs(expected - 6.0)]
    assert (found["tumour_in_flr_reference_ml"], found["tumour_in_flr_prediction_ml"]) == (0.0, pytest.approx(left_ml))


def test_only_lesions_that_the_reference_takes_count():
    taken = outcomes(flr_to(PLANE - 4), crlm=TAKEN | LEFT)
    assert (taken["tumour_cut_reference_mm"], taken["tumour_cut_prediction_mm"]) == (6.0, 14.0)
    assert taken["tumour_in_flr_reference_ml"] == taken["tumour_in_flr_prediction_ml"] == pytest.approx(0.8)


@pytest.mark.parametrize("no_cut", [EMPTY, LIVER], ids=["empty FLR", "everything remnant"])
@pytest.mark.parametrize("emptiness", [Emptiness.REFERENCE, Emptiness.PREDICTION, Emptiness.BOTH])
def test_no_cut_gives_what_is_declared(no_cut, emptiness):
    reference = FLR if emptiness is Emptiness.PREDICTION else no_cut
    found = outcomes(FLR if emptiness is Emptiness.REFERENCE else no_cut, reference=reference)
    assert {name: found[name] for name in EMPTY_CUTS} == {name: row[emptiness] for name, row in EMPTY_CUTS.items()}


def test_a_cut_in_the_rind_alone_is_no_cut_to_compare():
    thin = box(x=slice(2, 4))  # 4 mm
    assert outcomes(thin)["cut_mean_mm"] is Undefined.NO_PREDICTED_CUT
    assert len(cut(thin).points_zyx) > 0


NO_REFERENCE, NO_PREDICTED, NO_TUMOUR = Undefined.NO_REFERENCE_CUT, Undefined.NO_PREDICTED_CUT, Undefined.NO_RESECTED_TUMOUR


@pytest.mark.parametrize(
    ("reference", "prediction", "crlm", "expected"),
    [
        (FLR, FLR, EMPTY, [NO_TUMOUR] * 4),
        (FLR, FLR, LEFT, [NO_TUMOUR] * 4),
        (LIVER, FLR, TAKEN, [NO_TUMOUR] * 4),
        (FLR, EMPTY, TAKEN, [6.0, NO_PREDICTED, NO_PREDICTED, NO_PREDICTED]),
        (FLR, LIVER, TAKEN, [6.0, 0.0, -6.0, 6.0]),
        (EMPTY, FLR, TAKEN, [NO_REFERENCE, 6.0, NO_REFERENCE, NO_REFERENCE]),
        (EMPTY, EMPTY, TAKEN, [NO_REFERENCE, NO_PREDICTED, NO_REFERENCE, NO_REFERENCE]),
    ],
    ids=["no tumour", "only left", "all remnant", "no FLR predicted", "all remnant predicted", "no FLR in truth", "no FLR"],
)
def test_tumour_distances_where_something_is_missing(reference, prediction, crlm, expected):
    found = outcomes(prediction, reference=reference, crlm=crlm)
    assert [found[f"tumour_cut_{n}_mm"] for n in ("reference", "prediction", "error", "abs_error")] == expected


def test_an_empty_liver_has_no_cut_and_resects_nothing():
    nothing = cut(FLR, EMPTY)
    assert (len(nothing.points_zyx), nothing.area_mm2) == (0, 0.0)
    assert [m.fate for m in lesion_margins(nothing, Region.of(TAKEN | LEFT, SPACING))] == [Fate.LEFT, Fate.OUTSIDE]
    assert lesion_margins(nothing, Region.of(EMPTY, SPACING)) == ()


def test_another_grid_is_refused():
    with pytest.raises(GridError, match="one grid"):
        Cut.of_masks(LIVER, FLR[1:], SPACING)


def test_random_plans_agree_with_brute_force():
    """Interface by pairs of voxels, depth and distances by every pair of points."""
    rng = np.random.default_rng(0)
    spacing, shape = (4.0, 2.0, 3.0), (12, 15, 14)
    areas, compared = area_table_mm2(spacing), 0
    for _ in range(12):
        liver = ndimage.gaussian_filter(rng.random(shape), 1.5) > 0.45
        sides = [liver & (ndimage.gaussian_filter(rng.random(shape), 2.5) > 0.5) for _ in range(2)]
        cuts = [cut_of(Region.of(liver, spacing), Region.of(flr, spacing)) for flr in sides]
        brute = [_brute_cut(liver, flr, spacing, areas) for flr in sides]
        for ours, (points, deep, _) in zip(cuts, brute, strict=True):
            assert {tuple(p) for p in ours.points_zyx} == points
            assert {tuple(p) for p in ours.surface.points_zyx} == set(deep)
        if all(deep for _, deep, _ in brute):
            compared += 1
            found = cut_outcomes(*cuts, Region.of(np.zeros(shape, bool), spacing))
            (_, one, area_one), (_, two, area_two) = brute
            apart = cdist(np.array(one) * spacing, np.array(two) * spacing)
            total = sum(area_one) + sum(area_two)
            mean = (apart.min(1) @ area_one + apart.min(0) @ area_two) / total
            within = np.array(area_one) @ (apart.min(1) <= 5.0) + np.array(area_two) @ (apart.min(0) <= 5.0)
            assert found["cut_mean_mm"] == pytest.approx(mean, abs=1e-6)
            assert found["cut_nsd_5mm"] == pytest.approx(within / total, abs=1e-6)
    assert compared > 5


def _brute_cut(liver, flr, spacing, areas):
    """All corners of faces between the sides; those deep in the liver, and their areas."""
    labels, _ = ndimage.label(np.pad(~liver, 1, constant_values=True))
    outside = labels == labels[0, 0, 0]
    # The eight voxels around the corner before voxel (z, y, x) of the unpadded grid.
    inside, remnant, outer = (sliding_window_view(a, (2, 2, 2)) for a in (np.pad(liver, 1), np.pad(flr, 1), outside))
    resection, every = inside & ~remnant, (3, 4, 5)
    faces = np.zeros(inside.shape[:3], bool)
    for axis in every:
        for k in (0, 1):
            faces |= (remnant.take(k, axis) & resection.take(1 - k, axis)).any(axis=(3, 4))
    capsule = np.argwhere(outer.any(axis=every) & ~outer.all(axis=every)) * spacing
    deep, deep_areas = [], []
    for corner in np.argwhere(faces & inside.all(axis=every)):
        if np.linalg.norm(capsule - corner * spacing, axis=1).min() > 5.0 + 1e-9:
            deep.append(tuple(corner))
            deep_areas.append(float(areas[int(np.packbits(remnant[tuple(corner)].ravel(), bitorder="little")[0])]))
    return {tuple(corner) for corner in np.argwhere(faces)}, deep, deep_areas
