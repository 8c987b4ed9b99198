"""The smoke benchmark of one architecture through Slurm, a training cancelled in the middle, the run called again.

Skips where Slurm does not answer. FLRPLAN_TEST_SLURM=1 asks for it (23 minutes on two busy cores); docs/slurm.md says how to start Slurm
on one machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flrplan.evaluation import PAPER_COLUMNS, Part
from flrplan.method import PAPER_STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "benchmark" / "configs" / "smoke_slurm.yaml"
FOLDS = 2


@pytest.fixture(scope="module")
def slurm() -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("Slurm is not installed (no sbatch on PATH)")
    if subprocess.run(["sinfo"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("Slurm is installed but its controller does not answer (sinfo fails)")
    if not os.environ.get("FLRPLAN_TEST_SLURM"):
        pytest.skip("takes 20 minutes: set FLRPLAN_TEST_SLURM=1")


def cancel_one_training(work: Path, process: subprocess.Popen[bytes]) -> Path:
    """Cancels the first training that has saved its state, not before; returns its log under ``workflow/logs/``."""
    while process.poll() is None:
        for state in (work / "training").rglob("training_state.pth"):
            fold = next(part for part in state.parts if part.startswith("fold_")).removeprefix("fold_")
            name = f"{state.relative_to(work / 'training').parts[0]}-nnunet-{fold}"
            log = next((work / "workflow" / ".snakemake" / "slurm_logs" / "rule_train" / name).glob("*.log"))
            subprocess.run(["scancel", log.stem], check=True, timeout=60)
            return work / "workflow" / "logs" / "train" / f"{name}.log"
        time.sleep(0.5)
    raise AssertionError("the run ended before a training began")


def published(work: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in (work / "models").rglob("checkpoint_final.pth")}


@pytest.mark.timeout(3600)
def test_a_cancelled_training_is_continued_by_the_next_run_which_ends_in_the_tables(slurm: None, tmp_path: Path) -> None:
    work = tmp_path / "work"
    command = [
        sys.executable,
        str(REPOSITORY / "benchmark" / "run.py"),
        "--config",
        str(CONFIG),
        "--work",
        str(work),
        "--slurm",
    ]
    command += ["--", "--slurm-status-command", "squeue"]
    with subprocess.Popen(command) as process:
        log = cancel_one_training(work, process)
        assert process.wait() == 1, "the run says that not everything is done"
    before = published(work)
    assert len(before) == len(PAPER_STAGES) * FOLDS - 1, "the others went on"
    assert not (work / "evaluation").exists()
    assert subprocess.run(command, check=False, timeout=1800).returncode == 0
    assert "continues at epoch" in log.read_text()
    after = published(work)
    assert len(after) == len(PAPER_STAGES) * FOLDS
    assert {p: after[p] for p in before} == before, "what was trained is kept"
    summary = json.loads((work / "evaluation" / "summary.json").read_text())
    assert set(summary["test"]["nnunet"]) == set(PAPER_COLUMNS[Part.TEST])
    assert summary["gaps"] == summary["absent_columns"] == []
