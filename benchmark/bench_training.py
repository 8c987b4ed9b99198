"""Iterations per second of our trainer and of nnU-Net's own (the class that nnUNetv2_train runs), in turns, in one run.

    python benchmark/bench_training.py --seconds 120               # CPU, a small plan; prints both, their ratio, peak memory
    python benchmark/bench_training.py --device cuda --plan default --cases COHORT --work W --precision auto bfloat16 --workers 12

Same plan, same preprocessed data, same device, same number of worker processes, and unasked the same precision (nnU-Net's: float32 on a
CPU, float16 on CUDA); every further precision of ours is a side of its own. Each trainer lives in a process of its own, so that peak memory can be told apart; they take turns of a few iterations, and
the median turn counts. On a machine that does other work, too, the CPU time of the processes says more than the time that passes (with
OMP_NUM_THREADS=1: threads that wait for each other count as computing). What differs is what is meant to differ: AdamW and binary
cross entropy against SGD and Dice with binary cross entropy, and the loaders. Writes nothing but its work folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from flrplan.cohort import CaseSize, CohortSettings, write_cohort
from flrplan.files import write_json
from flrplan.hardware import choose_device
from flrplan.hardware.device import peak_memory_of
from flrplan.method import LIVER, Recipe
from flrplan.networks import NNUNET
from flrplan.nnunet.prepare.architecture_plan import plan_training
from flrplan.nnunet.train.precision import precision_name
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import find_labelled_cases, nnunet_split
from script import at_least, run_script

SMALL = {
    "batch_size": 2,
    "features": [16, 32, 64],
    "patch_size_zyx": [32, 48, 48],
    "spacing_zyx_mm": [5, 5, 5],
    "resampling": "torch",
}
OURS, THEIRS = "flrplan", "nnU-Net"


def sides(device: torch.device, settings: Sequence[str]) -> dict[str, tuple[str | None, str]]:
    """Per side its setting and what it computes in; nnU-Net has no setting (its train_step of 2.8.1: autocast on CUDA only)."""
    ours = {OURS if n == 0 else f"{OURS} {s}": (s, precision_name(device, s)) for n, s in enumerate(settings)}
    return {**ours, THEIRS: (None, "float16" if device.type == "cuda" else "float32")}


def run_side(
    setting: str | None,
    work_root: Path,
    plans: dict[str, Any],
    device: torch.device,
    workers: int,
    recipe: Recipe,
    line: Connection,
) -> None:
    """One trainer in its process: for every number that comes in, that many iterations.

    Answers the seconds that passed and those that were computed; after a 0, peak memory.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from flrplan.nnunet.environment import augmentation_workers, nnunet_folders, quiet
    from flrplan.nnunet.prepare import CONFIGURATION
    from flrplan.nnunet.train import FlrTrainer

    work = StageWork(work_root, LIVER)
    dataset = json.loads((work.preprocessed / "dataset.json").read_text())
    kind = nnUNetTrainer if setting is None else FlrTrainer
    torch.backends.cudnn.benchmark = device.type == "cuda"
    os.environ["nnUNet_compile"] = "f" if recipe.training.compile == "off" else "t"  # noqa: SIM112  # nnU-Net spells it so
    with nnunet_folders(work.folder), augmentation_workers(workers), quiet():
        trainer: Any = kind({**plans, "continue_training": False}, CONFIGURATION, 0, dataset, device)
        if setting is not None:
            trainer.apply(replace(recipe.training, mixed_precision=setting))
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        line.send("ready")
        while count := line.recv():
            started, computed = time.perf_counter(), time.process_time()
            for _ in range(count):
                trainer.train_step(next(trainer.dataloader_train))
            line.send((time.perf_counter() - started, time.process_time() - computed))
        line.send(peak_memory_of(device))
        if isinstance(trainer, FlrTrainer):
            trainer.close()
        else:
            for loader in (trainer.dataloader_train, trainer.dataloader_val):
                getattr(loader, "_finish", lambda: None)()


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Medians (iterations per second) and peaks (bytes) of both sides, taking turns until the time is over."""
    device = choose_device(arguments.device)
    recipe = Recipe.from_mapping(
        {
            "plan": SMALL if arguments.plan == "small" else {},
            "training": {"workers": arguments.workers, "compile": "off" if arguments.no_compile else "auto"},
        }
    )
    cohort = arguments.cases or work / "cohort"
    if arguments.cases is None:
        write_cohort(CohortSettings(cases=4, seed=5, size=CaseSize.SMALL), cohort, progress=False)
    cases = find_labelled_cases(cohort)
    stage_work = StageWork(work, LIVER)
    prepare_stage(cases, stage_work, recipe, nnunet_split([c.case_id for c in cases], 2))
    plans = plan_training(stage_work.preprocessed, NNUNET, recipe.plan)
    context = multiprocessing.get_context("spawn")
    compared = sides(device, arguments.precision)
    lines: dict[str, Any] = {}
    processes = []
    for name, (setting, _) in compared.items():
        lines[name], theirs = context.Pipe()
        process = context.Process(target=run_side, args=(setting, work, plans, device, arguments.workers, recipe, theirs))
        process.start()
        processes.append(process)
    turns: dict[str, list[float]] = {name: [] for name in compared}
    computed: dict[str, list[float]] = {name: [] for name in compared}
    for line in lines.values():  # all at once: caches, cuDNN's choice, compiling
        line.recv()
        line.send(arguments.turn)
    for line in lines.values():
        line.recv()
    started = time.monotonic()
    while time.monotonic() - started < arguments.seconds or len(turns[THEIRS]) < 3:
        for name in turns if len(turns[THEIRS]) % 2 else reversed(turns):
            lines[name].send(arguments.turn)
            seconds, cpu_seconds = lines[name].recv()
            turns[name].append(arguments.turn / seconds)
            computed[name].append(cpu_seconds / arguments.turn)
    result: dict[str, Any] = {"turns": len(turns[THEIRS]), "iterations_per_turn": arguments.turn, "sides": {}}
    for name, line in lines.items():
        line.send(0)
        result["sides"][name] = {
            "iterations_per_second": statistics.median(turns[name]),
            "cpu_seconds_per_iteration": statistics.median(computed[name]),
            "peak_memory_bytes": line.recv(),
            "precision": compared[name][1],
        }
        if name != THEIRS:
            pairs = zip(turns[name], turns[THEIRS], strict=True)
            times = zip(computed[name], computed[THEIRS], strict=True)
            result["sides"][name]["ratio"] = statistics.median(turns[name]) / statistics.median(turns[THEIRS])
            result["sides"][name]["ratio_of_pairs"] = _spread([ours / theirs for ours, theirs in pairs])
            result["sides"][name]["ratio_of_cpu_time"] = _spread([theirs / ours for ours, theirs in times])
    for process in processes:
        process.join()
    return result


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def build_parser() -> argparse.ArgumentParser:
    """The options; by default both sides compute in the same precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=at_least(0), default=0, help="worker processes of each side (default: 0)")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["auto"],
        choices=("auto", "on", "bfloat16", "off"),
        help="mixed_precision of our side, several for several sides (default: auto, which is what nnU-Net does: float32 on a CPU, "
        "float16 on CUDA)",
    )
    parser.add_argument("--no-compile", action="store_true", help="no side compiles its network (default: on CUDA, both do)")
    parser.add_argument("--plan", default="small", choices=("small", "default"))
    parser.add_argument("--cases", type=Path, help="labelled cases (default: four small synthetic ones)")
    parser.add_argument("--work", type=Path, help="work folder to keep (default: a temporary one)")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the figures here, too")
    parser.add_argument("--turn", type=at_least(1), default=5, help="iterations of one side before the other's turn")
    return parser


def main() -> int:
    """Parses, measures, prints."""
    arguments = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, arguments.work or Path(folder))
    if arguments.out:
        write_json(arguments.out, result)
    for name, side in result["sides"].items():
        sys.stdout.write(
            f"{name:16} {side['precision']} {side['iterations_per_second']:.2f} it/s, {side['cpu_seconds_per_iteration']:.3f} s of CPU an "
            f"iteration, peak {side['peak_memory_bytes'] / 1e9:.2f} GB\n"
        )
    for name, side in result["sides"].items():
        if name != THEIRS:
            pairs, cpu = side["ratio_of_pairs"], side["ratio_of_cpu_time"]
            sys.stdout.write(
                f"{name} / {THEIRS}: ratio {side['ratio']:.2f} (medians of {result['turns']} turns of {result['iterations_per_turn']}; "
                f"turn by turn {pairs['median']:.2f}, {pairs['least']:.2f} to {pairs['most']:.2f}; by CPU time {cpu['median']:.2f}, "
                f"{cpu['least']:.2f} to {cpu['most']:.2f})\n"
            )
    return 0


if __name__ == "__main__":
    run_script(main)
