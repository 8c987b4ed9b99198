"""``benchmark/run.py`` on the smoke of variants: every kind of control and recipe trains, predicts and stands in the tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "benchmark" / "configs" / "smoke_variants.yaml"
ROWS = ("nnunet", "stunet_scratch", "swinunetr_own_spacing", "nnunet_seed_1", "nnunet_dice", "resenc_m", "ensemble")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_smoke_of_variants(tmp_path: Path) -> None:
    if not (REPOSITORY / ".venv-workflow" / "bin" / "snakemake").is_file() and shutil.which("snakemake") is None:
        pytest.skip("Snakemake is not installed: make workflow")
    work = tmp_path / "work"
    command = [sys.executable, str(REPOSITORY / "benchmark" / "run.py"), "--config", str(CONFIG), "--work", str(work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--cores", "1"], capture_output=True, text=True, timeout=3000, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    summary = json.loads((work / "evaluation" / "summary.json").read_text())
    for part, cases in (("cv", 4), ("test", 1)):
        assert set(summary[part]) == {*ROWS, "nnunet_multi"}
        assert list(summary[part]["nnunet_multi"]) == ["e2e_multi_liver", "e2e_multi_crlm", "e2e_multi_flr"]
        assert {row: columns["pipelined_liver"]["dice"]["n"] + columns["pipelined_liver"]["dice"]["n_undefined"]
                for row, columns in summary[part].items() if row in ROWS} == dict.fromkeys(ROWS, cases)  # fmt: skip
    assert sorted(p.name[:9] for p in (work / "training").iterdir()) == ["liver", "multi", "prepared_", "shared_ch"]
    for table in ("table1.md", "table2.md"):
        text = (work / "evaluation" / table).read_text()
        assert "stunet_scratch: STU-Net, pretrained scratch" in text
        assert "nnunet_multi: nnU-Net, stages multi" in text
        assert "ensemble: majority vote of nnU-Net, stunet_scratch, resenc_m" in text
        assert "nnU-Net, nnunet_seed_1 differ in their seed alone." in text
        assert "no bound" in text
