"""Couinaud's segments by a given map: what is read, what lies where, and what is said of maps that do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import APPEARANCE, Structure
from flrplan.cohort import case, make_case
from flrplan.errors import FlrError, GridError, ImageError, LabelError
from flrplan.image import CT, Geometry, read_ct
from flrplan.image.dicom_write import write_dicom_series
from flrplan.objects.seg import Segment, segmentation
from flrplan.planning.criteria import RESECTIONS, SEGMENTS
from flrplan.planning.parts import Parts, parts_of
from flrplan.planning.segments import (
    SegmentVolume,
    checked_segment_map,
    describe_resected,
    describe_shares,
    read_segment_map,
    segments_of,
)

C, S = float(np.cos(0.3)), float(np.sin(0.3))
GRID = Geometry((34, 12, 10), (1.0, 2.0, 5.0), (-17.0, 0.0, 50.0), (C, -S, 0, S, C, 0, 0, 0, 1))  # oblique; voxels of 0.01 ml
LIVER = np.zeros(GRID.shape_zyx, bool)
LIVER[2:8, 2:10, 1:33] = True
NONE = np.zeros_like(LIVER)
STRIPES = np.where(LIVER, (np.arange(34) + 3) // 4, 0).astype(np.uint8)
"""Segments I to VIII from column 1 on, four columns each: 6 x 8 x 4 voxels of 0.01 ml."""
ROMAN = (*SEGMENTS,)
ODD = ("spleen", "segments_2_3", "II/III", "V-VIII", "liver_segment_9", "segment 10", "4 of 8")
"""Names of no segment, or of several."""


def ct_of(grid: Geometry = GRID) -> CT:
    return CT(np.zeros(grid.shape_zyx, np.int16), grid, "case", "ct.nii.gz")


def saved(path: Path, array: np.ndarray, grid: Geometry = GRID) -> Path:
    sitk.WriteImage(grid.image(array), str(path))
    return path


def test_each_metastasis_and_each_segment_by_hand() -> None:
    label = np.where(LIVER, np.where(np.arange(34) < 15, 1, 2), 0).astype(np.uint8)  # IV: 2 of 4 columns go, V to VIII whole
    label[4, 4:6, 26:30] = 3  # columns 26 to 28 are VII, 29 is VIII
    label[5, 8, 5] = 4
    parts = parts_of(label, GRID, segments_of(STRIPES, LIVER, NONE, GRID, "map").label_zyx)
    large, small = parts.lesions
    assert (large.segments, small.segments) == ((("VII", 0.75), ("VIII", 0.25)), (("II", 1.0),))
    assert (describe_shares(large.segments or ()), describe_shares(small.segments or ())) == ("VII 75 %, VIII 25 %", "II")
    assert parts.segments is not None
    assert [(s.segment, round(s.volume_ml, 4), round(s.resected_ml, 4)) for s in parts.segments] == [
        *((name, 1.92, 0.0) for name in ROMAN[:3]),
        ("IV", 1.92, 0.96),
        *((name, 1.92, 1.92) for name in ROMAN[4:]),
        (None, 0.0, 0.0),
    ]
    assert describe_resected(parts.segments) == "V, VI, VII, VIII whole (right hepatectomy), IV 50 %"
    written = parts.to_json()
    assert written["segments"][3] == {"segment": "IV", "volume_ml": 1.92, "resected_ml": 0.96, "resected_fraction": 0.5}
    assert written["segments"][-1]["resected_fraction"] is None
    assert written["lesions"][0]["segments"][1] == {"segment": "VIII", "fraction": 0.25}
    assert written["liver_part"] == "Couinaud's segments by the given map"


def test_without_a_map_nothing_is_said_of_segments() -> None:
    label = np.where(LIVER, 2, 0).astype(np.uint8)
    label[4, 4, 4] = 3
    written = parts_of(label, GRID).to_json()
    assert (written["segments"], written["lesions"][0]["segments"]) == (None, None)
    assert written["liver_part"].startswith("not computable")
    assert "--liver-segments takes a map" in written["liver_part"]
    nothing = np.zeros_like(label)
    assert parts_of(nothing, GRID, nothing) == Parts((), (), ()), "no liver, no segments"


def test_liver_beside_the_map_is_of_the_nearest_segment_up_to_5_mm_and_of_none_beyond() -> None:
    map_zyx = STRIPES.copy()
    map_zyx[:, 2:4] = 0  # rows of 2 mm: one lies 2, one 4 mm from the map
    map_zyx[:, :, 25:] = 0  # VII and VIII are missing: 8 columns of 1 mm, 5 of them within 5 mm of VI
    found = segments_of(map_zyx, LIVER, NONE, GRID, "map")
    filled = STRIPES.copy()
    filled[:, :, 25:30][LIVER[:, :, 25:30]] = 6
    filled[:, :, 30:] = 0
    corner = (
        np.hypot(*np.meshgrid((4.0, 2.0), np.arange(1.0, 9.0), indexing="ij")) > 5
    )  # of the two rows: mm from row 4, column 24
    filled[2:8, 2:4, 25:33][:, corner] = 0
    assert np.array_equal(found.label_zyx, filled)
    none_ml = 0.01 * np.count_nonzero(LIVER & (filled == 0))
    near_ml = 0.01 * np.count_nonzero(LIVER & (map_zyx == 0)) - none_ml
    assert (
        f"{near_ml:.1f} ml of the liver within 5 mm of it, or of metastases that it leaves out, are of the nearest segment, {none_ml:.1f} ml farther away of none"
        in found.said
    )
    assert found.warnings[0].startswith("the map of liver segments holds I, II, III, IV, V, VI alone")
    assert found.warnings[1] == (
        f"{none_ml:.0f} ml of the liver ({100 * none_ml / 15.36:.0f} %) are of no segment: they lie farther than 5 mm from the given map"
    )
    label = np.where(LIVER, 1, 0).astype(np.uint8)
    label[4, 5, 29:31] = 4
    label[6, 5, 32] = 4
    half, outside = parts_of(label, GRID, found.label_zyx).lesions
    assert half.segments == ((None, 0.5), ("VI", 0.5))
    assert (describe_shares(half.segments), describe_shares(outside.segments or ())) == (
        "outside the map 50 %, VI 50 %",
        "outside the map",
    )


def test_a_large_metastasis_that_the_map_leaves_out_is_of_the_segments_around_it_and_one_beyond_the_map_of_none() -> None:
    map_zyx, crlm = STRIPES.copy(), NONE.copy()
    crlm[2:8, 2:10, 4:18] = True  # 14 mm wide, from I to V: its middle lies 7 mm from the map
    map_zyx[crlm] = 0
    crlm[4, 5, 31:33] = True  # 7 and 8 mm beyond a map that ends before VII
    map_zyx[:, :, 25:] = 0
    label = segments_of(map_zyx, LIVER, crlm, GRID, "map").label_zyx
    assert label[4, 5].tolist() == [0, *[1] * 10, *[5] * 10, *[6] * 9, 0, 0, 0, 0]
    without = segments_of(map_zyx, LIVER, NONE, GRID, "map").label_zyx
    assert without[4, 5, 4:18].tolist() == [*[1] * 5, 0, 0, 0, 0, *[5] * 5]
    touching = NONE.copy()
    touching[4, 5, 24:33] = True
    assert segments_of(map_zyx, LIVER, touching, GRID, "map").label_zyx[4, 5, 24:].tolist() == [*[6] * 9, 0]


def test_a_map_of_the_very_liver_is_taken_as_it_is_and_what_lies_outside_the_liver_counts_nowhere() -> None:
    larger = np.where(STRIPES, STRIPES, 8).astype(np.uint8)
    larger[:, :, :20] = STRIPES[:, :, :20]
    for given in (STRIPES, larger):
        found = segments_of(given, LIVER, NONE, GRID, "map")
        assert np.array_equal(found.label_zyx, STRIPES)
        assert found.warnings == ()


def test_a_map_of_another_liver_is_an_error_that_says_how_much_fits() -> None:
    for moved, percent in ((20, 38), (40, 0)):
        liver = np.zeros((*GRID.shape_zyx[:2], 80), bool)
        liver[:, :, : GRID.size_xyz[0]] = LIVER
        other = np.zeros(liver.shape, np.uint8)
        other[:, :, moved : moved + GRID.size_xyz[0]] = STRIPES
        with pytest.raises(
            LabelError, match=rf"^map.nii: {percent} % of its liver segments lie in the liver of this CT.*Give the one of"
        ):
            segments_of(other, liver, liver & False, replace(GRID, size_xyz=(80, *GRID.size_xyz[1:])), "map.nii")


def test_a_map_on_turned_and_flipped_axes_lies_where_it_was_drawn(tmp_path: Path) -> None:
    image = GRID.image(STRIPES)
    for n, turned in enumerate((sitk.PermuteAxes(image, [1, 2, 0]), sitk.Flip(image, [True, False, True]))):
        path = tmp_path / f"{n}.nii.gz"
        sitk.WriteImage(turned, str(path))
        assert np.array_equal(read_segment_map(path, ct_of()), STRIPES)


def test_named_segments_of_3d_slicer_and_of_a_dicom_seg(tmp_path: Path, write_slicer: Callable[..., Path]) -> None:
    names = ("liver_segment_1", "Liver segment II", "S3", "IVa", "v", "Couinaud VI", "Segment_7", "VIII")
    masks = {name: n == STRIPES for n, name in reversed([*enumerate(names, 1)])}  # values against the order of the segments
    masks["IVb"] = masks["IVa"] & (np.arange(34) < 15)
    masks["IVa"] = masks["IVa"] & ~masks["IVb"]
    assert np.array_equal(read_segment_map(write_slicer(tmp_path / "a.seg.nrrd", GRID, masks), ct_of()), STRIPES)
    for more, said in (
        *((odd, f"found {odd!r}; rename it, or save the liver segments alone") for odd in ODD),
        ("IIb", "overlaps another one"),
    ):
        with pytest.raises(LabelError, match=said):
            read_segment_map(write_slicer(tmp_path / "b.seg.nrrd", GRID, {**masks, more: STRIPES == 3}), ct_of())
    drawn = {f"Segment_{n}": n == STRIPES for n in range(1, 9)} | {"Segment_9": STRIPES == 3}  # the last in a layer of its own
    with pytest.raises(LabelError, match=r"the names that 3D Slicer gives by itself .*Segment_9.*; name them I to VIII"):
        read_segment_map(write_slicer(tmp_path / "c.seg.nrrd", GRID, drawn), ct_of())
    grid = Geometry(GRID.size_xyz, GRID.spacing_mm, (0.0, 0.0, 0.0))
    write_dicom_series(
        tmp_path / "ct", np.arange(STRIPES.size, dtype=np.int16).reshape(grid.shape_zyx) - 1000, grid, "A", "a CT"
    )
    ct = read_ct(tmp_path / "ct")
    look = APPEARANCE[Structure.LIVER]
    of = [Segment(f"liver_segment_{n}", look, frozenset({n}), None) for n in range(8, 0, -1)]
    segmentation(STRIPES, of, ct, "segments").save_as(tmp_path / "a.dcm")
    assert np.array_equal(read_segment_map(tmp_path / "a.dcm", ct), STRIPES)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros_like(STRIPES), r"found the values \[0\]"),
        (LIVER.astype(np.uint8), r"found the values \[0, 1\]"),
        (np.where(STRIPES == 8, 9, STRIPES), r"found the values \[0, 1, 2, 3, 4, 5, 6, 7, 9\]"),
        (np.where(STRIPES == 8, -1, STRIPES.astype(np.int16)), r"found the values \[-1, 0, 1, 2, 3, 4, 5, 6, 7\]"),
    ],
)
def test_what_is_no_map_of_segments_is_told_with_the_values_found(array: np.ndarray, found: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "map.nii.gz", array)
    with pytest.raises(LabelError, match=f"map.nii.gz: expected a map of liver segments, the values 1 to 8 .*{found}; Total"):
        read_segment_map(path, ct_of())


def test_files_that_do_not_fit_the_ct_are_told(tmp_path: Path) -> None:
    moved = saved(tmp_path / "moved.nii.gz", STRIPES, replace(GRID, origin_mm=(0.0, 0.0, 0.0)))
    graded = saved(tmp_path / "graded.nii.gz", STRIPES / np.float32(3))
    (tmp_path / "folder").mkdir()
    cases: list[tuple[Path, type[FlrError], str]] = [
        (moved, GridError, "moved.nii.gz is not on the grid of ct.nii.gz"),
        (graded, LabelError, "expected whole numbers as labels"),
        (tmp_path / "folder", ImageError, "is a folder, expected the file of a mask"),
        (tmp_path / "none.nii.gz", ImageError, "no such file"),
    ]
    for path, kind, said in cases:
        with pytest.raises(kind, match=re.escape(said)):
            read_segment_map(path, ct_of())


def test_checked_maps_of_floats_and_big_numbers_are_small_ones() -> None:
    assert checked_segment_map(STRIPES.astype(np.int64), "x").dtype == np.uint8
    with pytest.raises(LabelError, match=r"found the values \[0.0, 1.5, 2.0"):
        checked_segment_map(np.where(STRIPES == 1, 1.5, STRIPES), "x")


@pytest.mark.parametrize(("goes", "name"), RESECTIONS.items(), ids=RESECTIONS.values())
def test_what_goes_whole_has_the_name_of_its_operation(goes: frozenset[str], name: str) -> None:
    def volumes(beyond_ml: float) -> list[SegmentVolume]:
        of = [SegmentVolume(s, 100.0, 97.0 if s in goes else 4.0) for s in ROMAN]
        return [*of, SegmentVolume(None, beyond_ml, 0.0)]

    listed, beside = ", ".join(s for s in ROMAN if s in goes), next(r for r in ROMAN[1:] if r not in goes)
    assert describe_resected(volumes(40.0)) == f"{listed} whole ({name})"
    assert describe_resected(volumes(60.0)) == f"{listed} whole", "much of the liver is of no segment: no name"
    without = [replace(s, volume_ml=0.0, resected_ml=0.0) if s.segment == beside else s for s in volumes(0)]
    assert name not in describe_resected(without), "a map that lacks a segment may be no map of Couinaud's"
    more = [replace(s, resected_ml=60.0) if s.segment == beside else s for s in volumes(0)]
    assert name not in describe_resected(more), "most of another segment goes as well"


def test_segment_i_is_told_apart_and_nothing_is_told_as_none() -> None:
    with_i = [SegmentVolume(s, 10.0, 10.0 if s in ("I", "II", "III") else 0.0) for s in ROMAN]
    assert describe_resected(with_i).startswith("I, II, III whole (left lateral sectionectomy)")
    wedge = [SegmentVolume(s, 10.0, 2.0 if s == "VI" else 0.0) for s in ROMAN]
    assert describe_resected(wedge) == "VI 20 %"
    assert describe_resected([SegmentVolume(s, 10.0, 0.0) for s in ROMAN]) == "none"


def test_the_cohorts_right_hepatectomy_takes_the_segments_of_its_sectors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    paint_map = case.planning_map
    monkeypatch.setattr(case, "planning_map", lambda *of: (seen.append(of), seen.append(paint_map(*of)))[0] or seen[-1])
    facts = make_case(seed=4, index=0, size="small").facts
    (organs, grid, liver, *_), planning = seen
    couinaud = np.zeros(organs.shape, np.uint8)
    fields = (liver.right, liver.posterior, liver.lateral, liver.upper, liver.caudate)
    for slabs in zip(*(grid.slabs(field, whole=True) for field in fields), strict=True):
        right, posterior, lateral, upper, caudate = (values > 0 for _, values in slabs)
        of_right = np.where(posterior, np.where(upper, 7, 6), np.where(upper, 8, 5))
        of_left = np.where(lateral, np.where(upper, 2, 3), np.where(caudate, 1, 4))
        couinaud[slabs[0][0]] = np.where(right, of_right, of_left)
    couinaud[planning == 0] = 0
    grid_of = Geometry(organs.shape[::-1], (4.0, 4.0, 5.0))
    parts = parts_of(planning, grid_of, segments_of(couinaud, planning > 0, planning > 2, grid_of, "map").label_zyx)
    assert facts["resection"] == "right hepatectomy"
    assert parts.segments is not None
    assert describe_resected(parts.segments).startswith("V, VI, VII, VIII whole (right hepatectomy)")
    sectors = {"V": "right anterior", "VIII": "right anterior", "VI": "right posterior", "VII": "right posterior"}
    (told,) = facts["lesions"]
    (lesion,) = parts.lesions
    held = {
        sector: sum(share for s, share in lesion.segments or () if sectors[s or ""] == sector) for sector in sectors.values()
    }
    assert {sector for sector, share in held.items() if share >= 0.2} == {*told["sectors"]}
