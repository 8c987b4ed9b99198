"""``benchmark/predict.py`` and the smoke run, as a user runs them: columns, resuming, and cases that trained the model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.evaluation.columns import COLUMNS
from flrplan.models import MODEL_ROOT

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmark"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARK / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke run on two cases: cohort, predictions, evaluation."""
    folder = tmp_path_factory.mktemp("smoke") / "work"
    done = run("smoke.py", "--work", folder, "--cases", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_smoke_writes_every_column_and_the_tables(work: Path) -> None:
    for column in COLUMNS:
        assert len(list((work / "predictions" / "nnunet" / column).glob("*.nii.gz"))) == 2
    written = {p.name for p in (work / "evaluation").iterdir()}
    assert {"cases.csv", "summary.json", "table1.md", "table2.md", "report.html"} <= written
    summary = json.loads((work / "evaluation" / "summary.json").read_text())
    assert summary["test"]["nnunet"]["pipelined_liver"]["dice"]["mean"] > 0.8
    assert "not comparable" in (work / "evaluation" / "table2.md").read_text()


def test_a_second_run_keeps_what_is_there(work: Path) -> None:
    files = {p: p.stat().st_mtime_ns for p in (work / "predictions").rglob("*.nii.gz")}
    changed = min(files)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(changed)))
    changed.unlink()
    assert run("predict.py", "--work", work, "--device", "cpu", "--no-mirroring").returncode == 0
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(changed))), truth), "the same prediction again"
    assert all(p.stat().st_mtime_ns == t for p, t in files.items() if p != changed)


def test_predictions_of_other_models_are_never_mixed_in(work: Path) -> None:
    record = work / "predicted-nnunet.json"
    before = record.read_text()
    record.write_text(json.dumps({"held-out": {**json.loads(before)["held-out"], "crlm": {"0": "of before"}}}))
    done = run("predict.py", "--work", work, "--device", "cpu", "--no-mirroring")
    record.write_text(before)
    assert done.returncode == 1
    assert "came from other models or settings" in done.stderr


def test_a_model_that_was_trained_on_a_case_is_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(MODEL_ROOT / "demo", tmp_path / "models")
    record = tmp_path / "models" / "crlm" / "nnunet" / "fold_0" / "run.json"
    run_json = json.loads(record.read_text())
    record.write_text(json.dumps({**run_json, "train_ids": [*run_json["train_ids"], "synth-5-0001"]}))
    (tmp_path / "splits.json").write_text('{"test": ["synth-5-0000", "synth-5-0001"], "folds": []}')
    done = run("predict.py", "--work", work, "--models", tmp_path / "models", "--splits", tmp_path / "splits.json")
    assert done.returncode == 1
    assert "fold 0 was trained on ['synth-5-0001']" in done.stderr


def test_a_split_that_does_not_cover_the_cases_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text('{"test": ["synth-5-0000"], "folds": []}')
    done = run("predict.py", "--work", work, "--splits", tmp_path / "splits.json")
    assert done.returncode == 1
    assert "not in the split ['synth-5-0001']" in done.stderr
