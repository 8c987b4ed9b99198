"""A plan after clicks: a box of a liver in fat, a ball of a metastasis, on a grid of 2 x 2 x 4 mm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.anatomy import Mask, Structure
from flrplan.clicks import Correction, Marks, correct
from flrplan.errors import LabelError
from flrplan.image import Geometry

GRID = Geometry((48, 44, 24), (2.0, 2.0, 4.0))
"""A voxel has 0.016 ml."""
CENTRE, RADIUS_MM = (12, 20, 16), 12.0
CUT = 26
"""First column of the remnant."""


def ball(centre: Sequence[int], radius_mm: float) -> Mask:
    place = np.indices(GRID.shape_zyx) - np.reshape(centre, (3, 1, 1, 1))
    return np.asarray(np.linalg.norm(place * np.reshape(GRID.spacing_zyx_mm, (3, 1, 1, 1)), axis=0) <= radius_mm)


@pytest.fixture(scope="module")
def liver() -> Mask:
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[4:20, 6:38, 6:42] = True
    return mask


@pytest.fixture(scope="module")
def lesion() -> Mask:
    return ball(CENTRE, RADIUS_MM)


@pytest.fixture(scope="module")
def hu(liver: Mask, lesion: Mask) -> NDArray[np.int16]:
    noise = np.random.default_rng(5).normal(0, 8, GRID.shape_zyx)
    return (np.where(lesion, 55, np.where(liver, 110, -90)) + noise).astype(np.int16)


@pytest.fixture(scope="module")
def flr(liver: Mask) -> Mask:
    return liver & (np.indices(GRID.shape_zyx)[2] >= CUT)


def after(
    masks: Sequence[Mask],
    hu: NDArray[np.int16],
    structure: Structure,
    inside: Sequence[Sequence[int]] = (),
    outside: Sequence[Sequence[int]] = (),
) -> Correction:
    marks = Marks(np.array(inside, int).reshape(-1, 3), np.array(outside, int).reshape(-1, 3))
    found = correct(
        dict(zip((Structure.LIVER, Structure.CRLM, Structure.FLR), masks, strict=True)), hu, GRID, {structure: marks}
    )
    liver, crlm, flr = found.masks.values()
    assert not (crlm & ~liver).any(), "a metastasis beside the liver"
    assert not (flr & ~liver).any(), "a remnant beside the liver"
    return found


def dice(a: Mask, b: Mask) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def none() -> Mask:
    return np.zeros(GRID.shape_zyx, bool)


def test_a_clicked_metastasis_is_found_and_nothing_else_changes(
    liver: Mask, lesion: Mask, flr: Mask, hu: NDArray[np.int16]
) -> None:
    found = after((liver, none(), flr), hu, Structure.CRLM, [CENTRE])
    assert dice(found.masks[Structure.CRLM], lesion) > 0.9
    assert np.array_equal(found.masks[Structure.LIVER], liver)
    assert np.array_equal(found.masks[Structure.FLR], flr)
    again = after((liver, found.masks[Structure.CRLM], flr), hu, Structure.CRLM, [CENTRE])
    assert np.array_equal(again.masks[Structure.CRLM], found.masks[Structure.CRLM]), "the same click again"


def test_a_false_metastasis_that_is_clicked_goes_wholly_and_the_true_one_stays(
    liver: Mask, lesion: Mask, flr: Mask, hu: NDArray[np.int16]
) -> None:
    false = ball((12, 20, 36), 8.0) & liver
    found = after((liver, lesion | false, flr), hu, Structure.CRLM, outside=[(12, 20, 36)])
    assert np.array_equal(found.masks[Structure.CRLM], lesion)


def test_a_click_at_the_edge_of_a_metastasis_trims_it(liver: Mask, lesion: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    wide = ball(CENTRE, RADIUS_MM) | ball((12, 27, 16), 6.0)
    found = after((liver, wide, flr), hu, Structure.CRLM, [CENTRE], [(12, 28, 16)]).masks[Structure.CRLM]
    assert not found[12, 28, 16]
    assert dice(found, lesion) > dice(wide, lesion)
    assert found[ball(CENTRE, 6.0)].all()


def test_a_metastasis_outside_of_the_liver_is_refused_with_the_way_out(liver: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    with pytest.raises(LabelError, match=r"mark at \[2, 2, 2\] lies outside the liver.*mark it as liver first"):
        after((liver, none(), flr), hu, Structure.CRLM, [(2, 2, 2)])
    found = after((liver, none(), flr), hu, Structure.CRLM, [(2, 2, 2), CENTRE])
    assert found.masks[Structure.CRLM].any(), "the other click is taken"
    assert "lies outside the liver" in found.notes[0]


def test_a_click_where_nothing_stands_out_marks_no_more_than_its_place(liver: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    found = after((liver, none(), flr), hu, Structure.CRLM, [(12, 20, 34)])
    crlm = found.masks[Structure.CRLM]
    assert crlm[12, 20, 34]
    assert not (crlm & ~ball((12, 20, 34), 8.0)).any()
    assert "looks like the liver around it" in found.notes[0]


def test_a_metastasis_across_the_cut_goes_to_the_side_that_holds_more(liver: Mask, lesion: Mask, hu: NDArray[np.int16]) -> None:
    flr = liver & (np.indices(GRID.shape_zyx)[2] >= CENTRE[2] - 2)
    found = after((liver, none(), flr), hu, Structure.CRLM, [CENTRE])
    assert found.masks[Structure.FLR][found.masks[Structure.CRLM]].all()
    assert np.array_equal((found.masks[Structure.FLR] ^ flr) & ~found.masks[Structure.CRLM], none())


def test_missing_liver_is_found_by_a_click_and_belongs_to_the_nearest_side(
    liver: Mask, flr: Mask, hu: NDArray[np.int16]
) -> None:
    part = liver.copy()
    part[4:20, 6:38, 34:] = False
    found = after((part, none(), flr & part), hu, Structure.LIVER, [(12, 20, 38)])
    new = found.masks[Structure.LIVER]
    assert dice(new, liver) > dice(part, liver)
    assert not (new & ~liver)[:, :, 44:].any(), "fat is no liver"
    assert np.array_equal(found.masks[Structure.FLR], flr & new)


def test_a_stroke_outside_takes_what_is_no_liver(liver: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    wide = liver.copy()
    wide[4:20, 12:30, :6] = True
    stroke = [(12, y, 2) for y in range(14, 28)]
    found = after((wide, none(), flr), hu, Structure.LIVER, outside=stroke).masks[Structure.LIVER]
    assert not found[12, 14:28, 2].any()
    assert dice(found, liver) > dice(wide, liver)
    assert (found & ~wide).sum() == 0
    assert found[liver].mean() > 0.98


def test_the_cut_is_bent_past_a_click_and_back_in_the_distance(liver: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    found = after((liver, none(), flr), hu, Structure.FLR, [(12, 20, 22)]).masks[Structure.FLR]
    assert found[12, 20, 22:CUT].all()
    assert not found[12, 20, :20].any()
    assert (found & ~flr).sum() > 30
    assert found[flr].all()
    back = after((liver, none(), found), hu, Structure.FLR, outside=[(12, 20, 22)]).masks[Structure.FLR]
    assert not back[12, 20, 22]


def test_a_clicked_metastasis_changes_its_side_as_a_whole(liver: Mask, lesion: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    found = after((liver, lesion, flr), hu, Structure.FLR, [CENTRE]).masks
    assert found[Structure.FLR][lesion].all()
    assert np.array_equal(found[Structure.CRLM], lesion)


def test_what_the_label_says_already_changes_nothing(liver: Mask, lesion: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    found = after((liver, lesion, flr), hu, Structure.CRLM, [CENTRE], [(12, 20, 36)])
    assert np.array_equal(found.masks[Structure.CRLM], lesion)


def test_the_end_of_a_liver_and_too_many_marks_are_errors(liver: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    crumb = ball((12, 20, 20), 4.0)
    with pytest.raises(LabelError, match="nothing would remain of the liver"):
        after((crumb, none(), none()), hu, Structure.LIVER, outside=np.argwhere(crumb).tolist())
    apart = np.argwhere(np.pad(np.ones((6, 7, 7)), 0))[:, :] * [4, 6, 6]
    with pytest.raises(LabelError, match="more than the 200 that are taken at once"):
        after((ball((12, 20, 20), 80.0), none(), none()), hu, Structure.CRLM, [p for p in apart.tolist()])


ODD = Geometry((45, 41, 23), (0.8, 0.9, 2.5), (-20.0, 7.0, 30.0), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
"""Oblique; blocks of about 1.5 mm do not fill it."""


@pytest.mark.parametrize(
    ("order", "flips"),
    [((0, 1, 2), (True, True, False)), ((0, 1, 2), (False, False, True)), ((0, 2, 1), (False,) * 3), ((1, 2, 0), (True,) * 3)],
)
@pytest.mark.parametrize("case", ["metastasis", "liver", "cut", "trim"])
def test_the_same_click_gives_the_same_mask_however_the_ct_is_stored(
    case: str, flips: tuple[bool, ...], order: tuple[int, ...]
) -> None:
    z, y, x = np.indices(ODD.shape_zyx)
    liver = (z >= 3) & (z < 20) & (y >= 5) & (y < 35) & (x >= 5) & (x < 40)
    lesion = ((z - 12) * 2.5) ** 2 + ((y - 20) * 0.9) ** 2 + ((x - 17) * 0.8) ** 2 <= 49
    noise = np.random.default_rng(5).normal(0, 12, ODD.shape_zyx)
    hu = (np.where(lesion, 55, np.where(liver, 110, -90)) + noise).astype(np.int16)
    structure, masks, click, inside = {
        "metastasis": (Structure.CRLM, (liver, liver & False, liver & (x >= 26)), (17, 20, 12), True),
        "liver": (Structure.LIVER, (liver & (y < 28), liver & False, liver & (x >= 26) & (y < 28)), (20, 31, 12), True),
        "cut": (Structure.FLR, (liver, liver & False, liver & (x >= 26)), (21, 20, 12), True),
        "trim": (Structure.CRLM, (liver, lesion | (liver & (abs(y - 28) < 4) & (abs(x - 20) < 4)), liver), (20, 31, 12), False),
    }[case]

    def stored(array: NDArray[Any]) -> sitk.Image:
        return sitk.Flip(sitk.PermuteAxes(ODD.image(array), order), flips)

    def result(arrays: Sequence[NDArray[Any]], ct: NDArray[Any], grid: Geometry, voxel: Sequence[int]) -> Correction:
        marks = Marks(**{"inside" if inside else "outside": np.array([voxel[::-1]], np.intp)})
        given = dict(zip((Structure.LIVER, Structure.CRLM, Structure.FLR), arrays, strict=True))
        return correct(given, ct, grid, {structure: marks})

    there = stored(hu)
    voxel = there.TransformPhysicalPointToIndex(ODD.image(hu).TransformIndexToPhysicalPoint(click))
    arrays = [sitk.GetArrayFromImage(stored(m.astype(np.uint8))) > 0 for m in masks]
    found = result(arrays, sitk.GetArrayFromImage(there), Geometry.of(there), voxel)
    expected = result(masks, hu, ODD, click)
    assert not np.array_equal(expected.masks[structure], dict(zip(found.masks, masks, strict=True))[structure])
    for s, mask in expected.masks.items():
        assert np.array_equal(found.masks[s], sitk.GetArrayFromImage(stored(mask.astype(np.uint8))) > 0), s


def test_a_refused_mark_is_named_as_the_client_counts(liver: Mask, flr: Mask, hu: NDArray[np.int16]) -> None:
    feet_first = Geometry(GRID.size_xyz, GRID.spacing_mm, direction=(-1, 0, 0, 0, 1, 0, 0, 0, -1))
    marks = {Structure.CRLM: Marks(np.array([[1, 2, 3]]))}
    masks = {Structure.LIVER: liver, Structure.CRLM: none(), Structure.FLR: flr}
    with pytest.raises(LabelError, match=r"mark at \[3, 2, 1\] lies outside the liver"):
        correct(masks, hu, feet_first, marks)


def test_where_there_is_no_cut_or_no_border_nobody_is_sent_nearer_to_it(liver: Mask, hu: NDArray[np.int16]) -> None:
    with pytest.raises(LabelError, match="there is no cut, the whole liver is resected; draw a cut with the brush"):
        after((liver, none(), none()), hu, Structure.FLR, [CENTRE])
    with pytest.raises(LabelError, match="there is no cut, the whole liver is remnant"):
        after((liver, none(), liver), hu, Structure.FLR, outside=[CENTRE])
    everything = ~none()
    with pytest.raises(LabelError, match="there is no border; draw one with the brush"):
        after((everything, none(), none()), hu, Structure.LIVER, outside=[CENTRE])
