"""What Snakemake is told, and one run in a folder at a time."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flrplan.errors import SettingsError
from flrplan.hardware import visible_gpus
from flrplan.workflow import BenchmarkSettings, Job, Places, Rule, benchmark_jobs
from flrplan.workflow.engine import (
    EngineSettings,
    find_snakemake,
    idle_gpus,
    only_run,
    require_own_gpus,
    run_command,
    snakemake_command,
    write_jobs,
)
from flrplan.workflow.settings import Resources
from flrplan.workfolder import WorkFolder

REPOSITORY = Path(__file__).resolve().parents[2]


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
    assert "gpu=2" in snakemake_command(replace(engine, gpus=("3", "5")), places.work)
    assert "gpu=0" in command


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


GPUS = {Rule.TRAIN: Resources(gpus=2, threads=2, mem_mb=1), Rule.PREDICT: Resources(gpus=1, mem_mb=1)}


def test_jobs_of_rules_with_a_gpu_take_it_from_the_pool_and_no_others(places: Places) -> None:
    settings = BenchmarkSettings(architectures=("nnunet",), resources=GPUS)
    jobs = benchmark_jobs(settings, places)
    for gpus in (("0", "MIG-GPU-a/1/0"), ()):
        content = json.loads(write_jobs(settings, jobs, places.work, gpus).read_text())
        for job in jobs:
            words = shlex.split(content["jobs"][str(job.rule)][job.name]["command"])
            pool = words[: len(words) - len(job.command)]
            count = {Rule.TRAIN: "2", Rule.PREDICT: "1"}.get(job.rule)
            assert pool[1:] == (
                ["-m", "flrplan.hardware.gpu_pool", "--gpus", count, "--devices", "0,MIG-GPU-a/1/0", "--"]
                if count and gpus
                else []
            )


def test_what_cannot_have_a_gpu_of_its_own_is_refused() -> None:
    settings = BenchmarkSettings(resources=GPUS)
    require_own_gpus(settings, ("0", "1"))
    require_own_gpus(BenchmarkSettings(), ())
    with pytest.raises(SettingsError, match=r"resources: train: gpus: 2, but 1 are used here \(GPU-a\)"):
        require_own_gpus(settings, ("GPU-a",))
    with pytest.raises(
        SettingsError, match=r"resources: train: gpus is 0, and there are 2 GPUs here.*say gpus: 1, or device: cpu"
    ):
        require_own_gpus(BenchmarkSettings(), ("0", "1"))
    with pytest.raises(SettingsError, match="device: cuda:1, but every job sees only the GPUs that it was given; say cuda"):
        require_own_gpus(replace(settings, device="cuda:1"), ("0", "1"))


def test_gpus_that_wait_for_cores_or_memory_are_told(tmp_path: Path) -> None:
    engine = EngineSettings(tmp_path, tmp_path, cores=4, gpus=tuple("01234567"))
    settings = BenchmarkSettings(resources=GPUS)
    assert idle_gpus(settings, engine) == [
        "train: 2 of 4 jobs at once (4 cores, threads: 2); see resources in the YAML, and --cores",
        "predict: 4 of 8 jobs at once (4 cores, threads: 1); see resources in the YAML, and --cores",
    ]
    assert idle_gpus(settings, replace(engine, cores=8)) == []
    assert idle_gpus(settings, replace(engine, gpus=())) == []
    big = BenchmarkSettings(resources=dict.fromkeys(Rule, Resources(gpus=4, mem_mb=10**7)))
    assert [line.split(" (")[0] for line in idle_gpus(big, engine)] == [
        "train: 1 of 2 jobs at once",
        "predict: 1 of 2 jobs at once",
    ]


def test_snakemake_runs_as_many_jobs_as_there_are_gpus_each_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_gpu: Callable[[Path, int], str]
) -> None:
    """Real Snakemake and processes, pretended devices: five trainings on two, then the tables, which take none."""
    snakemake = find_own_snakemake()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-e86cb44c,-1,7")
    engine = EngineSettings(REPOSITORY / "benchmark" / "Snakefile", snakemake, cores=8, gpus=visible_gpus())
    train = [Job(Rule.TRAIN, f"t{k}", ("sh", "-c", f"({use_gpu(tmp_path, 2)}) >> {tmp_path}/seen")) for k in range(5)]
    last = ("sh", "-c", f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/last")
    jobs = [*train, Job(Rule.EVALUATE, "tables", last, tuple(job.done for job in train))]
    settings = BenchmarkSettings(resources={Rule.TRAIN: Resources(gpus=1, mem_mb=1), Rule.EVALUATE: Resources(mem_mb=1)})
    write_jobs(settings, jobs, tmp_path, engine.gpus)
    assert run_command(snakemake_command(engine, tmp_path), None) == 0
    seen = (tmp_path / "seen").read_text().split()
    assert (len(seen), set(seen)) == (5, {"2", "GPU-e86cb44c"})
    assert (tmp_path / "last").read_text().strip() == "2,GPU-e86cb44c,-1,7", (
        "a job that takes none sees what it would without us"
    )


def find_own_snakemake() -> Path:
    try:
        return find_snakemake(REPOSITORY)
    except SettingsError:
        pytest.skip("Snakemake is not installed: make workflow")


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    with only_run(tmp_path), pytest.raises(SettingsError, match="another run of the benchmark"), only_run(tmp_path):
        pass
    with only_run(tmp_path):
        assert (WorkFolder(tmp_path).workflow / "lock").is_file()
