"""The contact sheet: which slices it shows, which cases it picks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flrplan.anatomy import Compartment
from flrplan.cohort import SyntheticCase, contact_sheet, sheet_case
from flrplan.cohort.picture import case_title, varied_cases
from flrplan.errors import CohortError
from flrplan.image import Geometry

GEOMETRY = Geometry((30, 28, 26), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0))


def body() -> np.ndarray:
    """Air, and fat in rows 4 to 23 and columns 5 to 24 of every slice."""
    hu = np.full(GEOMETRY.shape_zyx, -1000, np.int16)
    hu[:, 4:24, 5:25] = -100
    return hu


def test_slices_go_through_the_most_tumour_and_are_cut_to_the_body() -> None:
    label = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    label[8:20, 8:20, 8:20] = Compartment.REMNANT
    label[9, 10, 10] = Compartment.CRLM_IN_REMNANT
    label[12, 9:12, 10] = Compartment.CRLM_IN_RESECTION
    hu = body()
    hu[12] += 5
    case = sheet_case(hu, label, GEOMETRY, "one")
    assert case.axial.hu.shape == (20, 20)
    assert case.axial.hu.max() == -95
    assert case.axial.label is not None
    assert np.count_nonzero(case.axial.label == Compartment.CRLM_IN_RESECTION) == 3
    assert case.coronal.hu.shape == (26, 20)
    assert case.coronal.pixel_mm == (4.0, 4.0)
    assert int(np.argmax(case.coronal.hu[:, 10])) == 25 - 12  # head up


def test_without_a_label_the_thickest_soft_tissue_is_shown() -> None:
    hu = body()
    for z in range(10, 19):  # 36 mm
        hu[z, 8:19, 8:19] = 50 + z
    case = sheet_case(hu, None, GEOMETRY, "a CT")
    assert case.axial.hu.max() == 64  # slice 14, the middle one
    assert case.axial.label is None


def test_varied_cases_bring_what_was_not_seen() -> None:
    plain = {"case_id": "a", "phase": "late", "lesions": [{"kind": "rim", "place": "deep"}], "noise_hu": 3.0}
    same = {**plain, "case_id": "b", "noise_hu": 9.0}
    other = {**plain, "case_id": "c", "lesions": [{"kind": "calcified", "place": "deep"}]}
    third = {**plain, "case_id": "d", "phase": "arterial", "metal": "none"}
    assert varied_cases([plain, same, other, third], 1) == [3]  # the one with most words
    assert varied_cases([plain, same, other, third], 3) == [0, 2, 3]
    assert varied_cases([plain], 5) == [0]
    assert varied_cases([plain], 0) == []


def test_titles_name_metal_only_where_there_is_some(small_cases: list[SyntheticCase]) -> None:
    facts = {**small_cases[0].facts, "metal": "none", "lesion_count": 1}
    assert "none" not in case_title(facts).splitlines()[0].split(", ")[2:]
    assert "1 lesion," in case_title(facts)
    assert "surgical clips" in case_title({**facts, "metal": "surgical clips"})


def test_the_sheet_is_a_png(small_cases: list[SyntheticCase], tmp_path: Path) -> None:
    cases = [sheet_case(c.hu_zyx, c.planning_zyx, c.geometry, c.case_id) for c in small_cases[:2]]
    path = contact_sheet(cases, tmp_path / "sheets" / "sheet.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    with pytest.raises(CohortError, match="at least one case"):
        contact_sheet([], tmp_path / "none.png")
