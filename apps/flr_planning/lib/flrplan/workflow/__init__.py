"""The benchmark of one YAML file as jobs: which command, after which jobs, leaving which files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.workflow.jobs import Job, Places, benchmark_jobs
    from flrplan.workflow.reading import read_benchmark, read_variants
    from flrplan.workflow.settings import BenchmarkSettings, DataKind, Rule, with_split

__all__ = [
    "BenchmarkSettings",
    "DataKind",
    "Job",
    "Places",
    "Rule",
    "benchmark_jobs",
    "read_benchmark",
    "read_variants",
    "with_split",
]

import_at_first_use(
    __name__,
    {
        "flrplan.workflow.settings": (
            "BenchmarkSettings",
            "DataKind",
            "Rule",
            "with_split",
        ),
        "flrplan.workflow.jobs": (
            "Job",
            "Places",
            "benchmark_jobs",
        ),
        "flrplan.workflow.reading": (
            "read_benchmark",
            "read_variants",
        ),
    },
)
