"""``flrplan demo``: a synthetic CT, made here, planned by the demo models; no data, account or GPU needed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flrplan.cascade import Cascade, CascadeSettings
from flrplan.cohort import CaseSize, make_case
from flrplan.commands.options import add_cascade_options, cascade_settings, model_store
from flrplan.commands.plan import flr_line, plan_one
from flrplan.commands.say import note, say
from flrplan.demo.held_out import DEMO_INDEX, DEMO_SEED
from flrplan.io import read_label_map, write_volume
from flrplan.labels import Structure, check_planning_map, structure_mask
from flrplan.metrics.overlap import dice
from flrplan.planning.plan import MAP_NAME, PICTURE_NAME
from flrplan.planning.volumetry import measure_volumes


def add_parser(commands: Any) -> None:
    """Adds ``demo`` to the command line."""
    parser = commands.add_parser("demo", help="make a synthetic CT and plan it (about a minute on a laptop)")
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    add_cascade_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Makes the case, plans it, compares with its known truth; the last line is ``FLR <n> ml (<p> %)``."""
    note("making a synthetic CT that no demo model has seen")
    case = make_case(DEMO_SEED, DEMO_INDEX, CaseSize.MEDIUM)
    path = arguments.out / "ct" / f"{case.case_id}.nii.gz"
    write_volume(path, case.hu_zyx, case.geometry)
    folder = arguments.out / case.case_id
    volumes, warnings = plan_one(
        path, folder, Cascade(model_store(arguments), cascade_settings(arguments, CascadeSettings())), {}
    )
    for warning in warnings:
        note(f"  warning: {warning}")
    predicted = check_planning_map(read_label_map(folder / MAP_NAME)[0], MAP_NAME)
    truth = measure_volumes(case.planning_zyx, case.geometry.voxel_volume_ml)
    scores = ", ".join(
        f"{s} {dice(structure_mask(case.planning_zyx, s), structure_mask(predicted, s)):.2f}"
        for s in (Structure.LIVER, Structure.CRLM, Structure.FLR)
    )
    say(f"Dice against the known truth: {scores}")
    say(f"truth: liver {truth.liver_ml:.0f} ml, crlm {truth.crlm_ml:.1f} ml, {flr_line(truth)}")
    say(f"plan:  liver {volumes.liver_ml:.0f} ml, crlm {volumes.crlm_ml:.1f} ml, {flr_line(volumes)}")
    say(f"picture: {folder / PICTURE_NAME}; label map: {folder / MAP_NAME}")
    say(flr_line(volumes))
    return 0
