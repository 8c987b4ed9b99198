"""``flrplan demo-models``: train the repository's demo models again, measure them, write their card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.commands.say import note, say
from flrplan.demo import REAL_FORM
from flrplan.demo.held_out import MEASURE_CASES
from flrplan.engine import DEMO_NAME, MODEL_ROOT
from flrplan.errors import SettingsError
from flrplan.method import PAPER_STAGES, STAGES

if TYPE_CHECKING:
    from flrplan.nnunet.train import EpochReport

MEASURED_NAME = "measured.json"
"""In the work folder: the cases measured so far, of which a measurement that was stopped goes on."""


def add_parser(commands: Any) -> None:
    """Adds ``demo-models`` to the command line."""
    parser = commands.add_parser("demo-models", help="train and measure the demo models (hours; their card says how many)")
    parser.add_argument(
        "--work", type=Path, required=True, help="cohort, prepared data, training states; a stopped run continues"
    )
    parser.add_argument("--models", type=Path, default=MODEL_ROOT / DEMO_NAME, help="the demo folder, with recipe.yaml")
    parser.add_argument("--stage", action="append", choices=list(STAGES), help="only these stages (default: the paper's)")
    parser.add_argument("--workers", type=int, default=2, help="cases made, prepared or measured at once (default: 2)")
    parser.add_argument("--measure", action="store_true", help="do not train, only measure and write the card")
    parser.add_argument(
        "--go-on", action="store_true", help="train on from the weights in the demo folder (default: from random weights)"
    )
    parser.add_argument("--cases", type=int, default=MEASURE_CASES, help="held-out synthetic cases to measure on")
    parser.add_argument(
        "--real",
        action="append",
        default=[],
        metavar=REAL_FORM,
        help="also measure the liver on a real CT against this mask, or against the voxels of VALUE in it; repeatable. A mask of "
        "another grid is resampled, and judges only the part of the CT that it covers",
    )
    parser.add_argument("--device", default="cpu", help="of the measurement: auto, cpu, cuda or cuda:<number> (default: cpu)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains what is not trained, measures, and writes README.md and scores.json beside the models."""
    from flrplan.demo.build import build_demo_models
    from flrplan.demo.card import FAILURES_NAME, write_card
    from flrplan.demo.failures import write_failures
    from flrplan.demo.measure import as_json, demo_cascade, measure_synthetic
    from flrplan.demo.real_ct import RealCT, measure_cropped, measure_real
    from flrplan.planning import Plan

    if arguments.cases < 1:
        raise SettingsError(f"--cases must be at least 1, got {arguments.cases}")
    if arguments.workers < 1:
        raise SettingsError(f"--workers must be at least 1, got {arguments.workers}")
    real = [RealCT.parse(text) for text in arguments.real]
    if twice := {r.name for r in real if [o.name for o in real].count(r.name) > 1}:
        raise SettingsError(f"--real takes each name once, got {', '.join(sorted(twice))} several times")
    for item in real:
        item.load()  # a file that cannot be used is told before the training, not hours later
    if not arguments.measure:
        build_demo_models(
            arguments.work,
            arguments.models,
            arguments.stage or [stage.name for stage in PAPER_STAGES],
            arguments.workers,
            _show,
            arguments.go_on,
        )
    cases = measure_synthetic(
        arguments.models, arguments.cases, arguments.workers, device=arguments.device, kept=arguments.work / MEASURED_NAME
    )
    cascade = demo_cascade(arguments.models)
    measured_real = []
    for item in real:
        result, score = measure_real(item, cascade)
        Plan(result).save(arguments.work / "real" / item.name)
        measured_real += [score, measure_cropped(item, cascade)]
        for one in measured_real[-2:]:
            note(f"{one.name}: liver Dice {one.dice:.4f} on {one.slices} of {one.of_slices} slices")
    write_failures(arguments.models / FAILURES_NAME, cases, cascade)
    write_card(arguments.models, cases, measured_real, as_json(cases))
    say(f"measured: {arguments.models / 'README.md'}")
    return 0


def _show(stage: str, fold: int, report: EpochReport) -> None:
    note(
        f"{stage} fold {fold}, epoch {report.epoch + 1}/{report.epochs}: loss {report.train_loss:.4f}, "
        f"pseudo Dice {report.pseudo_dice:.3f}, {report.seconds:.0f} s"
    )
