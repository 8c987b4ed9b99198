"""``flrplan cohort`` with a sheet, one's own CT beside, and faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flrplan.cli import main
from flrplan.image import Geometry, write_volume


def test_sheet_faults_and_a_ct_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.nii.gz"
    hu = np.full((20, 24, 28), -1000, np.int16)
    hu[:, 4:20, 4:24] = 60
    write_volume(own, hu, Geometry((28, 24, 20), (4.0, 4.0, 5.0), (0.0, 0.0, 0.0)))
    out, sheet = tmp_path / "cohort", tmp_path / "sheet.png"
    words = ["cohort", "--cases", "1", "--out", str(out), "--faults", "1", "--sheet", str(sheet), "--beside", str(own)]
    assert main(words) == 0
    assert sheet.stat().st_size > 1000
    assert "1 labels have faults" in capsys.readouterr().out
    assert len(json.loads((out / "faults.json").read_text())["cases"][0]["faults"]) >= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beside", "ct.nii.gz"], "--beside draws a CT onto the sheet: give --sheet PNG as well"),
        (["--faults", "1.5"], "faults must be at most 1, got 1.5"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--sheet", "s.png", "--beside", "absent.nii.gz"], "absent.nii.gz"),
    ],
)
def test_bad_words_say_what_to_do(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cohort", "--cases", "1", "--out", str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "images").exists()
