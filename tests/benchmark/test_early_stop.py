"""What stopping folds early would save: on a case by the demo models, each of whose two folds is there twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

import early_stop
from flrplan.cohort import SyntheticCase
from flrplan.engine import MODEL_ROOT

DEMO = str(MODEL_ROOT / "demo")


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["early_stop.py", *map(str, words)])
    return early_stop.main()


def test_at_least_two_run_and_the_same_two_again_change_nothing(
    small_case: SyntheticCase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder, array in (("images", small_case.hu_zyx), ("labels", small_case.planning_zyx)):
        (tmp_path / folder).mkdir()
        sitk.WriteImage(small_case.geometry.image(array), str(tmp_path / folder / "a.nii.gz"))
    assert run(monkeypatch, "--cases", tmp_path, "--out", tmp_path / "rows.json", "--models", DEMO, DEMO) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["stage"] for row in rows} == {"liver", "crlm", "flr"}
    assert all(row["of"] == 4 and 2 <= row["ran"] <= 4 for row in rows)
    assert all(row["agreement"] == 1.0 for row in rows if row["ran"] in (2, 4))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| stage | level |")
    assert len(lines) == 2 + 3 * len(early_stop.LEVELS)


def test_what_holds_no_case_or_no_model_is_told(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for cases, models in ((tmp_path, DEMO), (tiny_cohort, tmp_path)):
        assert run(monkeypatch, "--cases", cases, "--models", models) == 1
        assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "--cases", tiny_cohort, "--models", DEMO, "--first", 0)
    assert "--first: expected 1 or more, got 0" in capsys.readouterr().err
