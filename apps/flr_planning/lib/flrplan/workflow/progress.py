"""What of a benchmark is done: from the files that the jobs leave, not from markers alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from flrplan.workflow.jobs import STATE, Job
from flrplan.workflow.settings import Rule


def stale_markers(jobs: Iterable[Job], work: Path) -> list[str]:
    """Markers of jobs whose products are not all there (somebody deleted some)."""
    return [job.done for job in jobs if (work / STATE / job.done).is_file() and not _has_products(job)]


def drop_markers(markers: Iterable[str], work: Path) -> None:
    """Removes these markers, so that their jobs run again."""
    for marker in markers:
        (work / STATE / marker).unlink()


def copy_markers(jobs: Iterable[Job], work: Path, to: Path) -> None:
    """Copies the markers that count, with their times, into another folder: what a dry run looks at."""
    for job in jobs:
        if _is_done(job, work):
            (to / job.done).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(work / STATE / job.done, to / job.done)


def progress_lines(jobs: Sequence[Job], work: Path) -> list[str]:
    """A line per rule: jobs done, and of trainings and predictions the files that are there."""
    lines = []
    for rule in Rule:
        own = [job for job in jobs if job.rule is rule]
        if not own:
            continue
        done = sum(_is_done(job, work) for job in own)
        products = [path for job in own for path in job.products]
        there = sum(path.exists() for path in products)
        lines.append(f"{rule}: {done} of {len(own)} jobs done; {there} of {len(products)} files there")
    return lines


def _is_done(job: Job, work: Path) -> bool:
    return (work / STATE / job.done).is_file() and _has_products(job)


def _has_products(job: Job) -> bool:
    return all(path.exists() for path in job.products)
