"""``flrplan cohort``: a synthetic cohort with known truth, for trying, testing and for the demo models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.cohort.settings import FAULT_SHARE, FAULTS_NAME, WIDE_SHARE, CaseSize, CohortSettings, case_name
from flrplan.commands.say import say
from flrplan.errors import SettingsError

if TYPE_CHECKING:
    from flrplan.cohort import SheetCase

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
    parser.add_argument(
        "--faults",
        type=float,
        nargs="?",
        const=FAULT_SHARE,
        default=0.0,
        metavar="SHARE",
        help=f"plant label faults in this share of the cases (default, if given: {FAULT_SHARE}); {FAULTS_NAME} lists them",
    )
    parser.add_argument(
        "--fault-kinds",
        default="",
        metavar="KIND,...",
        help="with --faults: one fault of these kinds in turn, or all (void, shell, left_right, ...; flrplan/cohort/faults.py)",
    )
    parser.add_argument(
        "--wide",
        type=float,
        nargs="?",
        const=WIDE_SHARE,
        default=0.0,
        metavar="SHARE",
        help="let fields of view (down to the liver itself) and lesions (number, size, look) spread wide in this share of the "
        f"cases (default, if given: {WIDE_SHARE}); for training",
    )
    parser.add_argument(
        "--sheet", type=Path, metavar="PNG", help=f"also draw up to {SHEET_CASES} varied cases with their truth"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="CT",
        action="append",
        default=[],
        help="a CT of yours to draw first on the sheet; repeatable",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the cohort; continues a broken run with the same settings."""
    from flrplan.cohort.picture import contact_sheet, varied_cases
    from flrplan.cohort.write import write_cohort
    from flrplan.cohort.write_dicom import write_dicom_cohort

    settings = CohortSettings(
        cases=arguments.cases,
        seed=arguments.seed,
        size=CaseSize(arguments.size),
        faults=arguments.faults,
        wide=arguments.wide,
        fault_kinds=tuple(kind for kind in arguments.fault_kinds.split(",") if kind),
    )
    if settings.fault_kinds and not settings.faults:
        raise SettingsError("--fault-kinds says which faults: give --faults SHARE as well")
    if arguments.beside and not arguments.sheet:
        raise SettingsError("--beside draws a CT onto the sheet: give --sheet PNG as well")
    own = [_own_case(path) for path in arguments.beside]  # first, as it may fail
    table = write_cohort(settings, arguments.out, workers=arguments.workers, force=arguments.force)
    if arguments.dicom:
        say(f"DICOM series: {write_dicom_cohort(arguments.out, [case_name(settings.seed, i) for i in settings.indices])}")
    say(f"{settings.cases} cases in {table.parent}: images/, labels/ (planning maps), {table.name}")
    if settings.faults:
        faulty = sum(bool(case["faults"]) for case in json.loads((table.parent / FAULTS_NAME).read_text())["cases"])
        say(f"{faulty} labels have faults, listed in {FAULTS_NAME}; the right labels are in truth/")
    if arguments.sheet:
        facts = json.loads(table.read_text())["cases"]
        shown = varied_cases(facts, SHEET_CASES - len(own))
        contact_sheet(own + [_stored_case(table.parent, facts[i], settings) for i in shown], arguments.sheet)
        say(f"{arguments.sheet}: {len(own) + len(shown)} cases")
    return 0


def _stored_case(folder: Path, facts: dict[str, Any], settings: CohortSettings) -> SheetCase:
    from flrplan.cohort.picture import case_title, sheet_case
    from flrplan.cohort.write import image_path, label_path, truth_path
    from flrplan.image import read_ct, read_label_map

    path = truth_path if settings.faults else label_path
    ct = read_ct(image_path(folder, facts["case_id"]))
    label, _ = read_label_map(path(folder, facts["case_id"]))
    return sheet_case(ct.array_zyx, label.astype("uint8"), ct.geometry, case_title(facts))


def _own_case(path: Path) -> SheetCase:
    from flrplan.cohort.picture import sheet_case
    from flrplan.image import read_ct

    ct = read_ct(path)
    return sheet_case(ct.array_zyx, None, ct.geometry, f"{path.name}\nnot synthetic")
