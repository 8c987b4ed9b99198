"""The download of TCIA with every quirk of the data set; expected numbers are derived in conftest.py."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Structure
from flrplan.image import read_ct, read_label_map
from flrplan.preparation import Prepared, PrepareSettings, ProblemKind, SourceKind, find_tcia_cases, prepare
from flrplan.preparation.record import record_path, remove_case
from flrplan.workfolder import WorkFolder, find_labelled_cases


def prepared(root: Path, out: Path, **settings: Any) -> Prepared:
    return prepare(find_tcia_cases(root), PrepareSettings(out, SourceKind.TCIA, progress=False, **settings))


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "dataset.csv").open(newline="") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def test_overlapping_segments_on_a_slab_become_masks_on_the_grid_of_the_ct(
    tree: Any, masks: Any, hu: Any, tmp_path: Path
) -> None:
    tree.add("CRLM-CT-1001")
    result = prepared(tree.save(), tmp_path / "W")
    assert (result.ready, result.problems, result.failed) == (("CRLM-CT-1001",), (), False)
    (case,) = find_labelled_cases(tmp_path / "W")
    ct, truth = case.load([Structure.LIVER, Structure.CRLM, Structure.FLR])
    assert np.array_equal(ct.array_zyx, hu)
    assert ct.geometry.spacing_mm == pytest.approx((0.8, 0.9, 2.5), abs=1e-6)
    assert np.array_equal(truth[Structure.LIVER], masks["Liver"])
    assert np.array_equal(truth[Structure.FLR], masks["Liver Remnant"])
    assert np.array_equal(truth[Structure.CRLM], masks["Tumor_1"] | masks["Tumor_2"] | masks["Tumor_3"])
    planning = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "W/labels/CRLM-CT-1001.nii.gz")))
    assert np.bincount(planning.ravel()).tolist() == [8 * 16 * 16 - 320, 160 - 9, 160 - 2, 2, 9]


def test_veins_of_the_download_are_kept_for_plans_and_go_with_their_case(tree: Any, masks: Any, tmp_path: Path) -> None:
    tree.add("CRLM-CT-1001")
    tree.add("CRLM-CT-1002", {name: mask for name, mask in masks.items() if name != "Portal"})
    work = WorkFolder(tmp_path / "W")
    assert prepared(tree.save(), work.root).ready == ("CRLM-CT-1001", "CRLM-CT-1002")
    ct = read_ct(work.image("CRLM-CT-1001"))
    for name, segment in (("hepatic_veins", "Hepatic"), ("portal_veins", "Portal")):
        array, geometry = read_label_map(work.vein("CRLM-CT-1001", name))
        assert geometry.is_same_grid(ct.geometry)
        assert np.array_equal(array != 0, masks[segment])
    assert not work.vein("CRLM-CT-1002", "portal_veins").exists()
    assert (
        work.vein("CRLM-CT-1001", "portal_veins").relative_to(work.root).as_posix()
        in json.loads((record_path(work.root, "CRLM-CT-1001")).read_text())["outputs"]
    ), "so that a lost one is made again"
    remove_case(work.root, "CRLM-CT-1001")
    assert not (work.veins / "CRLM-CT-1001").exists()


def test_the_table_holds_volumes_counts_and_what_the_map_could_not_hold(tree: Any, tmp_path: Path) -> None:
    tree.add("CRLM-CT-1001")
    prepared(tree.save(), tmp_path / "W")
    row = table(tmp_path / "W")["CRLM-CT-1001"]
    numbers = {k: float(row[k]) for k in ("liver_ml", "crlm_ml", "flr_ml", "lrs_ml", "flr_fraction", "slice_spacing_mm")}
    assert numbers == pytest.approx(
        {
            "liver_ml": 0.576,
            "crlm_ml": 0.0234,
            "flr_ml": 0.288,
            "lrs_ml": 0.288,
            "flr_fraction": 151 / 309,
            "slice_spacing_mm": 2.5,
        },
        abs=1e-6,
    )
    counts = (
        "tumours",
        "tumours_counted_as",
        "crlm_pieces",
        "liver_pieces",
        "crlm_outside_liver_voxels",
        "tumour_overlap_voxels",
    )
    assert [row[k] for k in counts] == ["3", "segments", "2", "1", "2", "1"]
    assert row["not_in_map"] == (
        "2 CRLM voxels lie outside the liver and are not in the planning map; "
        "1 voxels belong to more than one tumour; the map holds their union"
    )
    assert "the SEG stores 5 of 8 slices, 2 to 6 counted from 0" in row["notes"]
    assert [row[f"size_{a}"] for a in "xyz"] == ["16", "16", "8"]
    assert len(row["image_sha256"]) == len(row["label_sha256"]) == 64
    assert row["label_sources"].endswith("1-1.dcm")


def test_segment_names_with_underscores_and_an_empty_tumour(tree: Any, masks: Any, tmp_path: Path) -> None:
    masks["Liver_Remnant"] = masks.pop("Liver Remnant")
    masks["Tumor_4"] = np.zeros_like(masks["Liver"])
    tree.add("CRLM-CT-1001", masks)
    prepared(tree.save(), tmp_path / "W")
    row = table(tmp_path / "W")["CRLM-CT-1001"]
    assert row["tumours"] == "3"
    assert "segment 'Tumor_4' has no voxels" in row["notes"]


@pytest.mark.parametrize(
    "location",
    [
        "./Colorectal-Liver-Metastases/{s}/06-07-1992-NA-CT ANGIO/100.000000-CT-1",
        "C:\\Users\\me\\manifest-1\\Colorectal-Liver-Metastases\\{s}\\06-07-1992-NA-CT ANGIO\\100.000000-CT-1\\",
        ".\\colorectal-liver-metastases\\{s}\\06-07-1992-na-ct angio\\100.000000-ct-1",
    ],
)
def test_file_locations_are_found_however_they_are_written(tree: Any, location: str) -> None:
    tree.add("CRLM-CT-1001")
    tree.rows[0]["File Location"] = location.format(s="CRLM-CT-1001")
    (case,) = find_tcia_cases(tree.save())
    assert case.image == tree.folder("CRLM-CT-1001", "CT")
    assert case.series == "1.2.3.1001"


def test_a_location_never_leads_to_another_subject_or_out_of_the_download(tree: Any) -> None:
    tree.add("CRLM-CT-1001")
    tree.add("CRLM-CT-1002")
    tree.rows[0]["File Location"] = tree.rows[2]["File Location"].replace("CRLM-CT-1002", "CRLM-CT-1001\\..\\CRLM-CT-1002")
    first, second = find_tcia_cases(tree.save())
    assert first.problem is not None
    assert first.problem.kind is ProblemKind.MISSING
    assert second.problem is None


def test_broken_and_missing_cases_are_named_and_left_out(tree: Any, masks: Any, tmp_path: Path) -> None:
    tree.add("CRLM-CT-1001")
    tree.add("CRLM-CT-1002", skip=(3,))  # a slice is missing in the middle
    tree.rows[2]["Number of Images"] = ""
    tree.add("CRLM-CT-1003", {k: v for k, v in masks.items() if k != "Liver Remnant"})
    tree.add("CRLM-CT-1004", shift_mm=1.25)  # half a slice off
    tree.add("CRLM-CT-1005", SegmentationType="FRACTIONAL")
    tree.add("CRLM-CT-1006", skip=(7,))  # the last slice: only the count of metadata.csv tells
    tree.add("CRLM-CT-1007", {**masks, "Liver": np.zeros_like(masks["Liver"])})
    tree.add("CRLM-CT-1008")
    seg = tree.folder("CRLM-CT-1008", "SEG") / "1-1.dcm"
    seg.write_bytes(seg.read_bytes()[:-40])
    tree.row("CRLM-CT-1009", "CT", "1.2.3.1009", 8)
    result = prepared(tree.save(), tmp_path / "W")
    assert result.ready == ("CRLM-CT-1001",)
    assert result.failed
    reasons = {p.case_id[-4:]: (p.kind.value, p.reason) for p in result.problems}
    expected = {
        "1002": ("broken", "1 slices are missing"),
        "1003": ("broken", "no segment 'Liver Remnant'"),
        "1004": ("broken", "is not on the grid of its CT"),
        "1005": ("broken", "expected a BINARY DICOM SEG, found 'FRACTIONAL'"),
        "1006": ("broken", "announces 8 images, found 7"),
        "1007": ("broken", "the liver has no voxels"),
        "1009": ("missing", "is not below"),
    }
    for case, (kind, words) in expected.items():
        assert reasons[case][0] == kind
        assert words in reasons[case][1], case
    assert reasons["1008"][0] == "broken"
    assert [c.case_id for c in find_labelled_cases(tmp_path / "W")] == ["CRLM-CT-1001"]
    assert list(table(tmp_path / "W")) == ["CRLM-CT-1001"]
    assert len((tmp_path / "W/left_out.csv").read_text().splitlines()) == 9


def test_the_split_names_the_cases_that_must_be_there(tree: Any, tmp_path: Path) -> None:
    for number in (1001, 1002, 1003):
        tree.add(f"CRLM-CT-{number}", seed=number)
    split = tmp_path / "split.json"
    ids = [f"CRLM-CT-{n}" for n in range(1001, 1005)]
    split.write_text(json.dumps({"test": ids[3:], "folds": [ids[:1], ids[1:3]]}))
    result = prepared(tree.save(), tmp_path / "W", split=split)
    assert [str(p.kind) + p.case_id for p in result.problems] == ["missingCRLM-CT-1004"]
    assert result.failed
    assert not (tmp_path / "W/splits.json").exists()
    result = prepared(tree.root, tmp_path / "W", split=split, allow_missing=True)
    assert not result.failed
    assert len(result.kept) == 3
    assert json.loads((tmp_path / "W/splits.json").read_text()) == {"test": [], "folds": [ids[:1], ids[1:3]]}


def test_two_series_of_a_kind_are_refused_but_a_repeated_line_is_not(tree: Any) -> None:
    tree.add("CRLM-CT-1001")
    tree.rows.append(tree.rows[0])
    assert find_tcia_cases(tree.save())[0].problem is None
    tree.row("CRLM-CT-1001", "CT", "1.2.3.77", 8)
    problem = find_tcia_cases(tree.save())[0].problem
    assert problem is not None
    assert "lists 2 CT series, expected one: 1.2.3.1001, 1.2.3.77" in problem.reason


def test_a_prepared_ct_is_the_downloaded_ct(tree: Any, tmp_path: Path) -> None:
    tree.add("CRLM-CT-1001")
    prepared(tree.save(), tmp_path / "W")
    dicom = read_ct(tree.folder("CRLM-CT-1001", "CT"))
    nifti = read_ct(tmp_path / "W/images/CRLM-CT-1001.nii.gz")
    assert np.array_equal(dicom.array_zyx, nifti.array_zyx)
    assert dicom.geometry.is_same_grid(nifti.geometry)


def test_junk_is_passed_over_and_what_is_odd_about_a_ct_is_noted(tree: Any, hu: Any, tmp_path: Path) -> None:
    tree.add("CRLM-CT-1001")
    root = tree.save()
    for file in [p for p in root.rglob("*") if p.is_file()]:
        (file.parent / f"._{file.name}").write_bytes(b"\0\5\26\7 Mac OS X")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "metadata.csv").write_bytes(b"\0\5\26\7")
    folder = tree.folder("CRLM-CT-1001", "CT")
    for name in ("Thumbs.db", "DICOMDIR"):
        (folder / name).write_bytes(b"\0" * 128 + b"DICM")
    (folder / "LICENSE").write_text("CC BY")
    result = prepared(root, tmp_path / "W")
    assert result.problems == ()
    assert np.array_equal(read_ct(tmp_path / "W/images/CRLM-CT-1001.nii.gz").array_zyx, hu)
    note = "1 files of the folder are not used (no DICOM): LICENSE; is a slice among them?"
    assert note in table(tmp_path / "W")["CRLM-CT-1001"]["notes"]
    for number in (92, 93):
        (folder / f"1-{number}.dcm").write_bytes(b"")
    assert "1-92.dcm: this DICOM file is cut off" in str(prepared(root, tmp_path / "W").problems[0])


def test_slices_at_rounded_positions_still_find_their_frames(
    tree: Any, masks: Any, make_ct: Any, hu: Any, tmp_path: Path
) -> None:
    uneven = {2: 0.4, 3: -0.3, 5: 0.2}  # up to 0.16 of a slice, which the CT reader takes with a warning
    tree.add("CRLM-CT-1001", offset_mm=uneven)
    make_ct(tree.folder("CRLM-CT-1001", "CT"), "1.2.3.1001", hu, offset_mm=uneven)
    result = prepared(tree.save(), tmp_path / "W")
    assert result.problems == ()
    _, truth = find_labelled_cases(tmp_path / "W")[0].load([Structure.LIVER])
    assert np.array_equal(truth[Structure.LIVER], masks["Liver"])
    assert "even steps are assumed" in table(tmp_path / "W")["CRLM-CT-1001"]["notes"]
