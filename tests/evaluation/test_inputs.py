"""Bad input is named and refused; with --allow-missing it is left out, and every table says so."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest


def refused(command, capsys, bench, *said: str) -> str:
    """Runs the command, which must fail, write nothing and say all of ``said`` on stderr."""
    assert command(bench.arguments()) == 1
    captured = capsys.readouterr()
    assert not bench.out.exists()
    for text in said:
        assert text in captured.err
    return captured.err


def test_complete_input_passes(whole, command):
    assert command(whole.arguments()) == 0
    assert "INCOMPLETE" not in "".join(whole.tables())


def test_missing_cases_are_named_and_refused_unless_allowed(whole, command, capsys):
    for case in ("t2", "b1"):
        (whole.predictions / "nnunet" / "pipelined_flr" / f"{case}.nii.gz").unlink()
    error = refused(command, capsys, whole, "missing prediction, nnunet/pipelined_flr: b1, t2\n", "--allow-missing")
    assert "in 2 places" in error
    assert command(whole.arguments("--allow-missing")) == 0
    for text in whole.tables():
        assert "INCOMPLETE" in text
        assert "missing prediction, nnunet/pipelined_flr: b1, t2" in text
    page = whole.tables()[2]
    assert page.count("INCOMPLETE") > 5, "over every table of the report"
    rows = [r for r in csv.DictReader((whole.out / "cases.csv").open()) if r["status"] != "scored"]
    assert [(r["case"], r["status"], r["dice"]) for r in rows] == [
        ("b1", "missing prediction", ""),
        ("t2", "missing prediction", ""),
    ]
    summary = json.loads((whole.out / "summary.json").read_text())
    assert summary["test"]["nnunet"]["pipelined_flr"]["dice"]["n"] == 1
    assert "| 1.000 (1 of 2) / 0.815 / +0.185 |" in whole.tables()[1]
    assert summary["test"]["nnunet"]["pipelined_flr"]["dice"]["ci95"] is None
    assert summary["test"]["nnunet"]["pipelined_flr"]["dice"]["std"] is None
    assert [g["case"] for g in summary["gaps"]] == ["b1", "t2"]


def test_all_missing_cases_are_named_however_many(whole, command, capsys):
    many = [f"m{i}" for i in range(1, 138)]
    whole.split([*whole.FOLDS, many], whole.TEST)
    line = "missing prediction, nnunet/pipelined_flr: " + ", ".join(many)
    refused(command, capsys, whole, "in 274 places", f"  {line}\n", "  missing label, labels: m1, m2, ")
    assert command(whole.arguments("--allow-missing")) == 0
    for text in whole.tables():
        assert line in text


@pytest.mark.parametrize("ids", [["P1", "P1-2", "P10", "P2"], ["a1", "b", "a10", "a2"], ["y²", "y", "2y", "1"]])
def test_any_case_ids_can_be_sorted(bench, command, ids):
    for case in ids:
        bench.label(case)
        bench.predict("nnunet", "pipelined_flr", case, bench.FLR)
    bench.split([ids[:1], ids[1:2]], ids[2:])
    assert command(bench.arguments()) == 0


def test_extra_prediction_and_label(whole, command, capsys):
    whole.predict("nnunet", "pipelined_flr", "x9", whole.FLR)
    whole.label("x8")
    refused(command, capsys, whole, "extra prediction, nnunet/pipelined_flr: x9\n", "extra label, labels: x8\n")
    assert command(whole.arguments("--allow-missing")) == 0
    assert "extra label" in whole.tables()[0]


def test_missing_and_broken_files_are_named_together(whole, command, capsys):
    (whole.predictions / "nnunet" / "pipelined_flr" / "t2.nii.gz").unlink()
    whole.predict("nnunet", "pipelined_flr", "t1", whole.FLR, spacing_zyx=(5.0, 1.0, 1.0))
    (whole.labels / "b1.nii.gz").write_bytes(b"")
    parts = ("missing prediction, nnunet/pipelined_flr: t2\n", "broken prediction: t1", "broken label: b1", "in 3 places")
    refused(command, capsys, whole, *parts)


@pytest.mark.parametrize("name", ["a_file", "a_file/below", "n" * 300])
def test_a_folder_that_cannot_be_written_is_told_before_any_scoring(whole, command, capsys, monkeypatch, name):
    monkeypatch.setattr("flrplan.evaluation.run.score_case", lambda *_: pytest.fail("scored"))
    (whole.root / "a_file").write_text("mine")
    whole.out = whole.root / name
    assert command(whole.arguments()) == 1
    assert f"{whole.out}: cannot be made or written to (" in (said := capsys.readouterr().err)
    assert "give another folder with --out" in said
    assert (whole.root / "a_file").read_text() == "mine"


def test_folders_made_for_results_go_again_where_the_input_is_refused(whole, command, capsys):
    whole.predict("nnunet", "pipelined_flr", "t1", np.full((12, 20, 20), 3, np.uint8))
    whole.out = whole.root / "new" / "results"
    refused(command, capsys, whole, "broken prediction: t1")
    assert not (whole.root / "new").exists()


def test_a_run_that_ends_early_leaves_the_results_before_as_they_were(whole, command, monkeypatch):
    assert command(whole.arguments()) == 0
    before = {path.name: path.read_bytes() for path in whole.out.iterdir()}
    whole.predict("nnunet", "pipelined_flr", "t1", whole.EMPTY)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("flrplan.evaluation.run.build_report", killed)
    with pytest.raises(KeyboardInterrupt):
        command(whole.arguments())
    assert {path.name: path.read_bytes() for path in whole.out.iterdir()} == before


def test_results_below_the_predictions_are_no_architecture(whole, command, capsys):
    whole.out = whole.predictions / "results"
    for _ in range(2):
        assert command(whole.arguments()) == 0
    whole.predict("nnunet", "pipelined_flr", "t1", np.full((12, 20, 20), 3, np.uint8))
    assert command(whole.arguments()) == 1
    assert (whole.out / "table1.md").is_file(), "of the evaluation before"


def test_missing_label(whole, command, capsys):
    (whole.labels / "t1.nii.gz").unlink()
    refused(command, capsys, whole, "missing label, labels: t1\n")


def test_cascaded_column_without_a_test_case_is_missing(whole, command, capsys):
    whole.predict("nnunet", "cascaded_flr", "t1", whole.FLR)
    refused(command, capsys, whole, "missing prediction, nnunet/cascaded_flr: t2\n")


def test_other_grid(whole, command, capsys):
    whole.predict("nnunet", "pipelined_flr", "t1", whole.FLR, spacing_zyx=(5.0, 1.0, 1.0))
    error = refused(command, capsys, whole, "broken prediction: t1", "is not on the grid of", "Resample")
    assert "scoring" not in error, "found in the headers, before any scoring"
    assert command(whole.arguments("--allow-missing")) == 0
    assert "broken prediction, nnunet/pipelined_flr: t1" in whole.tables()[1]


@pytest.mark.parametrize(
    ("array", "values"), [(np.full((12, 20, 20), 3, np.uint8), "[3]"), (np.full((12, 20, 20), 255, np.uint8), "[255]")]
)
def test_prediction_that_is_not_binary(whole, command, capsys, array, values):
    whole.predict("nnunet", "pipelined_flr", "t1", array)
    refused(command, capsys, whole, "broken prediction: t1", "0 and 1", values, "nnunet/pipelined_flr/t1.nii.gz")


def test_what_stands_in_place_of_a_binary_mask_is_named(whole, command, capsys):
    whole.predict("nnunet", "pipelined_flr", "t1", np.full((12, 20, 20), 255, np.uint8))
    refused(command, capsys, whole, "which looks like a binary mask as pictures hold it (write 1 for 255)")
    label = whole.labels / "t1.nii.gz"
    (whole.predictions / "nnunet" / "pipelined_flr" / "t1.nii.gz").write_bytes(label.read_bytes())
    refused(
        command, capsys, whole, "found [2, 3], which looks like a label map (of a planning map, the liver is every value but 0"
    )


def test_names_of_nnunets_images_are_their_cases(whole, command):
    for folder in (whole.labels, whole.predictions / "nnunet" / "pipelined_flr"):
        (folder / "t1.nii.gz").rename(folder / "t1_0000.nii.gz")
    assert command(whole.arguments()) == 0
    assert "INCOMPLETE" not in "".join(whole.tables())


def test_a_case_that_is_there_under_both_names_is_named(whole, command, capsys):
    folder = whole.predictions / "nnunet" / "pipelined_flr"
    (folder / "t1_0000.nii.gz").write_bytes((folder / "t1.nii.gz").read_bytes())
    refused(command, capsys, whole, "extra prediction, nnunet/pipelined_flr: t1_0000\n")


def test_probabilities_are_not_binary(whole, command, capsys):
    whole.predict("nnunet", "pipelined_flr", "t1", np.full((12, 20, 20), 0.5, np.float32))
    refused(command, capsys, whole, "broken prediction: t1", "nnunet/pipelined_flr/t1.nii.gz")


def test_label_outside_the_compartments(whole, command, capsys):
    whole.label("t1", np.full((12, 20, 20), 5, np.uint8))
    refused(command, capsys, whole, "broken label: t1", "holds 0..4", "[5]")
    assert command(whole.arguments("--allow-missing")) == 0
    assert "broken label" in whole.tables()[0]


def test_duplicate_ids(whole, command, capsys):
    whole.write(whole.labels / "t1.nrrd", whole.LIVER)
    refused(command, capsys, whole, "case t1 occurs twice", "t1.nii.gz", "t1.nrrd")


def test_label_as_map_and_as_folder(whole, command, capsys):
    whole.write(whole.labels / "t1" / "liver.nii.gz", whole.LIVER)
    refused(command, capsys, whole, "case t1 occurs twice")


@pytest.mark.parametrize("folds", [[["a1", "a2", "t1"], ["b1"]], [["a1", "a2"], ["b1", "a1"]], [["a1", "a2", "a2"], ["b1"]]])
def test_split_with_an_overlap(whole, command, capsys, folds):
    whole.split(folds, whole.TEST)
    refused(command, capsys, whole, "occur twice", "splits.json")


def test_split_that_is_no_json(whole, command, capsys):
    whole.splits.write_text("{")
    refused(command, capsys, whole, "splits.json")


@pytest.mark.parametrize("name", ["labels", "predictions"])
def test_empty_and_absent_folders(bench, command, capsys, name):
    bench.split(bench.FOLDS, bench.TEST)
    if name == "predictions":
        bench.label("t1")
    refused(command, capsys, bench, str(bench.root / name), "expected")
    (bench.root / name).rename(bench.root / "elsewhere")
    refused(command, capsys, bench, f"no such folder of {name}")


def test_empty_column_is_all_missing(whole, command, capsys):
    (whole.predictions / "nnunet" / "e2e_flr").mkdir()
    refused(command, capsys, whole, "missing prediction, nnunet/e2e_flr: a1, a2, b1, t1, t2\n", "in 5 places")


def test_empty_optional_column_is_missing_with_and_without_held_out_cases(whole, command, capsys):
    (whole.predictions / "nnunet" / "cascaded_flr").mkdir()
    refused(command, capsys, whole, "missing prediction, nnunet/cascaded_flr: t1, t2\n", "in 2 places")
    for case in whole.TEST:
        (whole.labels / f"{case}.nii.gz").unlink()
        (whole.predictions / "nnunet" / "pipelined_flr" / f"{case}.nii.gz").unlink()
    whole.split(whole.FOLDS, [])
    refused(command, capsys, whole, "missing prediction, nnunet/cascaded_flr: a1, a2, b1\n", "in 3 places")


@pytest.mark.parametrize("columns", [[], ["pipelined_flr", "e2e_flr"]])
def test_an_architecture_without_a_single_mask_is_refused(whole, command, capsys, columns):
    folder = whole.predictions / "swinunetr"
    for column in columns:
        (folder / column).mkdir(parents=True)
        (folder / column / "plans.json").write_text("{}")
    folder.mkdir(exist_ok=True)
    refused(command, capsys, whole, f"in any column folder of {folder};", "<architecture>/<column>/<case>.nii.gz", "remove")
    assert command(whole.arguments("--allow-missing")) == 1, "a gap without a case cannot be shown, so it is never allowed"


def test_unknown_column_names_the_known_ones(whole, command, capsys):
    whole.predict("nnunet", "pipelined_vessels", "t1", whole.FLR)
    refused(command, capsys, whole, "unknown column 'pipelined_vessels'", "e2e_flr")


@pytest.mark.parametrize("name", ["whole_liver", "liver_minus_tumour", "whole_predicted_liver:nnunet"])
def test_an_architecture_called_like_a_baseline_is_refused(whole, command, capsys, name):
    whole.predict(name, "pipelined_flr", "t1", whole.FLR)
    refused(command, capsys, whole, str(whole.predictions / name), "a row of this name", "rename the folder")


def test_prediction_on_the_wrong_level(whole, command, capsys):
    whole.write(whole.predictions / "nnunet" / "t1.nii.gz", whole.FLR)
    refused(command, capsys, whole, "wrong level", "<architecture>/<column>/<case>.nii.gz")


def test_binary_truth_goes_before_nothing_else_and_absent_is_not_empty(whole, command, capsys):
    (whole.labels / "t1.nii.gz").unlink()
    for name, mask in (("liver", whole.LIVER), ("flr", whole.FLR)):
        whole.write(whole.labels / "t1" / f"{name}.nii.gz", mask)
    refused(command, capsys, whole, "broken label: t1", "no file states crlm", "t1/crlm.nii.gz")
    whole.write(whole.labels / "t1" / "crlm.nii.gz", whole.EMPTY)
    assert command(whole.arguments()) == 0
    row = next(r for r in csv.DictReader((whole.out / "cases.csv").open()) if r["case"] == "t1")
    assert row["tumours"] == "0"
    assert float(row["flr_percent_reference"]) == pytest.approx(62.5)


def test_other_files_beside_predictions_are_passed_over(whole, command):
    (whole.predictions / "nnunet" / "pipelined_flr" / "plans.json").write_text("{}")
    (whole.predictions / "readme.txt").write_text("")
    assert command(whole.arguments()) == 0


def test_hidden_files_and_upper_case_endings(whole, command):
    labels, predictions = whole.labels, whole.predictions
    first = next(labels.iterdir())
    first.rename(first.with_name(first.name.replace(".nii.gz", ".NII.GZ")))
    for file in [*labels.iterdir(), *predictions.rglob("*.nii.gz")]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\26\7")
    for folder in (labels, predictions, next(predictions.iterdir())):
        (folder / "__MACOSX").mkdir()
        (folder / "__MACOSX" / "a.nii.gz").write_bytes(b"\0\5\26\7")
    assert command(whole.arguments()) == 0


def test_half_of_the_options_names_the_other_half(command, capsys, tmp_path):
    assert command(["--labels", str(tmp_path)]) == 1
    assert "--predictions, --splits, --out" in capsys.readouterr().err


def test_workers_must_be_positive(whole, command, capsys):
    assert command(whole.arguments("--workers", "0")) == 1
    assert "workers" in capsys.readouterr().err


def test_names_are_escaped_in_the_report(whole, command):
    for case in whole.ALL:
        whole.predict("<b>a|b", "pipelined_flr", case, whole.FLR)
    assert command(whole.arguments("--note", "synthetic <cases>")) == 0
    one, _, page = whole.tables()
    assert "&lt;b&gt;a|b" in page
    assert "<b>a" not in page
    assert "<b>a\\|b" in one
    assert "synthetic &lt;cases&gt;" in page


def test_a_flipped_prediction_is_on_another_grid_and_one_with_rounded_headers_is_not(whole, command, capsys):
    width_mm = whole.FLR.shape[2] * whole.SPACING_ZYX[2]
    flipped = {"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1), "origin": (width_mm - whole.SPACING_ZYX[2], 0.0, 0.0)}
    whole.predict("nnunet", "pipelined_flr", "t1", whole.FLR, **flipped)  # the same box of the world, voxels in another order
    refused(command, capsys, whole, "broken prediction: t1", "is not on the grid of")
    spacing = tuple(np.float32(s) * (1 + 1e-7) for s in whole.SPACING_ZYX)
    whole.predict("nnunet", "pipelined_flr", "t1", whole.FLR, spacing_zyx=tuple(map(float, spacing)))
    assert command(whole.arguments()) == 0
