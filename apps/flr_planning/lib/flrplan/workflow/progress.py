"""What of a benchmark is done: from the files that the jobs leave, not from markers alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from flrplan.workflow.jobs import STATE, Job
from flrplan.workflow.settings import Rule


def drop_stale_markers(jobs: Iterable[Job], work: Path) -> list[str]:
    """Removes the markers of jobs whose products are not all there (somebody deleted some); returns those markers."""
    stale = [job.done for job in jobs if (work / STATE / job.done).is_file() and not all(p.exists() for p in job.products)]
    for marker in stale:
        (work / STATE / marker).unlink()
    return stale


def progress_lines(jobs: Sequence[Job], work: Path) -> list[str]:
    """A line per rule: jobs done, and of trainings and predictions the files that are there."""
    lines = []
    for rule in Rule:
        own = [job for job in jobs if job.rule is rule]
        if not own:
            continue
        done = sum((work / STATE / job.done).is_file() for job in own)
        products = [path for job in own for path in job.products]
        there = sum(path.exists() for path in products)
        lines.append(f"{rule}: {done} of {len(own)} jobs done; {there} of {len(products)} files there")
    return lines
