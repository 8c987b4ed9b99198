"""Columns of a stage that the paper does not have: behind the paper's, in none of its families, asked for only where they were begun."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from flrplan.evaluation import COLUMNS, PAPER_COLUMNS, Part
from flrplan.evaluation.inputs import absent_columns
from flrplan.workfolder import Split

MULTI = ("e2e_multi_liver", "e2e_multi_crlm", "e2e_multi_flr")


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, command):
    """Two models end to end, and two that find all three structures at once; one of these misses every lesion."""
    from tests.evaluation.conftest import Bench

    bench = Bench(tmp_path_factory.mktemp("beside"))
    for case in bench.ALL:
        bench.label(case)
        for name, shift in (("nnunet", 0), ("swinunetr", 1)):
            bench.predict(name, "e2e_flr", case, np.roll(bench.FLR, shift, axis=2))
        for name, crlm in (("multi_a", bench.CRLM), ("multi_b", bench.EMPTY)):
            for column, mask in zip(MULTI, (bench.LIVER, crlm, bench.FLR), strict=True):
                bench.predict(name, column, case, mask)
    bench.split(bench.FOLDS, bench.TEST)
    assert command(bench.arguments()) == 0
    return bench


def test_columns_stand_behind_the_papers_where_they_were_predicted(beside, whole, command) -> None:
    assert tuple(COLUMNS) == (*PAPER_COLUMNS[Part.TEST], *MULTI)
    for part, text in zip((Part.CV, Part.TEST), beside.tables(), strict=False):
        head = next(line for line in text.splitlines() if line.startswith("| Model"))
        titles = [COLUMNS[name].title for name in (*PAPER_COLUMNS[part], *MULTI)]
        assert head == f"| Model |  | {' | '.join(titles)} |"
        row = next(line for line in text.splitlines() if line.startswith("| multi_a | D |"))
        assert row.split(" | ")[2:-3] == ["- / - / -"] * len(PAPER_COLUMNS[part]), "never in a column of the paper"
        assert "baseline: whole liver" in text
    assert titles[-3:] == ["E2E multi-class Liver (CT)", "E2E multi-class CRLM (CT)", "E2E multi-class FLR (CT)"]
    assert command(whole.arguments()) == 0
    assert "multi-class" not in whole.tables()[0]


def test_the_flr_percent_of_its_own_takes_the_liver_and_crlm_of_the_same_network(beside) -> None:
    with (beside.out / "cases.csv").open(newline="") as file:
        rows = {(r["architecture"], r["column"]): r for r in csv.DictReader(file) if r["case"] == "t1"}
    liver, crlm, flr = beside.LIVER.sum(), beside.CRLM, beside.FLR
    expected = {"multi_a": 100 * (flr & ~crlm).sum() / (liver - crlm.sum()), "multi_b": 100 * flr.sum() / liver}
    for name, percent in expected.items():
        assert float(rows[name, "e2e_multi_flr"]["flr_percent_own_prediction"]) == pytest.approx(percent, abs=1e-3)
    assert rows["nnunet", "e2e_flr"]["flr_percent_own_prediction"] == ""


def test_comparisons_are_a_family_of_their_own_and_no_claim_speaks_of_them(beside) -> None:
    summary = json.loads((beside.out / "summary.json").read_text())
    families: dict[bool, set[int]] = {True: set(), False: set()}
    for entry in summary["comparisons"]:
        if (entry["part"], entry["kind"], entry["metric"]) == ("test", "architectures", "dice"):
            families[entry["a"][1] in MULTI].add(entry["family"])
    assert families == {True: {3}, False: {1}}
    assert summary["test"]["multi_a"]["e2e_multi_crlm"]["dice"]["standing"] == "best"
    assert "multi" not in json.dumps(summary["claims"])


def test_a_stage_is_asked_for_where_it_was_begun() -> None:
    split = Split((("a",),), ("t",))
    one = {"t": Path("t.nii.gz")}
    assert absent_columns({("multi_a", "e2e_multi_liver"): one}, split) == ("multi_a/e2e_multi_crlm", "multi_a/e2e_multi_flr")
    of_paper = absent_columns({("nnunet", "e2e_flr"): one}, split)
    assert of_paper == tuple(f"nnunet/{name}" for name in PAPER_COLUMNS[Part.TEST] if name != "e2e_flr")
