"""Predictions made from the labels by known errors give hand-computed values in every output."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

DILATED = 20 / 21  # FLR of 11 instead of 10 columns: 2 * 10 / (10 + 11)
WHOLE = 2 * 0.625 / 1.625  # the FLR is 10 of 16 columns: 2f / (1 + f)
DROPPED = 64 / 68  # only lesion A of 32 voxels, of 36: 2 * 32 / (32 + 36)


@pytest.fixture(scope="module")
def outputs(oracle):
    rows = {(r["case"], r["architecture"], r["column"]): r for r in csv.DictReader((oracle.out / "cases.csv").open())}
    return oracle.out, rows, json.loads((oracle.out / "summary.json").read_text())


def numbers(row, *names):
    return [float(row[name]) for name in names]


def test_cases_csv(outputs):
    _, rows, _ = outputs
    assert len(rows) == 8 * 3 + 4 * 2

    shifted = rows["t1", "nnunet", "pipelined_flr"]
    assert numbers(shifted, "dice", "precision", "recall") == pytest.approx([0.9, 0.9, 0.9])
    assert numbers(shifted, "hd95_mm", "nsd", "volume_error_ml") == pytest.approx([1.25, 1.0, 0.0])
    # The cut moves by a column; a column of rind before the remnant is no cut. The tumours start two columns behind the true cut.
    assert numbers(shifted, "cut_mean_mm", "cut_hd95_mm", "cut_nsd_5mm", "cut_nsd_10mm") == [1.25, 1.25, 1.0, 1.0]
    assert numbers(shifted, *(f"tumour_cut_{n}_mm" for n in ("reference", "prediction", "error"))) == [2.5, 1.25, -1.25]
    # 1600 of 2524 voxels without tumour in truth; the shift moves nothing over a tumour (they start at column 14).
    assert numbers(shifted, "flr_percent_reference", "flr_percent_error") == pytest.approx([100 * 1600 / 2524, 0.0])

    dilated = rows["t2", "nnunet", "pipelined_flr"]
    assert numbers(dilated, "dice", "precision", "recall") == pytest.approx([DILATED, 10 / 11, 1.0])
    assert float(dilated["volume_error_ml"]) == pytest.approx(160 * 6.25 / 1000)
    assert float(dilated["flr_percent_error"]) == pytest.approx(100 * 160 / 2524)

    empty = rows["t3", "nnunet", "pipelined_flr"]
    assert numbers(empty, "dice", "recall", "nsd", "flr_percent_prediction") == [0.0, 0.0, 0.0, 0.0]
    assert [empty[k] for k in ("precision", "hd95_mm", "assd_mm")] == ["nan", "nan", "nan"]
    no_cut = ("cut_hd95_mm", "cut_mean_mm", *(f"tumour_cut_{n}_mm" for n in ("prediction", "error", "abs_error")))
    assert empty["undefined"] == "; ".join(
        [f"{name}: prediction empty" for name in ("precision", "hd95_mm", "assd_mm")]
        + [f"{name}: no cut in the prediction" for name in no_cut]
    )
    assert numbers(empty, "cut_nsd_5mm", "tumour_cut_reference_mm", "tumour_in_flr_prediction_ml") == [0.0, 2.5, 0.0]
    assert numbers(empty, "crossing_20", "crossing_30", "crossing_40") == [1.0, 1.0, 1.0]

    whole = rows["t4", "nnunet", "pipelined_flr"]
    assert numbers(whole, "dice", "precision", "recall") == pytest.approx([WHOLE, 0.625, 1.0])
    assert float(whole["flr_percent_prediction"]) == pytest.approx(100.0)
    # Every tumour is left, 36 voxels: no margin at all, though there is no cut either.
    left = ("cut_nsd_5mm", "tumour_cut_prediction_mm", "tumour_cut_abs_error_mm", "tumour_in_flr_prediction_ml")
    assert numbers(whole, *left) == pytest.approx([0.0, 0.0, 2.5, 0.225])

    dropped = rows["t1", "nnunet", "pipelined_crlm"]
    assert numbers(dropped, "dice", "precision", "recall") == pytest.approx([DROPPED, 1.0, 32 / 36])
    assert numbers(dropped, "lesions_reference", "lesions_predicted", "lesion_recall_iou50") == [2.0, 1.0, 0.5]
    assert dropped["flr_percent_error"] == "", "a metric of another structure is blank, not NaN"
    assert (dropped["slice_spacing_mm"], dropped["tumours"], dropped["split"]) == ("5", "2", "test")


def test_summary_of_the_held_out_cases(outputs):
    _, _, summary = outputs
    cell = summary["test"]["nnunet"]["pipelined_flr"]
    dice = [0.9, DILATED, 0.0, WHOLE]
    assert cell["dice"]["mean"] == pytest.approx(np.mean(dice))
    assert cell["dice"]["std"] == pytest.approx(np.std(dice))
    assert (cell["dice"]["n"], cell["dice"]["n_undefined"]) == (4, 0)
    assert cell["precision"]["mean"] == pytest.approx(np.mean([0.9, 10 / 11, 0.625]))
    assert (cell["precision"]["n"], cell["precision"]["n_undefined"]) == (3, 1)
    low, high = cell["dice"]["ci95"]
    assert 0.0 < low < cell["dice"]["mean"] < high < DILATED
    assert set(cell["dice"]) >= {"mean", "std", "ci95", "n", "n_undefined"}


def test_summary_of_the_folds_is_over_fold_means(outputs):
    _, _, summary = outputs
    dice = summary["cv"]["nnunet"]["pipelined_flr"]["dice"]
    fold_means = [np.mean([0.9, DILATED, 0.0]), 1.0]  # 3 cases and 1: not the mean over the 4 cases
    assert dice["fold_means"] == pytest.approx(fold_means)
    assert dice["mean"] == pytest.approx(np.mean(fold_means))
    assert dice["std"] == pytest.approx(abs(fold_means[0] - fold_means[1]) / 2)
    assert dice["std_cases"] == pytest.approx(np.std([0.9, DILATED, 0.0, 1.0]))
    assert dice["n"] == 4
    assert "own" not in summary["cv"]


def test_architecture_with_one_column_gives_nulls_not_errors(outputs):
    _, _, summary = outputs
    assert summary["test"]["own"]["cascaded_flr"]["dice"]["mean"] == 1.0
    assert "pipelined_flr" not in summary["test"]["own"]
    column = next(r for r in summary["rankings"] if r["of"] == "pipelined_flr" and r["part"] == "test")
    assert column["probability"] is None


def test_baselines(outputs):
    _, _, summary = outputs
    of = summary["baselines"]["test"]
    without = 2 * 1600 / (1600 + 2524)  # the tumours lie outside the FLR
    for column in ("pipelined_flr", "cascaded_flr", "e2e_flr"):
        assert of["whole_liver"][column]["dice"]["mean"] == pytest.approx(WHOLE)
        assert of["liver_minus_tumour"][column]["dice"]["mean"] == pytest.approx(without)
    for column in ("cascaded_flr", "e2e_flr"):  # the predicted liver is perfect here
        assert of["whole_predicted_liver:nnunet"][column]["dice"]["mean"] == pytest.approx(WHOLE)
    # The left 35 % of the liver are its last 6 columns, with all tumours: what is left is the FLR.
    assert of["liver_minus_tumour_side"]["pipelined_flr"]["dice"]["mean"] == 1.0
    # Tumours in the cascade: t1 none, so the whole liver; t2 more in the first columns, so the last 6; then as in truth.
    side = of["predicted_liver_minus_tumour_side:nnunet"]
    assert side["cascaded_flr"]["dice"]["mean"] == side["e2e_flr"]["dice"]["mean"] == pytest.approx((WHOLE + 0 + 1 + 1) / 4)
    assert set(summary["baselines"]["cv"]["whole_predicted_liver:nnunet"]) == {"e2e_flr"}
    assert set(summary["baselines"]["cv"]["whole_liver"]) == {"pipelined_flr", "e2e_flr"}


def test_drop_from_pipelined_to_cascaded(outputs):
    _, _, summary = outputs
    drop = next(
        c for c in summary["comparisons"]
        if c["kind"] == "pipelined minus cascaded" and c["metric"] == "dice" and c["part"] == "test"
    )  # fmt: skip
    assert (drop["a"], drop["b"]) == (["nnunet", "pipelined_crlm"], ["nnunet", "cascaded_crlm"])
    # Case t1: 64/68 - 0; t2, with a false alarm of 128 voxels: 64/68 - 2 * 36 / (36 + 164); the other two: 64/68 - 1.
    assert drop["difference"] == pytest.approx(np.mean([DROPPED, DROPPED - 0.36, DROPPED - 1, DROPPED - 1]))
    assert drop["n"] == 4
    assert drop["ci95"] is not None


def test_lesions_by_size(outputs):
    out, _, summary = outputs
    counts = summary["lesions"]["test"]["nnunet"]["pipelined_crlm"]["iou50"]
    diameter_a = (6 * 32 * 6.25 / math.pi) ** (1 / 3)  # 7.26 mm
    assert diameter_a < 10
    assert counts["all"] == {
        "reference": 8, "found": 4, "missed_but_covered": 0, "predicted": 4, "false_alarms": 0, "recall": 0.5, "precision": 1.0
    }  # fmt: skip
    assert counts["<10 mm"]["reference"] == 8
    assert counts["10-20 mm"] == {
        "reference": 0, "found": 0, "missed_but_covered": 0, "predicted": 0, "false_alarms": 0, "recall": None, "precision": None
    }  # fmt: skip
    first = next(r for r in csv.DictReader((out / "lesions.csv").open()) if r["side"] == "reference")
    assert float(first["diameter_mm"]) == pytest.approx(diameter_a)


def test_threshold_crossings_and_bland_altman(outputs):
    _, _, summary = outputs
    crossings = summary["threshold_crossings"]["test"]["nnunet"]["pipelined_flr"]
    assert crossings["20"] == {"n": 4, "too_high": 0, "too_low": 1, "rate": 0.25}  # the empty one
    errors = [0.0, 1.0, -10.0, 6.0]  # ml: shifted, dilated by 160 voxels of 6.25 mm3, empty of 1600, whole liver + 960
    limits = summary["bland_altman"]["test"]["nnunet"]["pipelined_flr"]
    assert limits["bias_ml"] == pytest.approx(np.mean(errors))
    assert limits["upper_ml"] - limits["bias_ml"] == pytest.approx(1.96 * np.std(errors, ddof=1))


def test_flr_percent_of_its_own_liver_and_crlm(outputs):
    """nnunet's own liver is the true one; its own CRLM is empty in t1, has 128 voxels too many in the FLR of t2, else true."""
    _, rows, summary = outputs
    own = [float(rows[case, "nnunet", "pipelined_flr"]["flr_percent_own_prediction"]) for case in ("t1", "t2", "t3", "t4")]
    true = 100 * 1600 / 2524
    percents = [100 * 1600 / 2560, 100 * (1760 - 128) / (2560 - 36 - 128), 0.0, 100.0]
    assert own == pytest.approx(percents)
    agreement = summary["flr_percent_agreement_own"]["test"]["nnunet"]["pipelined_flr"]
    errors = np.array(percents) - true
    assert (agreement["n"], agreement["bias"]) == (4, pytest.approx(errors.mean()))
    assert agreement["upper"] - agreement["bias"] == pytest.approx(1.96 * errors.std(ddof=1))
    of_true = summary["flr_percent_agreement"]["test"]["nnunet"]["pipelined_flr"]
    assert of_true["bias"] == pytest.approx((0 + 0.1 * true - true + 100 - true) / 4)
    assert summary["threshold_crossings_own"]["test"]["nnunet"]["pipelined_flr"]["20"]["too_low"] == 1
    assert summary["test"]["nnunet"]["pipelined_flr"]["flr_percent_own_prediction"]["mean"] == pytest.approx(np.mean(percents))
    # No tumours were predicted by a cascade in the folds, and "own" predicted no liver: that FLR% is not theirs to give.
    assert rows["a1", "nnunet", "pipelined_flr"]["flr_percent_own_prediction"] == ""
    assert "cv" not in summary["flr_percent_agreement_own"]
    assert "own" not in summary["flr_percent_agreement_own"]["test"]
    assert "flr_percent_own_prediction" not in summary["test"]["own"]["cascaded_flr"]
    assert "undefined" not in rows["a1", "nnunet", "pipelined_flr"]["undefined"]


def test_e2e_and_cascade_are_compared_with_flr_percents_of_the_same_kind(bench, command):
    """Half of the liver is predicted. Of the true liver and CRLM both ways give the truth; of their own, twice the fraction."""
    half = bench.LIVER.copy()
    half[6:] = False  # 5 of its 10 slices, with lesion A in them
    for case in bench.ALL:
        bench.label(case)
        for column, mask in (("pipelined_liver", half), ("cascaded_crlm", bench.LESION_A), ("e2e_flr", bench.FLR)):
            bench.predict("nnunet", column, case, mask)
        bench.predict("nnunet", "cascaded_flr", case, bench.FLR)
    bench.split(bench.FOLDS, bench.TEST)
    assert command(bench.arguments()) == 0
    summary = json.loads((bench.out / "summary.json").read_text())
    for column in ("cascaded_flr", "e2e_flr"):
        cell = summary["test"]["nnunet"][column]
        assert cell["flr_percent_error"]["mean"] == 0.0
        assert cell["flr_percent_own_prediction"]["mean"] == pytest.approx(100 * 1600 / (1280 - 32))
    page = (bench.out / "report.html").read_text()
    assert "FLR% of the true liver and CRLM" in page
    assert "FLR% of the own predicted liver and CRLM" in page
    assert "are of FLR / standardised liver volume (sTLV), which is another quantity" in page


def test_strata(outputs):
    _, _, summary = outputs
    cell = summary["strata"]["tumours"]["test"]["nnunet"]["pipelined_crlm"]
    assert list(cell) == ["2-5"]
    assert cell["2-5"]["dice"]["mean"] == pytest.approx(DROPPED)
    assert list(summary["strata"]["slice spacing"]["test"]["nnunet"]["pipelined_crlm"]) == ["2.5-5 mm"]


def test_tables(outputs):
    out, _, _ = outputs
    one, two = (out / "table1.md").read_text(), (out / "table2.md").read_text()
    mean, std = (np.mean([0.9, DILATED, 0.0]) + 1) / 2, (1 - np.mean([0.9, DILATED, 0.0])) / 2
    assert f"**{mean:.3f} ± {std:.3f}** (1m) / 0.834 ± 0.023 / {mean - 0.834:+.3f}" in one
    assert "cascaded" not in one.split("| Model")[1].splitlines()[0]
    test_mean = np.mean([0.9, DILATED, 0.0, WHOLE])
    low, high = json.loads((out / "summary.json").read_text())["test"]["nnunet"]["pipelined_flr"]["dice"]["ci95"]
    assert f"**{test_mean:.3f}** [{low:.3f}, {high:.3f}] (1m) / 0.815 in / {test_mean - 0.815:+.3f}" in two
    assert "| STU-Net | D | - / 0.973 / - |" in two, "an architecture that only the paper has"
    assert "| own | D | - / - / - |" in two
    precision = [0.9, 10 / 11, 0.625]  # each of 27 draws alone is 3.7 %: the interval is the range
    penalised = sum(precision) / 4
    cell = f"{np.mean(precision):.3f}** [0.625, 0.909] (1u, 1m, pen. {penalised:.3f}) / 0.815 in"
    assert cell in two, "undefined and missed cases are counted"
    # Whole liver against nnU-Net's mean Dice of about 0.656: at least as good, so marked.
    cell = f"{WHOLE:.3f} [{WHOLE:.3f}, {WHOLE:.3f}]"
    assert f"| baseline: whole liver | D | - | - | {cell} ! | - | {cell} | {cell} |" in two
    assert "fixed plane know the true liver" in one
    # The given livers hold all of the truth, and the tumours of the cascade lie in its own liver.
    one_ = "1.000 [1.000, 1.000]"
    assert f"| ceiling: nnU-Net | D | - | {one_} | {one_} | {one_} | - | - |" in two


def test_report(outputs):
    out, _, _ = outputs
    page = (out / "report.html").read_text()
    assert f"<strong>{np.mean([0.9, DILATED, 0.0, WHOLE]):.3f}</strong> [" in page
    assert "http" not in page.replace("http://www.w3.org/", ""), "self-contained"
    assert page.count("<svg") >= 4
    assert "data:image/png;base64," in page
    for verdict in ("<strong>not testable</strong>", "The paper&#39;s claims"):
        assert verdict in page
    assert "t3: nnU-Net, pipelined FLR (L+T+CT), held-out test, Dice 0.000" in page


def test_same_input_same_output_with_more_workers(oracle, command):
    out = oracle.out
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    arguments = oracle.arguments()
    arguments[arguments.index("--workers") + 1] = "2"
    assert command(arguments) == 0
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
