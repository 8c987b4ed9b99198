"""``flrplan cohort``: a synthetic cohort with known truth, for trying, testing and for the demo models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flrplan.cohort import CaseSize, CohortSettings, case_name, contact_sheet, make_case, write_cohort
from flrplan.cohort.write_dicom import write_dicom_cohort
from flrplan.commands.say import say

SHEET_CASES = 12


def add_parser(commands: Any) -> None:
    """Adds ``cohort`` to the command line."""
    parser = commands.add_parser("cohort", help="write a synthetic cohort of CTs with known truth")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="same seed, same cases (default: 0)")
    parser.add_argument("--size", choices=[s.value for s in CaseSize], default=CaseSize.SMALL.value)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--force", action="store_true", help="write every case anew")
    parser.add_argument("--dicom", action="store_true", help="also write every CT as a DICOM series, dicom/<case>/")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help=f"also draw the first {SHEET_CASES} cases with their truth")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the cohort; continues a broken run with the same settings."""
    settings = CohortSettings(cases=arguments.cases, seed=arguments.seed, size=CaseSize(arguments.size))
    table = write_cohort(settings, arguments.out, workers=arguments.workers, force=arguments.force)
    if arguments.dicom:
        say(f"DICOM series: {write_dicom_cohort(arguments.out, [case_name(settings.seed, i) for i in settings.indices])}")
    if arguments.sheet:
        shown = list(settings.indices)[:SHEET_CASES]
        contact_sheet([make_case(settings.seed, i, settings.size) for i in shown], arguments.sheet)
    say(f"{settings.cases} cases in {table.parent}: images/, labels/ (planning maps), {table.name}")
    return 0
