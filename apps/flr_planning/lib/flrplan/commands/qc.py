"""``flrplan qc``: what is wrong with labels, as data and as a page with pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.anatomy import Structure
from flrplan.commands.say import note, say
from flrplan.errors import SettingsError

if TYPE_CHECKING:
    from flrplan.qc.run import CaseOutcome


def add_parser(commands: Any) -> None:
    """Adds ``qc`` to the command line."""
    parser = commands.add_parser("qc", help="find faults in labels: findings.json, findings.csv and a page with pictures")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="DIR",
        help="CASE.nii.gz planning maps (or masks, with --structure), CASE/STRUCTURE.nii.gz masks, or labels/ and masks/ of a work folder",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="CTs of the same names; without them, rules that need one are not checked"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--structure", choices=[s.value for s in Structure], help="the files are masks of this structure")
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="YAML of other thresholds, such as punctate: {largest_ml: 0.1}"
    )
    parser.add_argument("--repair", default="", metavar="RULE,...", help="write repaired labels of these rules to OUT/repaired")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Checks every label. Returns 1 where a case could not be checked, whatever was found in the others."""
    from flrplan.qc.run import QcRequest, check_folder

    outcome = check_folder(
        QcRequest(
            arguments.labels,
            arguments.out,
            arguments.images,
            Structure(arguments.structure) if arguments.structure else None,
            _settings(arguments.settings),
            tuple(name.strip() for name in arguments.repair.split(",") if name.strip()),
        ),
        _tell,
    )
    if outcome.without_label:
        note(f"images without a label: {len(outcome.without_label)}, such as {outcome.without_label[0]}")
    for case in outcome.failed:
        note(f"could not be checked: {case.files.case} ({case.files.truth.first}): {case.error.splitlines()[0]}")
    say(f"{len(outcome.cases)} cases: {outcome.page}")
    return 1 if outcome.failed else 0


def _tell(outcome: CaseOutcome) -> None:
    from flrplan.qc import Severity

    if outcome.checked is None:
        say(f"{outcome.files.case}: could not be checked")
        return
    counts = ", ".join(f"{n} {s}{'s' if n > 1 else ''}" for s in Severity if (n := outcome.checked.count(s)))
    n = len(outcome.checked.not_checked)
    lacking = f" ({n} rule{'s' if n > 1 else ''} not checked)" if n else ""
    say(f"{outcome.files.case}: {counts or 'nothing found'}{lacking}")


def _settings(path: Path | None) -> dict[str, dict[str, float]]:
    if path is None:
        return {}
    from flrplan.files import read_yaml

    content = read_yaml(path, "thresholds of rules")
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise SettingsError(f"{path}: expected RULE: {{THRESHOLD: number}}, found {content!r:.200}")
    return content
