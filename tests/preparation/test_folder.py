"""Folders of NIfTI and NRRD, and refined labels by patterns: what is taken as what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Structure
from flrplan.errors import LabelError, SettingsError
from flrplan.image import Geometry, read_ct
from flrplan.preparation import PrepareSettings, SourceKind, find_folder_cases, prepare, read_layout
from flrplan.preparation.folder import image_sources, with_labels
from flrplan.preparation.glob_pattern import compile_open_pattern, compile_pattern
from flrplan.preparation.listing import listing
from flrplan.preparation.sources import FileLabels
from flrplan.preparation.truth import read_truth_of
from flrplan.workfolder import find_labelled_cases

REFINED = Path(__file__).resolve().parents[2] / "benchmark/layouts/refined.yaml"


@pytest.fixture
def write(hu: Any, geometry: Geometry) -> Any:
    def write_image(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(geometry.image(array), str(path))
        return path

    return write_image


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_folder_comes_back_as_it_was(write: Any, hu: Any, masks: Any, tmp_path: Path, suffix: str) -> None:
    data = tmp_path / "data"
    write(data / f"images/a.b{suffix}", hu)
    write(data / f"masks/a.b/liver{suffix}", masks["Liver"])
    write(data / f"masks/a.b/crlm{suffix}", masks["Tumor_1"] * np.uint8(255))
    write(data / f"masks/a.b/flr{suffix}", masks["Liver Remnant"])
    write(data / f"images/c{suffix}", hu)
    planning = masks["Liver"].astype(np.uint8) * 2
    planning[masks["Tumor_1"]] = 4
    write(data / f"labels/c{suffix}", planning)
    result = prepare(find_folder_cases(data).cases, PrepareSettings(tmp_path / "W", SourceKind.FOLDER, progress=False))
    assert result.ready == ("a.b", "c")
    first, second = find_labelled_cases(tmp_path / "W")
    ct, truth = first.load([Structure.LIVER, Structure.CRLM, Structure.FLR])
    assert np.array_equal(ct.array_zyx, hu)
    assert np.array_equal(truth[Structure.CRLM], masks["Tumor_1"])
    assert np.array_equal(truth[Structure.FLR], masks["Liver Remnant"])
    _, truth = second.load([Structure.LIVER, Structure.CRLM, Structure.FLR])
    assert np.array_equal(truth[Structure.LIVER], masks["Liver"])
    assert np.array_equal(truth[Structure.FLR], masks["Tumor_1"])  # compartment 4 is the only one in the remnant
    assert "draw_split.py" in result.split


def test_a_broken_file_among_good_ones(write: Any, hu: Any, masks: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for case in ("a", "b", "c", "d", "e"):
        write(data / f"images/{case}.nii.gz", hu)
        for name, mask in (("liver", "Liver"), ("crlm", "Tumor_1"), ("flr", "Liver Remnant")):
            write(data / f"masks/{case}/{name}.nii.gz", masks[mask])
    cut = data / "masks/b/liver.nii.gz"
    cut.write_bytes(cut.read_bytes()[:60])
    (data / "masks/c/flr.nii.gz").unlink()
    write(data / "masks/d/crlm.nii.gz", masks["Liver"].astype(np.uint8) + masks["Tumor_1"])
    write(data / "masks/e/crlm.nrrd", masks["Tumor_1"])
    result = prepare(find_folder_cases(data).cases, PrepareSettings(tmp_path / "W", SourceKind.FOLDER, progress=False))
    assert result.ready == ("a",)
    assert result.failed
    reasons = {p.case_id: p.reason for p in result.problems}
    assert "masks/b/liver.nii.gz" in reasons["b"]
    assert "case c: no file states flr, and absent is not empty" in reasons["c"]
    assert "masks/d/crlm.nii.gz: expected a binary mask (0 and one other value), found [0, 1, 2]" in reasons["d"]
    assert "finds 2 files for crlm: masks/e/crlm.nii.gz, masks/e/crlm.nrrd" in reasons["e"]


def test_labels_in_another_axis_order_are_turned_not_resampled(hu: Any, masks: Any, geometry: Geometry, tmp_path: Path) -> None:
    image = tmp_path / "images/a.nii.gz"
    image.parent.mkdir()
    sitk.WriteImage(geometry.image(hu), str(image))
    (tmp_path / "masks/a").mkdir(parents=True)
    for name, mask in (("liver", "Liver"), ("crlm", "Tumor_2"), ("flr", "Liver Remnant")):
        turned = sitk.PermuteAxes(sitk.Flip(geometry.image(masks[mask]), (False, True, False)), (2, 0, 1))
        sitk.WriteImage(turned, str(tmp_path / f"masks/a/{name}.nii.gz"))
    (case,) = find_folder_cases(tmp_path).cases
    truth = read_truth_of(case, read_ct(image))
    assert np.array_equal(truth.crlm, masks["Tumor_2"])
    assert np.array_equal(truth.flr, masks["Liver Remnant"])
    assert truth.notes == ("labels are stored in another axis order than the CT; they were turned, not resampled",)


def test_refined_labels_by_the_default_layout_and_lrs_for_flr(write: Any, hu: Any, masks: Any, tmp_path: Path) -> None:
    labels = tmp_path / "refined"
    write(tmp_path / "ct/CRLM-CT-1001.nii.gz", hu)
    write(tmp_path / "ct/CRLM-CT-1002.nii.gz", hu)
    write(tmp_path / "ct/CRLM-CT-1003.nii.gz", hu)
    write(labels / "v1/CRLM-CT-1001/Liver.nii.gz", masks["Liver"])
    write(labels / "v1/CRLM-CT-1001/CRLM.nii.gz", masks["Tumor_1"])
    write(labels / "v1/CRLM-CT-1001/LRS.nii.gz", masks["Liver"] & ~masks["Liver Remnant"])
    for name, mask in (("liver", "Liver"), ("crlm", "Tumor_1"), ("flr", "Liver Remnant")):
        write(labels / f"{name}/1002.nii.gz", masks[mask])
    write(labels / "notes/CRLM-CT-1001_vessels.nii.gz", masks["Portal"])
    found = with_labels(image_sources(tmp_path / "ct"), labels, read_layout(REFINED))
    first, second, third = found.cases
    assert isinstance(first.labels, FileLabels)
    assert {str(s): f.path.name for s, f in first.labels.masks.items()} == {
        "liver": "Liver.nii.gz",
        "crlm": "CRLM.nii.gz",
        "lrs": "LRS.nii.gz",
    }
    truth = read_truth_of(first, read_ct(tmp_path / "ct/CRLM-CT-1001.nii.gz"))
    assert np.array_equal(truth.flr, masks["Liver Remnant"])
    assert truth.notes == ("no FLR file; FLR = liver - LRS",)
    assert second.problem is None
    assert third.problem is not None
    text = listing(found.cases, found.unused)
    assert f"flr    {labels}/flr/1002.nii.gz  (by '**/flr/{{number}}{{ext}}')" in text
    assert "missing: no label file below" in text
    assert f"not used: 1 image files below the labels\n  {labels}/notes/CRLM-CT-1001_vessels.nii.gz" in text
    assert text.endswith("2 cases would be prepared, 1 left out; nothing was written\n")


def labelled(write: Any, masks: Any, folder: Path, pattern: str) -> None:
    for name, mask in (("liver", "Liver"), ("crlm", "Tumor_1"), ("flr", "Liver Remnant")):
        write(folder / pattern.format(name), masks[mask])


def test_label_files_without_a_ct_are_a_missing_case(write: Any, hu: Any, masks: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for case in ("p1", "p2"):
        write(data / f"images/{case}.nii.gz", hu)
        labelled(write, masks, data, f"masks/{case}/{{}}.nii.gz")
    labelled(write, masks, data, "masks/p9/{}.nii.gz")
    write(data / "labels/p8.nii.gz", masks["Liver"].astype(np.uint8) * 2)
    write(data / "masks/p1/vessels.nii.gz", masks["Portal"])
    found = find_folder_cases(data)
    assert [p.name for p in found.unused] == ["vessels.nii.gz"], "neither the CTs nor what p8 and p9 have"
    result = prepare(found.cases, PrepareSettings(tmp_path / "W", SourceKind.FOLDER, progress=False))
    assert result.ready == ("p1", "p2")
    assert result.failed
    reasons = {p.case_id: p.reason for p in result.problems}
    assert f"label file {data}/labels/p8.nii.gz, but no CT of that name; add the CT" in reasons["p8"]
    assert f"label file {data}/masks/p9/crlm.nii.gz and 2 more, but no CT" in reasons["p9"]
    assert "p9,missing," in (tmp_path / "W/left_out.csv").read_text()
    allowed = PrepareSettings(tmp_path / "W", SourceKind.FOLDER, allow_missing=True, progress=False)
    assert not prepare(found.cases, allowed).failed
    only = PrepareSettings(tmp_path / "W", SourceKind.FOLDER, cases=("p1",), progress=False)
    assert prepare(found.cases, only).problems == ()


def test_refined_labels_without_a_ct_and_second_versions(write: Any, hu: Any, masks: Any, tmp_path: Path) -> None:
    labels = tmp_path / "refined"
    write(labels / "ct/CRLM-CT-1001.nii.gz", hu)
    labelled(write, masks, labels, "CRLM-CT-1001/{}.nii.gz")
    labelled(write, masks, labels, "old/1001_{}.nii.gz")
    labelled(write, masks, labels, "old/CRLM-CT-1001_{}.nii.gz")
    labelled(write, masks, labels, "{}/1002.nii.gz")
    for case in ("CRLM-CT-1003", "CRLM-CT-1004"):
        for name, mask in (("liver", "Liver"), ("tumour", "Tumor_1"), ("liver_remnant", "Liver Remnant")):
            write(labels / case / f"{name}.nii.gz", masks[mask])
    found = with_labels(image_sources(labels / "ct"), labels, read_layout(REFINED), labels / "ct")
    missing = {c.case_id: c.problem.reason for c in found.cases if c.problem is not None}
    assert list(missing) == ["1002", "CRLM-CT-1003", "CRLM-CT-1004"], "a remnant is no case of that name"
    assert all(" and 2 more, but no CT" in reason for reason in missing.values())
    assert len(found.unused) == 6
    assert {p.parent.name for p in found.unused} == {"old"}


def test_one_label_map_for_all_structures(write: Any, hu: Any, masks: Any, tmp_path: Path) -> None:
    write(tmp_path / "ct/x7.nii.gz", hu)
    values = masks["Liver"].astype(np.uint8) + masks["Liver Remnant"]
    values[masks["Tumor_1"]] = 3
    write(tmp_path / "seg/x7_seg.nii.gz", values)
    layout = tmp_path / "my.yaml"
    layout.write_text(
        "structures:\n"
        "  liver: [{pattern: '{case}_seg{ext}', values: [1, 2, 3]}]\n"
        "  flr: [{pattern: '{case}_seg{ext}', values: [2, 3]}]\n"
        "  crlm: [{pattern: '{case}_seg{ext}', values: [3]}]\n"
    )
    (case,) = with_labels(image_sources(tmp_path / "ct"), tmp_path / "seg", read_layout(layout)).cases
    truth = read_truth_of(case, read_ct(tmp_path / "ct/x7.nii.gz"))
    assert np.array_equal(truth.liver, masks["Liver"])
    assert np.array_equal(truth.flr, masks["Liver Remnant"])
    assert np.array_equal(truth.crlm, masks["Tumor_1"])
    assert len(case.label_files()) == 1


def test_values_outside_the_planning_map_are_refused(write: Any, hu: Any, masks: Any, tmp_path: Path) -> None:
    write(tmp_path / "images/a.nrrd", hu)
    write(tmp_path / "labels/a.nrrd", masks["Liver"] * np.uint8(5))
    (case,) = find_folder_cases(tmp_path).cases
    with pytest.raises(LabelError, match=r"a\.nrrd: a planning label map holds 0\.\.4"):
        read_truth_of(case, read_ct(tmp_path / "images/a.nrrd"))


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**/{case}/liver{ext}", "CRLM-CT-100/liver.nii.gz", True),
        ("**/{case}/liver{ext}", "a/b/crlm-ct-100/LIVER.nrrd", True),
        ("**/{case}/liver{ext}", "CRLM-CT-1001/liver.nii.gz", False),
        ("**/{case}/liver{ext}", "CRLM-CT-100/liver_remnant.nii.gz", False),
        ("liver/{number}{ext}", "liver/100.nii.gz", True),
        ("liver/{number}{ext}", "liver/1100.nii.gz", False),
        ("*/{case}?liver{ext}", "x/CRLM-CT-100_liver.nii", True),
        ("*/{case}[-_]liver{ext}", "x/y/CRLM-CT-100_liver.nii", False),
        ("{case}[!_]liver{ext}", "CRLM-CT-100_liver.nii", False),
        ("{case}{ext}", "CRLM-CT-100.json", False),
    ],
)
def test_patterns(pattern: str, path: str, fits: bool) -> None:
    assert (compile_pattern(pattern, "CRLM-CT-100").fullmatch(path) is not None) is fits


@pytest.mark.parametrize(
    ("pattern", "path", "groups"),
    [
        ("masks/{case}/liver{ext}", "masks/a b.1/LIVER.nii.gz", {"case": "a b.1"}),
        ("{case}/{case}_liver{ext}", "p9/p9_liver.nrrd", {"case": "p9"}),
        ("{case}/{case}_liver{ext}", "p9/p8_liver.nrrd", None),
        ("ct-{number}{ext}", "ct-007.nii", {"number": "007"}),
        ("{case}{ext}", ".part-1.nii", None),
    ],
)
def test_patterns_of_any_case(pattern: str, path: str, groups: dict[str, str] | None) -> None:
    found = compile_open_pattern(pattern).fullmatch(path)
    assert (found.groupdict() if found else None) == groups


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("structures: {kidney: ['{case}']}", "structures: kidney must be 'liver', 'crlm', 'flr' or 'lrs'"),
        ("structures: {liver: ['liver{ext}']}", "holds neither"),
        ("structures: {liver: ['{id}{case}']}", "unknown {id}"),
        ("structures: {liver: [{values: [1]}]}", r"structures: liver\[0\]: pattern must be given"),
        ("structures: {liver: [{pattern: '{case}', values: []}]}", r"liver\[0\]: values must be a list of at least 1"),
        ("structures: {liver: [{pattern: '{case}', values: [true]}]}", r"values\[0\] must be a whole number, got True"),
        ("structure: {}", "unknown structure; known are structures, planning_map"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_layout_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message) as error:
        read_layout(tmp_path / "l.yaml")
    assert "l.yaml" in str(error.value) or "pattern" in str(error.value)


def test_nnunets_raw_data_are_taken_with_a_layout_that_reads_its_labels(
    write: Any, hu: Any, masks: Any, tmp_path: Path
) -> None:
    root = tmp_path / "Dataset003_Liver"
    write(root / "imagesTr" / "liver_1_0000.nii.gz", hu)
    label = masks["Liver"].astype(np.uint8)
    label[masks["Tumor_1"]] = 2
    write(root / "labelsTr" / "liver_1.nii.gz", label)
    with pytest.raises(
        LabelError, match=r"(?s)Dataset003_Liver is nnU-Net's raw data: .*prepare\.py folder .* --layout LAYOUT"
    ):
        find_folder_cases(root)
    layout = tmp_path / "layout.yaml"
    layout.write_text("structures: {liver: [{pattern: 'labelsTr/{case}{ext}', values: [1, 2]}]}")
    (case,) = find_folder_cases(root, read_layout(layout)).cases
    assert case.case_id == "liver_1"
    assert case.problem is None
    assert case.labels.masks[Structure.LIVER].values == (1, 2)
