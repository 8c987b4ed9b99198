"""Input that lacks something and is no error: columns, held-out cases, folds, tumours. No number stands for more than it is."""

from __future__ import annotations

import json

import numpy as np
import pytest


def test_cascaded_columns_of_folds_are_optional_and_never_extra(whole, command):
    for case in whole.TEST:
        whole.predict("nnunet", "cascaded_flr", case, whole.FLR)
    assert command(whole.arguments()) == 0
    whole.predict("nnunet", "cascaded_flr", "a1", whole.FLR)
    assert command(whole.arguments()) == 0
    assert "cascaded FLR" in whole.tables()[0], "shown in Table 1 once it is there"


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
    one, _, page = bench.tables()
    cells = {line.split(" | ")[0]: line for line in one.partition("## ")[0].splitlines() if " | D | " in line}
    assert "| 1.000 (1 of 6) / - / - |" in cells["| own"]
    assert "| **0.900 ± 0.000** [0.900, 0.900] / - / - |" in cells["| nnU-Net"]
    assert "(n of 6): only n cases were predicted" in one
    rankings = {r["of"]: r for r in json.loads((bench.out / "summary.json").read_text())["rankings"] if r["part"] == "cv"}
    for of in ("cascaded_flr", "FLR from CT"):
        assert rankings[of]["n"] == 6
        assert rankings[of]["left_out"] == [["own", "cascaded_flr"]]
        assert ["own", "cascaded_flr"] not in rankings[of]["candidates"]
    assert rankings["cascaded_flr"]["ranks"] == [1, 2]
    assert {name for name, _ in rankings["FLR from CT"]["candidates"]} == {"nnunet", "swinunetr"}, "true livers are not from CT"
    assert "left out, not predicted in all cases: own" in page


def test_an_e2e_model_alone_stands_beside_the_trivial_answers(bench, command):
    for case in bench.ALL:
        bench.label(case)
        bench.predict("own", "e2e_flr", case, bench.LIVER)
    bench.split(bench.FOLDS, bench.TEST)
    assert command(bench.arguments()) == 0
    for text, value in zip(bench.tables(), ("0.769 ± 0.000", "0.769"), strict=False):  # 2f / (1 + f) at f = 10 / 16
        line = next(line for line in text.splitlines() if line.startswith("| baseline: whole liver | D"))
        assert line.endswith(f"| {value} ! |")
        assert "know the true liver" in text
    summary = json.loads((bench.out / "summary.json").read_text())
    sides = [c["b"] for c in summary["comparisons"] if (c["part"], c["kind"]) == ("test", "model minus baseline")]
    names = ["fixed_plane", "liver_minus_tumour", "liver_minus_tumour_10mm", "liver_minus_tumour_side", "whole_liver"]
    assert sides == [[name, "e2e_flr"] for name in names]


def test_without_held_out_cases_table_2_is_all_dashes(bench, command):
    for case in ("a1", "a2", "b1"):
        bench.label(case)
        bench.predict("nnunet", "e2e_flr", case, bench.FLR)
    bench.split(bench.FOLDS, [])
    assert command(bench.arguments()) == 0
    assert "| nnU-Net | D | - / 0.944 / - |" in bench.tables()[1]
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
    assert "| **0.769** [0.769, 0.769] / 0.834 ± 0.023 out / -0.065 |" in bench.tables()[0]


def test_cases_without_any_tumour_are_undefined_everywhere_and_counted(bench, command):
    tumourless = np.where(bench.FLR, 1, np.where(bench.LIVER, 2, 0)).astype(np.uint8)
    for case in bench.ALL:
        bench.label(case, tumourless)
        bench.predict("nnunet", "pipelined_crlm", case, bench.EMPTY)
    bench.split(bench.FOLDS, bench.TEST)
    assert command(bench.arguments()) == 0
    dice = json.loads((bench.out / "summary.json").read_text())["test"]["nnunet"]["pipelined_crlm"]["dice"]
    assert (dice["mean"], dice["ci95"], dice["n"], dice["n_undefined"]) == (None, None, 0, 2)
    assert "- (2u) / 0.588 / -" in bench.tables()[1]
