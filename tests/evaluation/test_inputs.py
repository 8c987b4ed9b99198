"""Bad input is named and refused; with --allow-missing it is left out, and every table says so."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from flrplan.cohort.write import TABLE_NAME
from flrplan.evaluation.columns import COLUMNS
from flrplan.evaluation.settings import SYNTHETIC_NOTE

FOLDS = [["a1", "a2"], ["b1"]]  # as in the fixture ``whole``
TEST = ["t1", "t2"]
ALL = [*TEST, "a1", "a2", "b1"]


def refused(command, capsys, bench, *said: str) -> str:
    """Runs the command, which must fail, write nothing and say all of ``said`` on stderr."""
    assert command(bench.arguments()) == 1
    captured = capsys.readouterr()
    assert not bench.out.exists()
    for text in said:
        assert text in captured.err
    return captured.err


def tables(bench) -> list[str]:
    return [(bench.out / name).read_text() for name in ("table1.md", "table2.md", "report.html")]


def test_complete_input_passes(whole, command):
    assert command(whole.arguments()) == 0
    assert "INCOMPLETE" not in "".join(tables(whole))


def test_missing_cases_are_named_and_refused_unless_allowed(whole, command, capsys):
    for case in ("t2", "b1"):
        (whole.predictions / "nnunet" / "pipelined_flr" / f"{case}.nii.gz").unlink()
    error = refused(command, capsys, whole, "missing prediction, nnunet/pipelined_flr: b1, t2\n", "--allow-missing")
    assert "in 2 places" in error
    assert command(whole.arguments("--allow-missing")) == 0
    for text in tables(whole):
        assert "INCOMPLETE" in text
        assert "missing prediction, nnunet/pipelined_flr: b1, t2" in text
    page = tables(whole)[2]
    assert page.count("INCOMPLETE") > 5, "over every table of the report"
    rows = [r for r in csv.DictReader((whole.out / "cases.csv").open()) if r["status"] != "scored"]
    assert [(r["case"], r["status"], r["dice"]) for r in rows] == [
        ("b1", "missing prediction", ""),
        ("t2", "missing prediction", ""),
    ]
    summary = json.loads((whole.out / "summary.json").read_text())
    assert summary["test"]["nnunet"]["pipelined_flr"]["dice"]["n"] == 1
    assert "| 1.000 (1 of 2) / 0.815 / +0.185 |" in tables(whole)[1]
    assert summary["test"]["nnunet"]["pipelined_flr"]["dice"]["ci95"] is None
    assert summary["test"]["nnunet"]["pipelined_flr"]["dice"]["std"] is None
    assert [g["case"] for g in summary["gaps"]] == ["b1", "t2"]


def test_all_missing_cases_are_named_however_many(whole, command, capsys):
    many = [f"m{i}" for i in range(1, 138)]
    whole.split([*FOLDS, many], TEST)
    line = "missing prediction, nnunet/pipelined_flr: " + ", ".join(many)
    refused(command, capsys, whole, "in 274 places", f"  {line}\n", "  missing label, labels: m1, m2, ")
    assert command(whole.arguments("--allow-missing")) == 0
    for text in tables(whole):
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
    assert "extra label" in tables(whole)[0]


def test_missing_and_broken_files_are_named_together(whole, command, capsys):
    (whole.predictions / "nnunet" / "pipelined_flr" / "t2.nii.gz").unlink()
    whole.predict("nnunet", "pipelined_flr", "t1", whole.FLR, spacing_zyx=(5.0, 1.0, 1.0))
    (whole.labels / "b1.nii.gz").write_bytes(b"")
    parts = ("missing prediction, nnunet/pipelined_flr: t2\n", "broken prediction: t1", "broken label: b1", "in 3 places")
    refused(command, capsys, whole, *parts)


@pytest.mark.parametrize("name", ["a_file", "a_file/below", "n" * 300])
def test_a_folder_that_cannot_be_written_is_told_before_any_scoring(whole, command, capsys, monkeypatch, name):
    monkeypatch.setattr("flrplan.evaluation.run.score_cases", lambda *_: pytest.fail("scored"))
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


def test_cascaded_columns_of_folds_are_optional_and_never_extra(whole, command):
    for case in TEST:
        whole.predict("nnunet", "cascaded_flr", case, whole.FLR)
    assert command(whole.arguments()) == 0
    whole.predict("nnunet", "cascaded_flr", "a1", whole.FLR)
    assert command(whole.arguments()) == 0
    assert "cascaded FLR" in tables(whole)[0], "shown in Table 1 once it is there"


def test_an_incomplete_cascaded_column_of_the_folds_is_neither_best_nor_ranked(bench, command):
    cases = ["a1", "a2", "a3", "b1", "b2", "b3"]
    for case in cases:
        bench.label(case)
        for architecture, mask in (("nnunet", np.roll(bench.FLR, 1, axis=2)), ("swinunetr", bench.LIVER)):
            for column in ("cascaded_flr", "e2e_flr"):
                bench.predict(architecture, column, case, mask)
    bench.predict("own", "cascaded_flr", "a1", bench.FLR)
    bench.split([cases[:3], cases[3:]], [])
    assert command(bench.arguments()) == 0
    one, _, page = tables(bench)
    cells = {line.split(" | ")[0]: line for line in one.splitlines() if " | D | " in line}
    assert "| 1.000 (1 of 6) / - / - |" in cells["| own"]
    assert "| **0.900 ± 0.000** / - / - |" in cells["| nnU-Net"]
    assert "(n of 6): only n cases were predicted" in one
    rankings = {r["of"]: r for r in json.loads((bench.out / "summary.json").read_text())["rankings"] if r["part"] == "cv"}
    for of in ("cascaded_flr", "FLR from CT"):
        assert rankings[of]["n"] == 6
        assert rankings[of]["left_out"] == [["own", "cascaded_flr"]]
        assert ["own", "cascaded_flr"] not in rankings[of]["candidates"]
    assert rankings["cascaded_flr"]["ranks"] == [1, 2]
    assert {name for name, _ in rankings["FLR from CT"]["candidates"]} == {"nnunet", "swinunetr"}, "true livers are not from CT"
    assert "left out, not predicted in all cases: own" in page


def test_cascaded_column_without_a_test_case_is_missing(whole, command, capsys):
    whole.predict("nnunet", "cascaded_flr", "t1", whole.FLR)
    refused(command, capsys, whole, "missing prediction, nnunet/cascaded_flr: t2\n")


def test_other_grid(whole, command, capsys):
    whole.predict("nnunet", "pipelined_flr", "t1", whole.FLR, spacing_zyx=(5.0, 1.0, 1.0))
    error = refused(command, capsys, whole, "broken prediction: t1", "is not on the grid of", "Resample")
    assert "scoring" not in error, "found in the headers, before any scoring"
    assert command(whole.arguments("--allow-missing")) == 0
    assert "broken prediction, nnunet/pipelined_flr: t1" in tables(whole)[1]


@pytest.mark.parametrize(
    ("array", "values"), [(np.full((12, 20, 20), 3, np.uint8), "[3]"), (np.full((12, 20, 20), 255, np.uint8), "[255]")]
)
def test_prediction_that_is_not_binary(whole, command, capsys, array, values):
    whole.predict("nnunet", "pipelined_flr", "t1", array)
    refused(command, capsys, whole, "broken prediction: t1", "0 and 1", values, "nnunet/pipelined_flr/t1.nii.gz")


def test_probabilities_are_not_binary(whole, command, capsys):
    whole.predict("nnunet", "pipelined_flr", "t1", np.full((12, 20, 20), 0.5, np.float32))
    refused(command, capsys, whole, "broken prediction: t1", "nnunet/pipelined_flr/t1.nii.gz")


def test_label_outside_the_compartments(whole, command, capsys):
    whole.label("t1", np.full((12, 20, 20), 5, np.uint8))
    refused(command, capsys, whole, "broken label: t1", "holds 0..4", "[5]")
    assert command(whole.arguments("--allow-missing")) == 0
    assert "broken label" in tables(whole)[0]


def test_duplicate_ids(whole, command, capsys):
    whole.write(whole.labels / "t1.nrrd", whole.LIVER)
    refused(command, capsys, whole, "case t1 occurs twice", "t1.nii.gz", "t1.nrrd")


def test_label_as_map_and_as_folder(whole, command, capsys):
    whole.write(whole.labels / "t1" / "liver.nii.gz", whole.LIVER)
    refused(command, capsys, whole, "case t1 occurs twice")


@pytest.mark.parametrize("folds", [[["a1", "a2", "t1"], ["b1"]], [["a1", "a2"], ["b1", "a1"]], [["a1", "a2", "a2"], ["b1"]]])
def test_split_with_an_overlap(whole, command, capsys, folds):
    whole.split(folds, TEST)
    refused(command, capsys, whole, "occur twice", "splits.json")


def test_split_that_is_no_json(whole, command, capsys):
    whole.splits.write_text("{")
    refused(command, capsys, whole, "splits.json")


@pytest.mark.parametrize("name", ["labels", "predictions"])
def test_empty_and_absent_folders(bench, command, capsys, name):
    bench.split(FOLDS, TEST)
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
    for case in TEST:
        (whole.labels / f"{case}.nii.gz").unlink()
        (whole.predictions / "nnunet" / "pipelined_flr" / f"{case}.nii.gz").unlink()
    whole.split(FOLDS, [])
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
    refused(command, capsys, whole, str(whole.predictions / name), "a baseline of this name", "rename the folder")


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


def test_work_folder_prefers_binary_truth_and_writes_into_it(whole, command):
    whole.write(whole.root / "masks" / "t1" / "flr.nii.gz", whole.LIVER)
    others = [word for c in COLUMNS if c != "pipelined_flr" for word in ("--absent", c)]
    assert command(["--work", str(whole.root), "--workers", "1", *others]) == 0
    rows = {r["case"]: r for r in csv.DictReader((whole.root / "evaluation" / "cases.csv").open())}
    assert float(rows["t1"]["recall"]) == pytest.approx(0.625), "the truth of t1 is the binary mask, the whole liver"
    assert float(rows["t2"]["recall"]) == 1.0


def test_tables_of_a_synthetic_cohort_say_so_unasked(whole, command):
    (whole.root / TABLE_NAME).write_text("{}")  # as the cohort calls it, not the evaluation
    others = [word for c in COLUMNS if c != "pipelined_flr" for word in ("--absent", c)]
    arguments = ["--work", str(whole.root), "--workers", "1", "--out", str(whole.out), *others]
    assert command(arguments) == 0
    assert all(SYNTHETIC_NOTE in text for text in tables(whole)[:2])
    assert "not comparable with the paper" in tables(whole)[2]
    assert json.loads((whole.out / "summary.json").read_text())["note"] == SYNTHETIC_NOTE
    assert command([*arguments, "--note", "Smoke run."]) == 0
    assert "Smoke run." in tables(whole)[0]
    assert SYNTHETIC_NOTE not in tables(whole)[0]
    assert command(whole.arguments()) == 0
    assert SYNTHETIC_NOTE not in tables(whole)[0], "labels of no work folder"


def test_a_column_that_is_wholly_absent_from_a_work_folder_must_be_stated(whole, command, capsys):
    for case in ALL:
        for column in COLUMNS:
            whole.predict("whole", column, case, whole.FLR)
    stated = [word for c in COLUMNS if c != "pipelined_flr" for word in ("--absent", f"nnunet/{c}")]
    arguments = ["--work", str(whole.root), "--workers", "1", "--out", str(whole.out)]
    assert command([*arguments, *stated[:-2]]) == 1
    assert "without a single prediction: nnunet/e2e_flr. Predict them" in capsys.readouterr().err
    assert not whole.out.exists()
    assert command([*arguments, *stated]) == 0
    for text in tables(whole):
        assert "Not predicted, so shown as -: nnunet/pipelined_liver" in text
        assert "nnunet/e2e_flr." in text
    ours = next(line for line in tables(whole)[1].splitlines() if line.startswith("| nnU-Net | D"))
    assert ours.rstrip("| ").split("| ")[-1].startswith("- / "), "no number of ours beside the paper's"
    assert "nnunet/e2e_flr" in json.loads((whole.out / "summary.json").read_text())["absent_columns"]


def test_an_absent_column_that_does_not_exist(whole, command, capsys):
    assert command(["--work", str(whole.root), "--absent", "nnunet/e2e_liver"]) == 1
    assert "--absent: unknown column nnunet/e2e_liver" in capsys.readouterr().err


def test_without_a_work_folder_the_smoke_command_is_named(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command([]) == 1
    assert "make benchmark-smoke" in capsys.readouterr().err


def test_half_of_the_options_names_the_other_half(command, capsys, tmp_path):
    assert command(["--labels", str(tmp_path)]) == 1
    assert "--predictions, --splits, --out" in capsys.readouterr().err


def test_workers_must_be_positive(whole, command, capsys):
    assert command(whole.arguments("--workers", "0")) == 1
    assert "workers" in capsys.readouterr().err


def test_names_are_escaped_in_the_report(whole, command):
    for case in ALL:
        whole.predict("<b>a|b", "pipelined_flr", case, whole.FLR)
    assert command(whole.arguments("--note", "synthetic <cases>")) == 0
    one, _, page = tables(whole)
    assert "&lt;b&gt;a|b" in page
    assert "<b>a" not in page
    assert "<b>a\\|b" in one
    assert "synthetic &lt;cases&gt;" in page


def test_sagittal_and_flipped_predictions_are_another_grid_but_float_headers_are_not(whole, command):
    spacing = tuple(np.float32(s) * (1 + 1e-7) for s in whole.SPACING_ZYX)
    whole.predict("nnunet", "pipelined_flr", "t1", whole.FLR, spacing_zyx=tuple(map(float, spacing)))
    assert command(whole.arguments()) == 0


def test_an_e2e_model_alone_stands_beside_the_trivial_answers(bench, command):
    for case in ALL:
        bench.label(case)
        bench.predict("own", "e2e_flr", case, bench.LIVER)
    bench.split(FOLDS, TEST)
    assert command(bench.arguments()) == 0
    for text, value in zip(tables(bench), ("0.769 ± 0.000", "0.769"), strict=False):  # 2f / (1 + f) at f = 10 / 16
        line = next(line for line in text.splitlines() if line.startswith("| baseline: whole liver | D"))
        assert line.endswith(f"| {value} ! / - / - |")
        assert "know the true liver" in text
    summary = json.loads((bench.out / "summary.json").read_text())
    sides = [c["b"] for c in summary["comparisons"] if (c["part"], c["kind"]) == ("test", "model minus baseline")]
    assert sides == [["liver_minus_tumour", "e2e_flr"], ["whole_liver", "e2e_flr"]]


def test_without_held_out_cases_table_2_is_all_dashes(bench, command):
    for case in ("a1", "a2", "b1"):
        bench.label(case)
        bench.predict("nnunet", "e2e_flr", case, bench.FLR)
    bench.split(FOLDS, [])
    assert command(bench.arguments()) == 0
    assert "| nnU-Net | D | - / 0.944 / - |" in tables(bench)[1]
    assert json.loads((bench.out / "summary.json").read_text())["test"] == {}


def test_a_split_of_one_fold_has_means_without_a_spread(bench, command):
    for case in ("a1", "a2", "a3"):
        bench.label(case)
        bench.predict("nnunet", "pipelined_flr", case, bench.LIVER)
    bench.split([["a1", "a2", "a3"]], [])
    assert command(bench.arguments()) == 0
    dice = json.loads((bench.out / "summary.json").read_text())["cv"]["nnunet"]["pipelined_flr"]["dice"]
    assert dice["mean"] == pytest.approx(2 * 0.625 / 1.625)
    assert (dice["std"], dice["n"]) == (None, 3)
    assert "| **0.769** / 0.834 ± 0.023 / -0.065 |" in tables(bench)[0]


def test_cases_without_any_tumour_are_undefined_everywhere_and_counted(bench, command):
    tumourless = np.where(bench.FLR, 1, np.where(bench.LIVER, 2, 0)).astype(np.uint8)
    for case in ALL:
        bench.label(case, tumourless)
        bench.predict("nnunet", "pipelined_crlm", case, bench.EMPTY)
    bench.split(FOLDS, TEST)
    assert command(bench.arguments()) == 0
    dice = json.loads((bench.out / "summary.json").read_text())["test"]["nnunet"]["pipelined_crlm"]["dice"]
    assert (dice["mean"], dice["ci95"], dice["n"], dice["n_undefined"]) == (None, None, 0, 2)
    assert "- (2u) / 0.588 / -" in tables(bench)[1]
