"""``flrplan demo``: a synthetic CT, made here, planned by the demo models; no data, account or GPU needed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flrplan.commands.options import add_cascade_options, cascade_settings, model_store
from flrplan.commands.say import note, say


def add_parser(commands: Any) -> None:
    """Adds ``demo`` to the command line."""
    parser = commands.add_parser("demo", help="make a synthetic CT and plan it (about a minute on a laptop)")
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    add_cascade_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Makes the case, plans it, compares with its known truth; the last line is ``FLR <n> ml (<p> %)``."""
    from flrplan.anatomy import PLANNED, structure_mask
    from flrplan.api.plan import plan
    from flrplan.cohort import CaseSize, make_case
    from flrplan.demo.held_out import DEMO_INDEX, DEMO_SEED
    from flrplan.engine import Cascade
    from flrplan.image import write_volume
    from flrplan.metrics.overlap import dice
    from flrplan.planning import MAP_NAME, PICTURE_NAME, measure_volumes

    note("making a synthetic CT that no demo model has seen")
    case = make_case(DEMO_SEED, DEMO_INDEX, CaseSize.MEDIUM)
    path = arguments.out / "ct" / f"{case.case_id}.nii.gz"
    write_volume(path, case.hu_zyx, case.geometry)
    folder = arguments.out / case.case_id
    cascade = Cascade(model_store(arguments), cascade_settings(arguments))
    planned = plan(path, cascade=cascade, on_step=lambda step: note(f"  {step}"))
    planned.save(folder)
    for warning in planned.warnings:
        note(f"  warning: {warning}")
    predicted, volumes = planned.label_zyx, planned.volumes
    truth = measure_volumes(case.planning_zyx, case.geometry.voxel_volume_ml)
    scores = ", ".join(f"{s} {dice(structure_mask(case.planning_zyx, s), structure_mask(predicted, s)):.2f}" for s in PLANNED)
    say(f"Dice against the known truth: {scores}")
    say(f"truth: {truth.describe()}")
    say(f"plan:  {volumes.describe()}")
    say(f"picture: {folder / PICTURE_NAME}; label map: {folder / MAP_NAME}")
    say(volumes.describe_flr())
    return 0
