"""What stopping folds early would save: on a case by the demo models, whose two folds never stop."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import early_stop
from flrplan.engine import MODEL_ROOT


def test_two_folds_always_run_and_three_may_stop(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo, out = str(MODEL_ROOT / "demo"), tmp_path / "rows.json"
    for models in ([demo], [demo, demo]):
        monkeypatch.setattr(
            sys, "argv", ["early_stop.py", "--cases", str(tiny_cohort), "--first", "1", "--out", str(out), "--models", *models]
        )
        assert early_stop.main() == 0
        rows = json.loads(out.read_text())
        assert {row["stage"] for row in rows} == {"liver", "crlm", "flr"}
        assert all(row["of"] == 2 * len(models) and 2 <= row["ran"] <= row["of"] for row in rows)
        assert all(row["agreement"] == 1.0 for row in rows if row["ran"] in (2, row["of"])), "the second time two are all"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| stage | level |")
    assert "| liver | 0.98 | 2.0 of 2 | 1.0000 | 1.0000 |" in "\n".join(lines)


def test_what_holds_no_case_or_no_model_is_told(
    tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for cases, models in ((tmp_path, MODEL_ROOT / "demo"), (tiny_cohort, tmp_path)):
        monkeypatch.setattr(sys, "argv", ["early_stop.py", "--cases", str(cases), "--models", str(models)])
        assert early_stop.main() == 1
        assert "error: " in capsys.readouterr().err
