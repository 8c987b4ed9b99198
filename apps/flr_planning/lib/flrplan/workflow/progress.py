"""What of a benchmark is done: from the files that the jobs leave, not from markers alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from flrplan.workflow.jobs import Job
from flrplan.workflow.settings import Rule
from flrplan.workfolder import WorkFolder


def stale_markers(jobs: Sequence[Job], work: Path) -> list[str]:
    """Markers of jobs whose products are not all there (somebody deleted some), and of all jobs that come after them.

    Snakemake makes no marker anew that only another one needed, so those must go, too. Preprocessed cases are not missed
    where everything that they train is there.
    """
    stale: list[str] = []
    for job in jobs:  # each after those that it needs
        marked = (WorkFolder(work).workflow / job.done).is_file()
        if marked and (set(job.after) & set(stale) or not (_has_products(job) or _is_used_up(job, jobs))):
            stale.append(job.done)
    return stale


def drop_markers(markers: Iterable[str], work: Path) -> None:
    """Removes these markers, so that their jobs run again."""
    for marker in markers:
        (WorkFolder(work).workflow / marker).unlink()


def copy_markers(jobs: Sequence[Job], work: Path, to: Path) -> None:
    """Copies the markers that count, with their times, into another folder: what a dry run looks at."""
    for job in _done(jobs, work):
        (to / job.done).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(WorkFolder(work).workflow / job.done, to / job.done)


def progress_lines(jobs: Sequence[Job], work: Path) -> list[str]:
    """A line per rule: jobs done, and of trainings and predictions the files that are there."""
    lines, finished = [], {job.done for job in _done(jobs, work)}
    for rule in Rule:
        own = [job for job in jobs if job.rule is rule]
        if not own:
            continue
        done = sum(job.done in finished for job in own)
        products = [path for job in own for path in job.products]
        there = sum(path.exists() for path in products)
        lines.append(f"{rule}: {done} of {len(own)} jobs done; {there} of {len(products)} files there")
    return lines


def _done(jobs: Sequence[Job], work: Path) -> list[Job]:
    stale = set(stale_markers(jobs, work))
    return [job for job in jobs if (WorkFolder(work).workflow / job.done).is_file() and job.done not in stale]


def _has_products(job: Job) -> bool:
    return all(path.exists() for path in job.products)


def _is_used_up(job: Job, jobs: Sequence[Job]) -> bool:
    return job.rule is Rule.PREPROCESS and all(_has_products(other) for other in jobs if job.done in other.after)
