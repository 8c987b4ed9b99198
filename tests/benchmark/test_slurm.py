"""A small benchmark through Slurm, one job cancelled in the middle, the run called again. Skips where Slurm does not answer.

FLRPLAN_TEST_SLURM=1 asks for it (minutes); docs/slurm.md says how to start Slurm on one machine.
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

from flrplan.cohort import CohortSettings, write_cohort

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = """
split: split.json
architectures: [nnunet]
stages: [liver]
recipe: recipe.yaml
train_size: narrow
device: cpu
mirroring: false
predictions_per_job: 3
"""


@pytest.fixture(scope="module")
def slurm() -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("Slurm is not installed (no sbatch on PATH)")
    if subprocess.run(["sinfo"], capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("Slurm is installed but its controller does not answer (sinfo fails)")
    if not os.environ.get("FLRPLAN_TEST_SLURM"):
        pytest.skip("takes minutes: set FLRPLAN_TEST_SLURM=1")


def cancel_one_training(work: Path, process: subprocess.Popen[bytes]) -> None:
    """Cancels a job of rule train once a training has saved its state, not before."""
    while process.poll() is None:
        if list((work / "training").rglob("training_state.pth")):
            log = next((work / "workflow" / ".snakemake" / "slurm_logs" / "rule_train").rglob("*.log"))
            subprocess.run(["scancel", log.stem], check=True, timeout=60)
            return
        time.sleep(0.5)
    raise AssertionError("the run ended before a training began")


@pytest.mark.timeout(1500)
def test_a_cancelled_job_is_done_by_the_next_run(slurm: None, tmp_path: Path) -> None:
    work = tmp_path / "work"
    write_cohort(CohortSettings(cases=5, seed=6), work, progress=False)
    ids = [f"synth-6-000{i}" for i in range(5)]
    (tmp_path / "split.json").write_text(json.dumps({"test": ids[:1], "folds": [ids[1:3], ids[3:]]}))
    recipe = (REPOSITORY / "benchmark" / "configs" / "smoke_recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe.replace("epochs: 2", "epochs: 30"))
    (tmp_path / "b.yaml").write_text(CONFIG)
    shutil.copytree(REPOSITORY / "benchmark" / "profiles" / "slurm", tmp_path / "profile")
    with (tmp_path / "profile" / "config.yaml").open("a") as profile:
        profile.write("slurm-status-command: squeue\n")
    command = [sys.executable, str(REPOSITORY / "benchmark" / "run.py"), "--config", str(tmp_path / "b.yaml")]
    command += ["--work", str(work), "--profile", str(tmp_path / "profile")]
    with subprocess.Popen(command) as process:
        cancel_one_training(work, process)
        assert process.wait() == 1, "the run says that not everything is done"
    assert not (work / "evaluation").exists()
    assert subprocess.run(command, check=False, timeout=1200).returncode == 0
    assert (work / "evaluation" / "table2.md").is_file()
