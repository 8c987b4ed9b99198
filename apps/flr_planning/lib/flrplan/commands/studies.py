"""``flrplan studies``: cases in, published labels out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.commands.say import note, say

if TYPE_CHECKING:
    from flrplan.studies.exchange import Exchanged


def add_parser(commands: Any) -> None:
    """Adds ``studies`` to the command line."""
    parser = commands.add_parser("studies", help="a folder of images that people annotate: cases in, labels out")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_import(actions)
    _add_export(actions)


def _add_import(actions: Any) -> None:
    parser = actions.add_parser(
        "import", help="make studies of a work folder of prepare.py (or a cohort): CTs, and their labels as one map to edit"
    )
    parser.add_argument("work", type=Path, metavar="WORK", help="images/ with labels/ or masks/")
    parser.add_argument("--studies", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=_import)


def _add_export(actions: Any) -> None:
    parser = actions.add_parser(
        "export", help="write the confirmed labels as NIfTI and DICOM SEG, with a manifest and checksums, ready to publish"
    )
    parser.add_argument("studies", type=Path, metavar="STUDIES")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--labels",
        choices=["approved", "all"],
        default="approved",
        help="approved: those that a second reader confirmed; all: also the newest that were not sent back",
    )
    parser.add_argument(
        "--dicom", type=Path, metavar="DIR", help="the cases' DICOM series, by PatientID or folder name; each gets a SEG"
    )
    parser.add_argument("--images", action="store_true", help="with the CTs, so that prepare.py reads the folder as it is")
    parser.set_defaults(run=_export)


def _import(arguments: argparse.Namespace) -> int:
    """Returns 1 where a case was left out."""
    from flrplan.studies.exchange import import_cases

    found = import_cases(arguments.work, arguments.studies, say)
    return _end(found, f"{len(found.done)} cases in {arguments.studies}; start the server with --studies {arguments.studies}")


def _export(arguments: argparse.Namespace) -> int:
    """Returns 0 also where images have no label that counts: the manifest names them."""
    from flrplan.server.label_table import names_sent
    from flrplan.studies.exchange import ExportRequest, export_labels
    from flrplan.studies.review import LabelUse

    request = ExportRequest(arguments.studies, arguments.out, LabelUse(arguments.labels), arguments.dicom, arguments.images)
    found = export_labels(request, names_sent, say)
    _end(found, f"{len(found.done)} cases in {arguments.out}")
    return 0


def _end(found: Exchanged, result: str) -> int:
    if found.left_out:
        note(f"left out: {len(found.left_out)}, such as {next(iter(found.left_out))}")
    say(result)
    return 1 if found.left_out else 0
