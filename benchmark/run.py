"""Runs the benchmark of one YAML file: from the data to Tables 1 and 2, whatever of it is not done yet.

    python benchmark/run.py --config benchmark/configs/smoke.yaml --work work --dry-run     # what remains
    python benchmark/run.py --config benchmark/benchmark.yaml --work W                      # on this machine
    python benchmark/run.py --config benchmark/benchmark.yaml --work W --slurm              # on a cluster

Needs 'make workflow' (Snakemake in .venv-workflow). Stop it as you like and call it again: finished jobs stay, a training
continues at its last saved epoch, predictions case by case. Words after ``--`` go to Snakemake.
On this machine each job that asks for a GPU (``resources`` in the YAML) has its own, of those visible, or of ``--gpus``.
Writes W: the cases, training/, models/, predictions/, evaluation/ (tables and report.html) and workflow/ (markers,
logs/<rule>/<job>.log, Snakemake's own files).
Cost: benchmark/README.md.
Exit status: 0 done, 1 a job failed or the input cannot be used (stderr says which and where its log is), 2 wrong options.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flrplan.errors import FlrError, SettingsError
from flrplan.hardware import choose_gpus, visible_gpus
from flrplan.hardware.gpu_pool import VARIABLE
from flrplan.workflow import BenchmarkSettings, DataKind, Job, Places, benchmark_jobs, read_benchmark, with_split
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
from flrplan.workflow.jobs import known_split, settled_split, split_file
from flrplan.workflow.progress import copy_markers, drop_markers, progress_lines, stale_markers
from flrplan.workflow.record import require_same_benchmark
from flrplan.workfolder import WorkFolder, find_labelled_cases

HERE = Path(__file__).resolve().parent
OUR_SPLIT = HERE / "splits" / "ours_157_40.json"
SLURM_PROFILE = HERE / "profiles" / "slurm"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="run.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--config", type=Path, required=True, help="YAML that says what is run")
    parser.add_argument("--work", type=Path, default=Path("work"), help="work folder W (default: ./work)")
    parser.add_argument("--dry-run", action="store_true", help="show what remains; runs and writes nothing")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cores to use here (default: all)")
    parser.add_argument(
        "--gpus", metavar="N|0,1,..", help="GPUs to use here, a number or a list; each job has its own (default: all visible)"
    )
    parser.add_argument("--slurm", action="store_true", help=f"submit the jobs to Slurm (profile {SLURM_PROFILE.name})")
    parser.add_argument("--profile", type=Path, help="folder of a Snakemake profile of your own instead")
    parser.add_argument("snakemake", nargs="*", metavar="-- WORDS", help="passed on to Snakemake")
    return parser.parse_args(arguments)


def require_usable(settings: BenchmarkSettings, work: Path) -> None:
    """Raises FlrError where a prepared work folder has no cases, or a split that does not fit them."""
    if settings.data.kind is not DataKind.PREPARED:
        return
    if not work.is_dir():
        raise SettingsError(
            f"{work}: no such work folder; prepare it (benchmark/prepare.py), or let the YAML's data: say from what"
        )
    split = known_split(settings, work)
    if split is not None:
        ids = [case.case_id for case in find_labelled_cases(work)]
        split.require_cover(ids, split_file(settings, work), work)


@contextmanager
def show_only(jobs: Sequence[Job], work: Path) -> Iterator[tuple[Path, None]]:
    """A temporary copy of the markers for a dry run, which writes nothing into W and may look at a benchmark that runs."""
    with TemporaryDirectory(prefix="flrplan-dry-run-") as state:
        copy_markers(jobs, work, Path(state))
        yield Path(state), None


def run(options: argparse.Namespace) -> int:
    """Plans the jobs and hands them to Snakemake. Returns its exit status."""
    settings = with_split(read_benchmark(options.config), OUR_SPLIT)
    work = options.work.resolve()
    require_usable(settings, work)
    profile = options.profile or (SLURM_PROFILE if options.slurm else None)
    snakemake = find_snakemake(HERE.parent)
    here = profile is None and settings.device != "cpu"
    gpus = choose_gpus(options.gpus, visible_gpus()) if here else ()
    require_own_gpus(settings, gpus)
    engine = EngineSettings(
        HERE / "Snakefile", snakemake, options.cores, gpus, profile, options.dry_run, tuple(options.snakemake)
    )
    places = Places(work, HERE, sys.executable)
    jobs: list[Job] = benchmark_jobs(settings, places)
    with show_only(jobs, work) if options.dry_run else only_run(work) as (state, lock):
        require_same_benchmark(settings, settled_split(settings, work), work, record=not options.dry_run)
        stale = stale_markers(jobs, work)
        sys.stderr.write(
            "".join(f"{marker}: files of this job, or of one before it, are gone; it runs again\n" for marker in stale)
        )
        if not options.dry_run:
            drop_markers(stale, work)
        write_jobs(settings, jobs, state, gpus)
        command = snakemake_command(engine, state)
        sys.stderr.write("".join(f"{line}\n" for line in [*idle_gpus(settings, engine), shlex.join(command)]))
        without = here and options.gpus is not None and not gpus
        status = run_command(command, lock, {**os.environ, VARIABLE: ""} if without else None)
    if not options.dry_run:
        jobs = benchmark_jobs(settings, places)  # the split may have been drawn meanwhile
    sys.stdout.write("".join(f"{line}\n" for line in progress_lines(jobs, work)))
    if status and not options.dry_run:
        sys.stderr.write(
            f"error: not everything is done; logs in {WorkFolder(work).workflow / 'logs'}. Call the same command again to continue\n"
        )
    elif not options.dry_run:
        sys.stdout.write("".join(f"{path}\n" for path in jobs[-1].products))
    return 1 if status else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        return run(parse(arguments))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
