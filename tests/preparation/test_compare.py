"""Two label sets of the same cases; changes counted by hand on a grid of 0.0018 ml a voxel."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Structure
from flrplan.errors import GridError, LabelError
from flrplan.image import Geometry
from flrplan.preparation.compare import compare_all, pair_cases
from flrplan.preparation.compare_picture import write_comparison_picture
from flrplan.preparation.compare_table import changes_csv, changes_markdown


def write_set(folder: Path, case: str, geometry: Geometry, liver: Any, crlm: Any, flr: Any) -> None:
    (folder / case).mkdir(parents=True)
    for name, mask in (("liver", liver), ("crlm", crlm), ("flr", flr)):
        sitk.WriteImage(geometry.image(mask), str(folder / case / f"{name}.nii.gz"))


@pytest.fixture
def sets(masks: Any, geometry: Geometry, tmp_path: Path) -> tuple[Path, Path]:
    """Case a: Tumor_1 and the focus in the lung against Tumor_1 with one voxel more; the liver unchanged. Case b: no CRLM."""
    first, second = tmp_path / "first", tmp_path / "second"
    empty = np.zeros_like(masks["Liver"])
    grown = masks["Tumor_1"].copy()
    grown[3, 7, 4] = True
    write_set(first, "a", geometry, masks["Liver"], masks["Tumor_1"] | masks["Tumor_3"], masks["Liver Remnant"])
    write_set(second, "a", geometry, masks["Liver"], grown, masks["Liver"])
    write_set(first, "b", geometry, masks["Liver"], empty, masks["Liver Remnant"])
    write_set(second, "b", geometry, masks["Liver"], empty, empty)
    return first, second


def test_what_changed_is_counted(sets: tuple[Path, Path]) -> None:
    pairs, gaps = pair_cases(*sets)
    changes = {(c.case, c.structure): c for c in compare_all(pairs, progress=False)}
    assert gaps == []
    crlm = changes["a", Structure.CRLM]  # 8 voxels before, 7 after, 6 shared
    assert crlm.dice == pytest.approx(12 / 15)
    assert (crlm.added_voxels, crlm.removed_voxels) == (1, 2)
    assert (crlm.first_pieces, crlm.second_pieces, crlm.removed_pieces, crlm.added_pieces) == (2, 1, 1, 0)
    assert crlm.change_ml == pytest.approx(-0.0018, abs=1e-8)
    assert crlm.change_percent == pytest.approx(-12.5, abs=1e-5)
    assert crlm.removed_ml == pytest.approx(0.0036, abs=1e-8)
    assert crlm.largest_removed_mm == pytest.approx((6 * 3.6 / math.pi) ** (1 / 3), abs=1e-5)
    flr = changes["a", Structure.FLR]  # 160 to 320 voxels
    assert (flr.dice, flr.added_voxels, flr.removed_voxels) == (pytest.approx(2 * 160 / 480), 160, 0)
    assert changes["a", Structure.LIVER].dice == 1.0
    none = changes["b", Structure.CRLM]
    assert math.isnan(none.dice)
    assert math.isnan(none.change_percent)
    gone = changes["b", Structure.FLR]
    assert (gone.dice, gone.change_percent, gone.removed_pieces) == (0.0, -100.0, 1)


def test_table_and_picture(sets: tuple[Path, Path], hu: Any, geometry: Geometry, tmp_path: Path) -> None:
    pairs, _ = pair_cases(*sets)
    changes = compare_all(pairs, progress=False)
    rows = list(csv.DictReader(changes_csv(changes).splitlines()))
    assert [(r["case"], r["structure"]) for r in rows][:3] == [("a", "liver"), ("a", "crlm"), ("a", "flr")]
    assert rows[4]["dice"] == ""
    text = changes_markdown(changes, "original", "refined")
    assert "| crlm | 2 | 0.800 | 0.800 (a) | -0.00 | -12.5 | 1 | 2 | 2 | 1 | 1 | 1.9 |" in text
    assert "1 CRLM foci in 1 cases" in text
    assert "crlm: 1 of 2 cases are empty in both sets" in text
    (tmp_path / "images").mkdir()
    sitk.WriteImage(geometry.image(hu), str(tmp_path / "images/a.nii.gz"))
    for name, images in (("grey.png", None), ("ct.png", tmp_path / "images")):
        write_comparison_picture(tmp_path / name, changes, pairs, images)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "grey.png").read_bytes() != (tmp_path / "ct.png").read_bytes()


def test_sets_of_other_cases_or_grids_are_refused(sets: tuple[Path, Path], masks: Any, geometry: Geometry) -> None:
    first, second = sets
    write_set(first, "c", geometry, masks["Liver"], masks["Tumor_1"], masks["Liver Remnant"])
    with pytest.raises(LabelError, match=r"c is only in .*first"):
        pair_cases(first, second)
    pairs, gaps = pair_cases(first, second, allow_missing=True)
    assert [p.case for p in pairs] == ["a", "b"]
    assert "Not compared: c is only in" in changes_markdown(compare_all(pairs, progress=False), "x", "y", gaps)
    moved = Geometry(geometry.size_xyz, geometry.spacing_mm, (0.0, 0.0, 0.0))
    write_set(second, "c", moved, masks["Liver"], masks["Tumor_1"], masks["Liver Remnant"])
    with pytest.raises(GridError, match="is not on the grid of"):
        compare_all(pair_cases(first, second)[0], progress=False)
