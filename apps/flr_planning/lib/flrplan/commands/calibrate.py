"""``flrplan calibrate``: how far the models are off on cases with a known remnant, so that a plan can say how sure it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flrplan.commands.options import add_cascade_options, cascade_settings, model_store
from flrplan.commands.say import say


def add_parser(commands: Any) -> None:
    """Adds ``calibrate`` to the command line."""
    parser = commands.add_parser(
        "calibrate", help="measure the models' errors on labelled cases, so that plans say how sure they are"
    )
    parser.add_argument(
        "--cases",
        type=Path,
        required=True,
        help="folder with images/ and labels/, such as flrplan cohort writes; none that the models were trained on",
    )
    parser.add_argument(
        "--out", type=Path, metavar="JSON", help="default: calibration.json in --models, where plans look for it"
    )
    parser.add_argument("--workers", type=int, default=1, help="cases planned at once, with 2 GB of memory each (default: 1)")
    add_cascade_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plans what is not in the file yet, and says how many cases there are now of each kind of inputs."""
    from flrplan.api.calibrate import calibrate
    from flrplan.engine import Cascade
    from flrplan.hardware import keep_freed_memory
    from flrplan.method import Source
    from flrplan.planning.calibration import CALIBRATION_NAME, LEAST_CASES

    keep_freed_memory()
    out = arguments.out or arguments.models / CALIBRATION_NAME
    cascade = Cascade(model_store(arguments), cascade_settings(arguments))
    found = calibrate(arguments.cases, out, cascade, arguments.workers)
    for source in Source:
        used = len(found.of_kind(source.value))
        unusual = sum(source.value in kinds for kinds in found.cases.values()) - used
        few = "" if used >= LEAST_CASES else f"; not calibrated, at least {LEAST_CASES} are needed"
        say(f"inputs {source}: {used} {found.calibrated_on}, {unusual} more with a liver that is cut or no liver{few}")
    say(f"calibration: {out}")
    return 0
