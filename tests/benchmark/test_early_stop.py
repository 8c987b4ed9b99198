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


def test_at_least_two_run_and_the_same_two_again_change_nothing(
    small_case: SyntheticCase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder, array in (("images", small_case.hu_zyx), ("labels", small_case.planning_zyx)):
        (tmp_path / folder).mkdir()
        sitk.WriteImage(small_case.geometry.image(array), str(tmp_path / folder / "a.nii.gz"))
    words = ["--cases", tmp_path, "--out", tmp_path / "rows.json", "--models", DEMO, DEMO]
    monkeypatch.setattr(sys, "argv", ["early_stop.py", *map(str, words)])
    assert early_stop.main() == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["stage"] for row in rows} == {"liver", "crlm", "flr"}
    assert all(row["of"] == 4 and 2 <= row["ran"] <= 4 for row in rows)
    assert all(row["agreement"] == 1.0 for row in rows if row["ran"] in (2, 4))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| stage | level |")
    assert len(lines) == 2 + 3 * len(early_stop.LEVELS)
