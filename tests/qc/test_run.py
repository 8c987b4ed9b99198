"""``flrplan qc`` on folders: which label is which case, what is written, what a broken file costs, and repairs as new files."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from flrplan.anatomy import Structure, structure_mask, to_compartments
from flrplan.cli import main
from flrplan.errors import LabelError, SettingsError
from flrplan.image import Canonical, Geometry, read_label_map, write_label_map, write_volume
from flrplan.qc import RULES, QcCase, check_case
from flrplan.qc.reading import find_labels, read_case, with_images
from flrplan.qc.repair import repaired, write_repaired

Anatomy = Any
GRID = Geometry((56, 48, 36), (4.0, 4.0, 5.0))


@pytest.fixture
def write(tmp_path: Path, anatomy: Anatomy) -> Callable[..., Path]:
    """Writes the planning map of the anatomy, or one mask of it, and its CT below ``tmp_path``."""

    def store(path: str, structure: Structure | None = None, geometry: Geometry = GRID) -> Path:
        masks = {Structure.LIVER: anatomy.liver, Structure.CRLM: anatomy.crlm, Structure.FLR: anatomy.flr}
        if path.startswith("images/"):
            write_volume(tmp_path / path, anatomy.hu, geometry)
        elif structure is None:
            write_label_map(tmp_path / path, to_compartments(*masks.values())[0], geometry)
        else:
            write_label_map(tmp_path / path, masks[structure], geometry)
        return tmp_path / path

    return store


def test_labels_of_every_layout_are_found(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("work/labels/a.nii.gz")
    write("work/masks/a/crlm.nii.gz", Structure.CRLM)
    write("work/masks/b/liver.nrrd", Structure.LIVER)
    write("flat/case10.nii.gz")
    write("flat/case2.mha")
    write("flat/c/planning.nii.gz")
    write("flat/d/liver.nii.gz", Structure.LIVER)
    found = find_labels(tmp_path / "work")
    assert [(f.case, f.truth.planning_map is not None, sorted(map(str, f.truth.masks))) for f in found] == [
        ("a", True, ["crlm"]),
        ("b", False, ["liver"]),
    ]
    assert [f.case for f in find_labels(tmp_path / "flat")] == ["c", "case2", "case10", "d"]
    single = find_labels(tmp_path / "flat", Structure.LIVER)
    assert {f.case: sorted(map(str, f.truth.masks)) for f in single}["case2"] == ["liver"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelError, match=r"no label; expected CASE.nii.gz"):
        find_labels(tmp_path / "empty")
    write("flat/case2.nii.gz")
    with pytest.raises(LabelError, match=r"two labels of case case2: .* take one of them out"):
        find_labels(tmp_path / "flat")


def test_a_map_beside_masks_says_nothing_of_the_resection(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("labels/a.nii.gz")
    assert Structure.LRS in read_case(find_labels(tmp_path)[0]).masks
    write("masks/a/flr.nii.gz", Structure.FLR)
    assert Structure.LRS not in read_case(find_labels(tmp_path)[0]).masks


def test_an_image_in_another_axis_order_is_turned_and_one_elsewhere_is_left_out(
    tmp_path: Path, anatomy: Anatomy, write: Callable[..., Path]
) -> None:
    write("labels/a.nii.gz")
    canonical = Canonical.of(Geometry((36, 56, 48), (5.0, 4.0, 4.0), (220.0, 0.0, 0.0), (0, -1, 0, 0, 0, 1, 1, 0, 0)))
    assert canonical.target.is_same_grid(GRID)
    write_volume(tmp_path / "images/a_0000.nii.gz", canonical.backward(anatomy.hu), canonical.source)
    write("images/b.nii.gz")
    labels, alone = with_images(find_labels(tmp_path), tmp_path / "images")
    assert [p.name for p in alone] == ["b.nii.gz"]
    case = read_case(labels[0])
    assert case.ct is not None
    assert np.array_equal(case.ct.array_zyx, anatomy.hu)
    (tmp_path / "images/a_0000.nii.gz").unlink()
    write("images/a.nii.gz", geometry=Geometry((56, 48, 36), (4.0, 4.0, 5.0), (9.0, 0.0, 0.0)))
    moved = read_case(with_images(find_labels(tmp_path), tmp_path / "images")[0][0])
    assert moved.ct is None
    assert "corners up to 9.0 mm away" in check_case(moved, rules=["grids"]).findings[0].message


def test_a_folder_gives_findings_a_page_and_pictures(
    tmp_path: Path, anatomy: Anatomy, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("labels/fine.nii.gz")
    write("images/fine.nii.gz")
    anatomy.liver[18:20, 22:24, 24:27] = False
    write("labels/<b#>.nii.gz")
    write("images/<b#>.nii.gz")
    write("images/unlabelled.nii.gz")
    out = tmp_path / "out"
    assert main(["qc", "--labels", str(tmp_path), "--images", str(tmp_path / "images"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "<b#>: 1 warning\nfine: nothing found\n" in said.out
    assert "images without a label: 1, such as" in said.err
    (record,) = json.loads((out / "findings.json").read_text())
    assert (record["case"], record["rule"], record["unit"]) == ("<b#>", "voids", "ml")
    rows = list(csv.DictReader((out / "findings.csv").open()))
    assert rows[0]["first_zyx"] == "18 22 24"
    cases = list(csv.DictReader((out / "cases.csv").open()))
    assert [(c["case"], c["warnings"], c["could_not_be_checked"]) for c in cases] == [("<b#>", "1", ""), ("fine", "0", "")]
    page = (out / "index.html").read_text()
    assert "<b#>" not in page
    assert "&lt;b#&gt;" in page
    for name in re.findall(r'<img[^>]* src="([^"]+)"', page):
        with Image.open(out / unquote(name)) as picture:
            assert picture.height == 280
    assert all(f'id="rule-{name}"' in page for name in RULES)


def test_a_name_is_no_formula_and_a_folder_that_cannot_be_written_is_told_first(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("labels/=1+1.nii.gz")
    out = tmp_path / "out"
    assert main(["qc", "--labels", str(tmp_path / "labels"), "--out", str(out)]) == 0
    assert (out / "cases.csv").read_text().splitlines()[1].startswith("'=1+1,")
    capsys.readouterr()
    (tmp_path / "file").touch()
    assert main(["qc", "--labels", str(tmp_path / "labels"), "--out", str(tmp_path / "file")]) == 1
    said = capsys.readouterr()
    assert said.out == "", "no case is checked in vain"
    assert "give another folder with --out" in said.err


def test_a_broken_label_costs_its_case_alone(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("labels/a.nii.gz")
    (tmp_path / "labels/b.nii.gz").write_bytes(b"no image")
    write_label_map(tmp_path / "labels/c.nii.gz", np.full((4, 4, 4), 9, np.uint8), Geometry((4, 4, 4), (1.0, 1.0, 1.0)))
    write_label_map(tmp_path / "labels/d.nii.gz", np.zeros((4, 4, 4), np.uint8), Geometry((4, 4, 4), (1.0, 1.0, 1.0)))
    out = tmp_path / "out"
    assert main(["qc", "--labels", str(tmp_path), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert f"could not be checked: b ({tmp_path / 'labels/b.nii.gz'})" in said.err
    assert "a planning label map holds 0..4" in said.err
    assert "d: 1 error" in said.out  # an empty label is checked: the liver has no voxels
    assert "could not be checked" in (out / "index.html").read_text()


def test_single_masks_are_checked_as_far_as_they_go(tmp_path: Path, write: Callable[..., Path]) -> None:
    write("masks_of_liver/a.nii.gz", Structure.LIVER)
    out = tmp_path / "out"
    words = ["qc", "--labels", str(tmp_path / "masks_of_liver"), "--structure", "liver", "--out", str(out)]
    assert main(words) == 0
    assert json.loads((out / "findings.json").read_text()) == []
    (row,) = csv.DictReader((out / "cases.csv").open())
    assert "shell needs flr" in row["not_checked"]


def test_thresholds_come_from_a_file_and_unknown_ones_are_refused(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("labels/a.nii.gz")
    settings = tmp_path / "qc.yaml"
    words = ["qc", "--labels", str(tmp_path), "--out", str(tmp_path / "out"), "--settings", str(settings)]
    settings.write_text("volumes: {low_ml: 900}\n")
    assert main(words) == 0
    assert "is outside 900 to 5000 ml" in (tmp_path / "out/findings.json").read_text()
    settings.write_text("volume: {low_ml: 900}\n")
    assert main(words) == 1
    assert "unknown rules volume; known are grids" in capsys.readouterr().err
    settings.write_text("[1]\n")
    assert main(words) == 1
    assert "expected RULE: {THRESHOLD: number}" in capsys.readouterr().err


def test_repairs_are_new_files_and_the_label_stays(
    tmp_path: Path, anatomy: Anatomy, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = anatomy.liver.copy()
    anatomy.liver[18:20, 22:24, 24:27] = False  # in the remnant
    anatomy.flr &= anatomy.liver
    label = write("labels/a.nii.gz")
    before = hashlib.sha256(label.read_bytes()).hexdigest()
    out = tmp_path / "out"
    assert main(["qc", "--labels", str(tmp_path), "--out", str(out), "--repair", "voids,punctate"]) == 0
    assert hashlib.sha256(label.read_bytes()).hexdigest() == before
    array, grid = read_label_map(out / "repaired/labels/a.nii.gz")
    assert grid.is_same_grid(GRID)
    assert np.array_equal(structure_mask(array, Structure.LIVER), whole)
    assert np.array_equal(structure_mask(array, Structure.FLR), whole & (np.arange(56) >= 18))
    assert "voids 24" in (out / "cases.csv").read_text()  # 12 voxels of liver and 12 of FLR
    assert main(["qc", "--labels", str(tmp_path), "--out", str(out), "--repair", "punctate"]) == 0
    assert not (out / "repaired/labels/a.nii.gz").exists(), "what another repair wrote is no repaired label of this run"
    assert main(["qc", "--labels", str(tmp_path), "--out", str(out), "--repair", "voids,punctate"]) == 0
    assert main(["qc", "--labels", str(out / "repaired"), "--out", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again/findings.json").read_text()) == []
    assert main(["qc", "--labels", str(tmp_path), "--out", str(out), "--repair", "shell"]) == 1
    assert "no repair for shell; repairs exist for islands" in capsys.readouterr().err


def test_every_repair_takes_its_finding_away_in_any_axis_order(anatomy: Anatomy) -> None:
    anatomy.crlm |= anatomy.ball((30, 20, 45), 9.0)  # in the lung
    anatomy.crlm[14, 20, 24] = True  # a focus of 0.08 ml
    anatomy.liver |= anatomy.ball((8, 30, 46), 9.0)  # an island
    anatomy.flr |= anatomy.ball((20, 10, 30), 16.0) | (anatomy.ball((20, 20, 12), 9.0) & anatomy.liver)
    anatomy.liver[18:20, 22:24, 24:27] = False
    lrs = anatomy.liver & ~anatomy.flr & (np.arange(56) < 15)
    settings = {"punctate": {"largest_ml": 0.1}}
    rules = [name for name, rule in RULES.items() if rule.repair is not None]
    case = anatomy.case(False, (-1, 0, 0, 0, 1, 0, 0, 0, -1), lrs)
    assert {f.rule for f in check_case(case, settings, rules).findings} == set(rules)
    better, changed = repaired(case, rules, settings)
    assert set(changed) >= set(rules) - {"partition"}  # the repairs before it divide the liver anew
    assert check_case(better, settings, rules).findings == ()
    assert better.masks[Structure.CRLM].any()  # the lesion inside the liver is still there


def test_a_piece_that_may_hang_together_beyond_the_image_is_not_repaired_away(anatomy: Anatomy) -> None:
    at_border = np.zeros_like(anatomy.liver)
    at_border[20:24, 20:24, 53:] = True  # 1.3 ml
    inside = anatomy.ball((8, 30, 46), 9.0)
    anatomy.liver |= at_border | inside
    anatomy.flr |= at_border | inside
    for rule, structure in (("islands", Structure.LIVER), ("flr_pieces", Structure.FLR)):
        better = repaired(anatomy.case(False), [rule])[0].masks[structure]
        assert better[at_border].all()
        assert not better[inside].any()


def test_a_repair_in_another_form_takes_the_place_of_the_one_before(tmp_path: Path, anatomy: Anatomy) -> None:
    case: QcCase = anatomy.case(False)
    label = tmp_path / "labels/case.nii.gz"
    write_repaired(case, tmp_path)
    assert [p.name for p in find_labels(tmp_path)[0].truth.masks.values()] == []
    anatomy.crlm[0, 0, 0] = True  # outside the liver: no planning map holds it
    write_repaired(case, tmp_path)
    assert not label.exists()
    assert set(find_labels(tmp_path)[0].truth.masks) == {Structure.LIVER, Structure.CRLM, Structure.FLR}
    anatomy.crlm[0, 0, 0] = False
    write_repaired(case, tmp_path)
    assert label.exists()
    assert find_labels(tmp_path)[0].truth.masks == {}


def test_repairs_never_overwrite_the_labels_that_are_read(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("repaired/labels/a.nii.gz")
    for labels in ("repaired", "repaired/labels"):
        words = ["qc", "--labels", str(tmp_path / labels), "--out", str(tmp_path), "--repair", "voids, punctate"]
        assert main(words) == 1
        assert "choose another --out" in capsys.readouterr().err


def test_a_repair_needs_to_be_known(anatomy: Anatomy) -> None:
    case: QcCase = anatomy.case()
    with pytest.raises(SettingsError, match="no repair for missed"):
        repaired(case, ["missed"])


def test_a_hole_over_a_vessel_is_not_filled(anatomy: Anatomy) -> None:
    anatomy.liver[17:21, 21:25, 24:28] = False
    case: QcCase = anatomy.case()
    assert repaired(case, ["voids"])[1] == {"voids": 64}  # the FLR holds the voxels already
    anatomy.hu[16:22, 20:26, 23:29] = 0
    assert repaired(anatomy.case(), ["voids"])[1] == {}
    assert repaired(anatomy.case(image=False), ["voids"])[1] == {}  # 5 ml: nobody knows
