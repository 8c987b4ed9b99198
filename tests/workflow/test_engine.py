"""What Snakemake is told, and one run in a folder at a time."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.workflow.engine import EngineSettings, find_snakemake, only_run, snakemake_command, write_jobs
from flrplan.workflow.jobs import STATE, Places, benchmark_jobs
from flrplan.workflow.settings import BenchmarkSettings


def test_snakemake_is_told_where_and_how(places: Places, tmp_path: Path) -> None:
    engine = EngineSettings(Path("/b/Snakefile"), Path("/snakemake"), cores=2, dry_run=True, extra=("--until", "train"))
    command = snakemake_command(engine, places.work)
    assert command[0] == "/snakemake"
    assert command[command.index("--directory") + 1] == str(places.work)
    assert command[-3:] == ["--dry-run", "--until", "train"]
    assert "--rerun-incomplete" in command
    profile = tmp_path / "p"
    with pytest.raises(SettingsError, match="expected a Snakemake profile"):
        replace(engine, profile=profile)
    with pytest.raises(SettingsError, match="--gpus is 0 or 1"):
        replace(engine, gpus=2)


def test_snakemake_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="run 'make workflow'"):
        find_snakemake(tmp_path)


def test_the_configuration_holds_every_job_and_the_last_marker(places: Places) -> None:
    settings = BenchmarkSettings(architectures=("nnunet",), note="it's")
    jobs = benchmark_jobs(settings, places)
    content = json.loads(write_jobs(settings, jobs, places.work).read_text())
    assert content["last"] == "done/evaluate/tables"
    assert sum(len(own) for own in content["jobs"].values()) == len(jobs)
    command = content["jobs"]["evaluate"]["tables"]["command"]
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout
    assert words.splitlines() == list(jobs[-1].command), "quoted for the shell"


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    with only_run(tmp_path), pytest.raises(SettingsError, match="another run of the benchmark"), only_run(tmp_path):
        pass
    with only_run(tmp_path):
        assert (tmp_path / STATE / "lock").is_file()
