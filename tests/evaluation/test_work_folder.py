"""A work folder: its own labels and truth, its own results, what must be stated about it, and what its tables say unasked."""

from __future__ import annotations

import csv
import json

import pytest

from flrplan.cohort.write import TABLE_NAME
from flrplan.evaluation import COLUMNS, PAPER_COLUMNS, SYNTHETIC_NOTE, Part


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
    assert all(SYNTHETIC_NOTE in text for text in whole.tables()[:2])
    assert "not comparable with the paper" in whole.tables()[2]
    assert json.loads((whole.out / "summary.json").read_text())["note"] == SYNTHETIC_NOTE
    assert command([*arguments, "--note", "Smoke run."]) == 0
    assert "Smoke run." in whole.tables()[0]
    assert SYNTHETIC_NOTE not in whole.tables()[0]
    assert command(whole.arguments()) == 0
    assert SYNTHETIC_NOTE not in whole.tables()[0], "labels of no work folder"


def test_a_column_that_is_wholly_absent_from_a_work_folder_must_be_stated(whole, command, capsys):
    for case in whole.ALL:
        for column in PAPER_COLUMNS[Part.TEST]:
            whole.predict("whole", column, case, whole.FLR)
    stated = [word for c in PAPER_COLUMNS[Part.TEST] if c != "pipelined_flr" for word in ("--absent", f"nnunet/{c}")]
    arguments = ["--work", str(whole.root), "--workers", "1", "--out", str(whole.out)]
    assert command([*arguments, *stated[:-2]]) == 1
    assert "without a single prediction: nnunet/e2e_flr. Predict them" in capsys.readouterr().err
    assert not whole.out.exists()
    assert command([*arguments, *stated]) == 0
    for text in whole.tables():
        assert "Not predicted, so shown as -: nnunet/pipelined_liver" in text
        assert "nnunet/e2e_flr." in text
    ours = next(line for line in whole.tables()[1].splitlines() if line.startswith("| nnU-Net | D"))
    assert ours.rstrip("| ").split("| ")[-1].startswith("- / "), "no number of ours beside the paper's"
    assert "nnunet/e2e_flr" in json.loads((whole.out / "summary.json").read_text())["absent_columns"]


def test_an_absent_column_that_does_not_exist(whole, command, capsys):
    assert command(["--work", str(whole.root), "--absent", "nnunet/e2e_liver"]) == 1
    assert "--absent: unknown column nnunet/e2e_liver" in capsys.readouterr().err


def test_without_a_work_folder_the_smoke_command_is_named(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command([]) == 1
    assert "make benchmark-smoke" in capsys.readouterr().err
