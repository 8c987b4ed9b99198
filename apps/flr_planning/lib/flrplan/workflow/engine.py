"""Calls Snakemake: the file with the jobs, the command line, one run at a time in a work folder."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from flrplan.errors import SettingsError
from flrplan.files import write_json
from flrplan.hardware.flock import flock
from flrplan.workflow.jobs import Job
from flrplan.workflow.settings import BenchmarkSettings, Rule
from flrplan.workfolder import WorkFolder

JOBS_NAME = "jobs.json"
"""The jobs as Snakemake's configuration, in the folder in which it works."""


@dataclass(frozen=True)
class EngineSettings:
    """How the jobs are run.

    snakefile: the workflow. cores, gpus: what jobs on this machine may use together, GPUs by name. profile: folder of a Snakemake
    profile (Slurm), None: this machine. extra: further words for Snakemake.
    """

    snakefile: Path
    snakemake: Path
    cores: int
    gpus: tuple[str, ...] = ()
    profile: Path | None = None
    dry_run: bool = False
    extra: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise SettingsError(f"cores must be at least 1, got {self.cores}")
        if self.profile is not None and not any(self.profile.glob("config*.yaml")):
            raise SettingsError(f"{self.profile}: expected a Snakemake profile, a folder with config.yaml")


def find_snakemake(repository: Path) -> Path:
    """The Snakemake of ``make workflow``, else the one on PATH. Raises SettingsError where there is none."""
    own = repository / ".venv-workflow" / "bin" / "snakemake"
    found = str(own) if own.is_file() else shutil.which("snakemake")
    if found is None:
        raise SettingsError(f"Snakemake is not installed; run 'make workflow' in {repository} (it makes .venv-workflow)")
    return Path(found)


def require_own_gpus(settings: BenchmarkSettings, gpus: Sequence[str]) -> None:
    """Raises SettingsError where the jobs on a machine with these GPUs could not each have their own."""
    if gpus and settings.device.startswith("cuda:"):
        raise SettingsError(f"device: {settings.device}, but every job sees only the GPUs that it was given; say cuda, or auto")
    for rule in (Rule.TRAIN, Rule.PREDICT):
        count = settings.resources_of(rule).gpus
        if gpus and count > len(gpus):
            raise SettingsError(f"resources: {rule}: gpus: {count}, but {len(gpus)} are used here ({', '.join(gpus)})")
        if gpus and count == 0:
            raise SettingsError(
                f"resources: {rule}: gpus is 0, and there are {len(gpus)} GPUs here, of which all these jobs would take the first; "
                "say gpus: 1, or device: cpu, or --gpus 0"
            )


def idle_gpus(settings: BenchmarkSettings, engine: EngineSettings) -> list[str]:
    """Sentences for each rule whose jobs ask for so many cores or so much memory that GPUs of this machine wait for them."""
    lines = []
    for rule in (Rule.TRAIN, Rule.PREDICT) if engine.gpus else ():
        need = settings.resources_of(rule)
        by_gpus = len(engine.gpus) // max(1, need.gpus)
        limits = {
            f"{engine.cores} cores, threads: {need.threads}": engine.cores // need.threads,
            f"{_memory_mb()} MB, mem_mb: {need.mem_mb}": _memory_mb() // need.mem_mb,
        }
        limit, count = min(limits.items(), key=lambda item: item[1])
        if count < by_gpus:
            lines.append(f"{rule}: {max(1, count)} of {by_gpus} jobs at once ({limit}); see resources in the YAML, and --cores")
    return lines


def with_gpu(command: Sequence[str], count: int, gpus: Sequence[str]) -> list[str]:
    """The command, which first takes ``count`` of these GPUs (:mod:`flrplan.hardware.gpu_pool`); as it is where it needs or there are none."""
    pool = [sys.executable, "-m", "flrplan.hardware.gpu_pool", "--gpus", str(count), "--devices", ",".join(gpus), "--"]
    return [*(pool if count and gpus else []), *command]


def write_jobs(settings: BenchmarkSettings, jobs: Sequence[Job], state: Path, gpus: Sequence[str] = ()) -> Path:
    """Writes what the Snakefile reads into the folder in which Snakemake works; returns its path.

    gpus: devices of this machine, of which each job takes what its rule asks for; none: a scheduler gives them.
    """
    content: dict[str, Any] = {"jobs": {str(rule): {} for rule in Rule}, "resources": {}}
    for job in jobs:
        command = with_gpu(job.command, settings.resources_of(job.rule).gpus, gpus)
        content["jobs"][str(job.rule)][job.name] = {"command": shlex.join(command), "after": list(job.after)}
    for rule in Rule:
        need = settings.resources_of(rule)
        content["resources"][str(rule)] = {
            "threads": need.threads,
            "mem_mb": need.mem_mb,
            "minutes": need.minutes,
            "gpus": need.gpus,
        }
    content["last"] = jobs[-1].done
    write_json(state / JOBS_NAME, content)
    return state / JOBS_NAME


def snakemake_command(settings: EngineSettings, state: Path) -> list[str]:
    """The command line that runs what is not done. ``state``: where the markers are, ``workflow/`` of the work folder.

    ``--nolock``: :func:`only_run` holds a lock that a kill releases. Only times of markers decide: commands themselves refuse
    what does not fit.
    """
    command = [str(settings.snakemake), "--snakefile", str(settings.snakefile), "--configfile", str(state / JOBS_NAME)]
    command += ["--directory", str(state), "--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime"]
    command += ["--keep-going", "--show-failed-logs"]
    if settings.profile is None:
        command += ["--cores", str(settings.cores), "--resources", f"gpu={len(settings.gpus)}", f"mem_mb={_memory_mb()}"]
    else:
        command += ["--profile", str(settings.profile)]
    return [*command, *(["--dry-run"] if settings.dry_run else []), *settings.extra]


def _memory_mb() -> int:
    return int(psutil.virtual_memory().total // 2**20)


@contextmanager
def only_run(work: Path) -> Iterator[tuple[Path, int]]:
    """Holds the work folder's lock; gives the folder of its markers, and the lock's file descriptor.

    Snakemake inherits the descriptor, so that it holds the lock as well.

    Raises: SettingsError where another run holds it.
    """
    path = WorkFolder(work).workflow / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not flock(descriptor):
            raise SettingsError(f"{work}: another run of the benchmark is at work there; wait for it or stop it")
        yield path.parent, descriptor
    finally:
        os.close(descriptor)


def run_command(command: Sequence[str], lock: int | None, environment: Mapping[str, str] | None = None) -> int:
    """Runs Snakemake in the foreground; Ctrl-C reaches it too, and it stops its jobs first. Returns its exit status."""
    with subprocess.Popen(command, pass_fds=() if lock is None else (lock,), env=environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
