"""Subgroups by hand, what so many cases can show, and the checklist that is filled from what the run knows."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from flrplan.errors import SettingsError
from flrplan.evaluation import COLUMNS
from flrplan.evaluation.power import largest_spread, smallest_detectable
from flrplan.evaluation.subgroups import read_clinical

HEAD = ["case", "steatosis", "chemotherapy", "bilobar"]
CASES = ["t1", "t2", "t3", "t4"]


@pytest.fixture(scope="module")
def evaluated(oracle, tmp_path_factory, command):
    """A work folder of four held-out cases and four of two folds, two architectures with FLR errors of 0 and 1 column."""
    bench = type(oracle)(tmp_path_factory.mktemp("subgroups"))
    bench.labels.rmdir()
    many = bench.LIVER & ~bench.FLR & (np.indices(bench.LIVER.shape)[0] < 4)  # 3 slices of 16 x 6: 288 of 2560 voxels, 11.25 %
    folds = [["a1", "a2"], ["b1", "b2"]]
    for k, case in enumerate([*CASES, *folds[0], *folds[1]]):
        crlm = many if case == "t1" else bench.EMPTY if case == "t2" else bench.CRLM  # 36 of 2560: 1.4 %
        for name, mask in (("liver", bench.LIVER), ("crlm", crlm), ("flr", bench.FLR)):
            bench.write(bench.root / "masks" / case / f"{name}.nii.gz", mask)
        bench.predict("nnunet", "pipelined_flr", case, np.roll(bench.FLR, k % 2, axis=2))  # Dice 1, 0.9, 1, 0.9
        bench.predict("swinunetr", "pipelined_flr", case, np.roll(bench.FLR, 1, axis=2))  # 0.9
    bench.split(folds, CASES)
    rows = [["t1", "yes", "", "no"], ["t2", "yes", "", "no"], ["t3", "no", "", ""], ["elsewhere", "no", "yes", ""]]
    with (bench.root / "dataset.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows])
    others = [word for c in COLUMNS if c != "pipelined_flr" for word in ("--absent", c)]
    assert command(["--work", str(bench.root), "--out", str(bench.out), "--workers", "1", *others]) == 0
    return bench, json.loads((bench.out / "summary.json").read_text())


def counts(summary, division):
    cells = summary["strata"][division]["test"]["nnunet"]["pipelined_flr"]
    return {stratum: (cell["dice"]["n"], round(cell["dice"]["mean"], 6)) for stratum, cell in cells.items()}


def test_strata_of_disease_and_liver(evaluated):
    _, summary = evaluated
    assert counts(summary, "tumour burden") == {"< 1 %": (1, 0.9), "1-5 %": (2, 0.95), "> 5 %": (1, 1.0)}
    # 1600 of 2560 - 288, of 2560 and of 2560 - 36 voxels: 70.4, 62.5 and 63.4 %.
    assert counts(summary, "FLR%") == {"> 60 %": (4, 0.95)}
    row = next(r for r in csv.DictReader((evaluated[0].out / "cases.csv").open()) if r["case"] == "t1")
    assert float(row["tumour_percent"]) == pytest.approx(11.25)


def test_strata_of_the_clinical_sheet_count_what_is_not_known(evaluated):
    bench, summary = evaluated
    assert counts(summary, "steatosis") == {"yes": (2, 0.95), "no": (1, 1.0), "not known": (1, 0.9)}
    assert counts(summary, "bilobar") == {"no": (2, 0.95), "not known": (2, 0.95)}
    assert "chemotherapy" not in summary["strata"], "known of no case here"
    page = (bench.out / "report.html").read_text()
    assert "Dice by steatosis" in page
    assert "0.950 - (n = 2)" in page, "two cases give a mean and no interval"


def test_a_table_with_other_values_is_refused_and_none_is_no_error(tmp_path):
    assert read_clinical(None, {"t1"}) == read_clinical(tmp_path, {"t1"}) == {}
    (tmp_path / "dataset.csv").write_text("case,tumours\nt1,3\n")
    assert read_clinical(tmp_path, {"t1"}) == {}
    (tmp_path / "dataset.csv").write_text("case,steatosis\nt1,1\n")
    with pytest.raises(SettingsError, match=r"dataset\.csv: t1, steatosis: expected yes, no or nothing, found '1'"):
        read_clinical(tmp_path, {"t1"})


def test_the_smallest_detectable_difference_by_hand():
    # Quantiles of Student's t with 39 degrees of freedom: 2.0227 (0.975) and 0.8512 (0.8).
    assert smallest_detectable(0.1, 40) == pytest.approx((2.0227 + 0.8512) * 0.1 / math.sqrt(40), rel=1e-4)
    assert smallest_detectable(0.0, 40) == 0.0
    assert smallest_detectable(0.1, 2) is None
    assert largest_spread(smallest_detectable(0.1, 40), 40) == pytest.approx(0.1)
    assert largest_spread(0.003, 40) == pytest.approx(0.0066, abs=1e-4)


def test_what_four_cases_can_show(evaluated):
    bench, summary = evaluated
    pair = next(e for e in summary["detectable"]["pairs"] if e["part"] == "test" and e["kind"] == "architectures")
    assert (pair["a"], pair["b"], pair["n"]) == (["nnunet", "pipelined_flr"], ["swinunetr", "pipelined_flr"], 4)
    spread = math.sqrt(4 * 0.05**2 / 3)  # differences 0.1, 0, 0.1, 0
    assert pair["sd"] == pytest.approx(spread)
    assert pair["smallest"] == pytest.approx((3.1824 + 0.9785) * spread / 2, rel=1e-4)  # t with 3 degrees of freedom
    page = " ".join((bench.out / "report.html").read_text().split())
    assert "lie 0.003 and 0.005 apart; 4 held-out cases can show such a difference only if" in page


def test_the_checklist_holds_every_item_and_only_what_the_run_knows(evaluated):
    bench, _ = evaluated
    text = (bench.out / "checklist.md").read_text()
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    numbers = [row[0] for row in cells]
    assert [n for n in numbers if n.isdigit()] == [*map(str, range(1, 43)), *map(str, range(1, 28))]
    answers = {row[1]: row[2] for row in cells}
    assert answers["funding"] == answers["registration"] == answers["ethics"] == "not known by the run: fill in"
    assert answers["partitions"] == "4 cases in 2 scored folds of a cross-validation, 4 held out"
    unknown = [answers[asked] for asked in ("initial weights", "training", "ensembling", "where the data come from")]
    assert unknown == ["not known by the run: fill in"] * 4, "no model is at hand"
    assert "steatosis, bilobar" in answers["robustness"]
    assert "no case was missing" in answers["flow of cases"]
    assert answers["calibration"] == "not assessed: no probabilities were scored"
    assert answers["variability between and within annotators"] == "not known by the run: fill in", (
        "no original labels were scored"
    )
