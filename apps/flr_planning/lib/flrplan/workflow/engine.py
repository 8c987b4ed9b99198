"""Calls Snakemake: the file with the jobs, the command line, one run at a time in a work folder."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from flrplan.errors import SettingsError
from flrplan.io import write_json
from flrplan.workflow.jobs import STATE, Job
from flrplan.workflow.settings import BenchmarkSettings, Rule

JOBS_NAME = "jobs.json"
"""The jobs as Snakemake's configuration, in the folder in which it works."""


@dataclass(frozen=True)
class EngineSettings:
    """How the jobs are run.

    snakefile: the workflow. cores, gpus: what jobs on this machine may use together. profile: folder of a Snakemake profile
    (Slurm), None: this machine. extra: further words for Snakemake.
    """

    snakefile: Path
    snakemake: Path
    cores: int
    gpus: int = 1
    profile: Path | None = None
    dry_run: bool = False
    extra: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.cores < 1 or self.gpus < 0:
            raise SettingsError(f"cores must be at least 1 and gpus at least 0, got {self.cores} and {self.gpus}")
        if self.gpus > 1 and self.profile is None:
            raise SettingsError(
                "on this machine every job takes the first visible GPU, so --gpus is 0 or 1; for more GPUs use --slurm"
            )
        if self.profile is not None and not any(self.profile.glob("config*.yaml")):
            raise SettingsError(f"{self.profile}: expected a Snakemake profile, a folder with config.yaml")


def find_snakemake(repository: Path) -> Path:
    """The Snakemake of ``make workflow``, else the one on PATH. Raises SettingsError where there is none."""
    own = repository / ".venv-workflow" / "bin" / "snakemake"
    found = str(own) if own.is_file() else shutil.which("snakemake")
    if found is None:
        raise SettingsError(f"Snakemake is not installed; run 'make workflow' in {repository} (it makes .venv-workflow)")
    return Path(found)


def write_jobs(settings: BenchmarkSettings, jobs: Sequence[Job], state: Path) -> Path:
    """Writes what the Snakefile reads into the folder in which Snakemake works; returns its path."""
    content: dict[str, Any] = {"jobs": {str(rule): {} for rule in Rule}, "resources": {}}
    for job in jobs:
        content["jobs"][str(job.rule)][job.name] = {"command": shlex.join(job.command), "after": list(job.after)}
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
        memory_mb = psutil.virtual_memory().total // 2**20
        command += ["--cores", str(settings.cores), "--resources", f"gpu={settings.gpus}", f"mem_mb={memory_mb}"]
    else:
        command += ["--profile", str(settings.profile)]
    return [*command, *(["--dry-run"] if settings.dry_run else []), *settings.extra]


@contextmanager
def only_run(work: Path) -> Iterator[tuple[Path, int]]:
    """Holds the work folder's lock; gives the folder of its markers, and the lock's file descriptor.

    Snakemake inherits the descriptor, so that it holds the lock as well.

    Raises: SettingsError where another run holds it.
    """
    path = work / STATE / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"{work}: another run of the benchmark is at work there; wait for it or stop it") from None
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
