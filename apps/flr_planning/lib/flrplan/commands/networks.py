"""``flrplan networks``: what each architecture costs, run once or only counted, and what the whole benchmark would cost."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.commands.say import note, say
from flrplan.errors import SettingsError
from flrplan.method import PAPER_STAGES
from flrplan.networks import BASE, PAPER, TABLE
from flrplan.networks.estimate import A100, TYPICAL_PATCH, UTILIZATION, Workload

if TYPE_CHECKING:
    from flrplan.nnunet.prepare.network_cost import NetworkCost

FOLDS = 5
"""Folds of the paper's cross-validation."""
_COLUMNS = (
    "architecture",
    "size",
    "patch",
    "batch",
    "parameters",
    "GFLOP forward",
    "GFLOP training",
    "GB",
    "seconds",
    "peak GB",
)


def add_parser(commands: Any) -> None:
    """Adds ``networks`` to the command line."""
    parser = commands.add_parser(
        "networks", help="parameters, arithmetic and memory of the architectures; cost of the benchmark"
    )
    parser.add_argument("--size", default=BASE, help=f"size of the networks (default: {BASE}); all = every size there is")
    parser.add_argument(
        "--architecture",
        action="append",
        choices=list(TABLE),
        help="repeatable (default: all); one alone, for its own peak of memory: the peak printed is that of the process so far",
    )
    parser.add_argument("--patch", type=int, nargs=3, default=TYPICAL_PATCH, metavar=("Z", "Y", "X"), help="planned patch")
    parser.add_argument("--plans", type=Path, help="nnUNetPlans.json of a prepared stage, instead of --patch")
    parser.add_argument("--count-only", action="store_true", help="count without running (seconds instead of minutes)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<number>")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table (Markdown), then the estimate."""
    from flrplan.hardware import choose_device
    from flrplan.nnunet.prepare.network_cost import network_cost, typical_plans

    shared = _read_plans(arguments.plans) if arguments.plans else typical_plans(arguments.patch)
    device = None if arguments.count_only else choose_device(arguments.device)
    rows = [row for row in TABLE.values() if row.name in (arguments.architecture or TABLE)]
    wanted = [(row, size) for row in rows for size in row.sizes if arguments.size in (size, "all")]
    if not wanted:
        known = sorted({size for row in rows for size in row.sizes})
        which = " or ".join(arguments.architecture or ["architecture"])
        raise SettingsError(f"no {which} has size {arguments.size!r}; known are {', '.join(known)} and all")
    say("| " + " | ".join(_COLUMNS) + " |")
    say("|" + "---|" * len(_COLUMNS))
    costs = []
    for row, size in wanted:
        note(f"{row.name} {size} ...")
        costs.append(network_cost(row, size, shared, device))
        say(_line(costs[-1]))
    if arguments.size == BASE and rows == list(TABLE.values()):
        for line in benchmark_estimate([cost for cost in costs if cost.architecture in PAPER]):
            say(line)
    return 0


def benchmark_estimate(costs: list[NetworkCost]) -> list[str]:
    """The arithmetic of all trainings of the paper's benchmark, in lines: every architecture, stage and fold."""
    from flrplan.method import TrainingSettings

    settings = TrainingSettings()
    each = len(PAPER_STAGES) * FOLDS
    epochs, steps, checks = settings.epochs, settings.iterations_per_epoch, settings.validation_iterations
    text = [
        "",
        f"Estimate for {each * len(costs)} trainings on {A100.name} ({A100.peak_tflops:g} TFLOP/s), {UTILIZATION:.0%} of it used:",
    ]
    hours = 0.0
    for cost in costs:
        load = Workload(cost.forward_gflop, cost.training_gflop, cost.batch, epochs, steps, checks)
        hours += each * load.gpu_hours()
        text.append(
            f"- {cost.architecture}: {epochs} epochs x batch {cost.batch} x ({steps} x {cost.training_gflop:.0f} + {checks} x "
            f"{cost.forward_gflop:.0f}) GFLOP = {load.pflop:.0f} PFLOP = {load.gpu_hours():.1f} h; x {each} = {each * load.gpu_hours():.0f} h"
        )
    text.append(f"- together {hours:.0f} GPU hours = {hours / 24:.1f} days on one GPU")
    return text


def _line(cost: NetworkCost) -> str:
    patch = " x ".join(map(str, cost.patch_zyx))
    seconds, peak = ("counted" if n is None else f"{n:.1f}" for n in (cost.seconds, cost.peak_gb))
    numbers = (
        f"{cost.parameters:,}",
        f"{cost.forward_gflop:,.0f}",
        f"{cost.training_gflop:,.0f}",
        f"{cost.memory_gb:.1f}",
        seconds,
        peak,
    )
    return "| " + " | ".join((cost.architecture, cost.size, patch, str(cost.batch), *numbers)) + " |"


def _read_plans(path: Path) -> dict[str, Any]:
    try:
        plans: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path}: expected the nnUNetPlans.json that a preparation writes under <work>/<stage>/preprocessed/, found {error!r}"
        ) from error
    return plans
