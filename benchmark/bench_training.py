"""Iterations per second of our trainer and of nnU-Net's own (the class that nnUNetv2_train runs), in turns, in one run.

    python benchmark/bench_training.py --seconds 120               # CPU, a small plan; prints both, their ratio, peak memory
    python benchmark/bench_training.py --device cuda --plan default --cases COHORT --work W

Same plan, same preprocessed data, same device, same precision (nnU-Net's: float32 on a CPU, float16 on CUDA), same number of worker
processes. Each trainer lives in a process of its own, so that peak memory can be told apart; they take turns of a few iterations, and
the median turn counts. On a machine that does other work, too, the CPU time of the processes says more than the time that passes (with
OMP_NUM_THREADS=1: threads that wait for each other count as computing). What differs is what is meant to differ: AdamW and binary
cross entropy against SGD and Dice with binary cross entropy, and the loaders. Writes nothing but its work folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from flrplan.cohort import CaseSize, CohortSettings, write_cohort
from flrplan.device import choose_device
from flrplan.networks.table import NNUNET
from flrplan.nnunet.architecture_plan import plan_training
from flrplan.nnunet.precision import precision_name
from flrplan.nnunet.settings import Recipe
from flrplan.nnunet.training_run import StageWork, prepare_stage
from flrplan.splits import nnunet_split
from flrplan.stages import LIVER
from flrplan.training_cases import find_labelled_cases

SMALL = {
    "batch_size": 2,
    "features": [16, 32, 64],
    "patch_size_zyx": [32, 48, 48],
    "spacing_zyx_mm": [5, 5, 5],
    "resampling": "torch",
}
OURS, THEIRS = "flrplan", "nnU-Net"


def precisions(device: torch.device, setting: str) -> dict[str, str]:
    """What each side computes in; nnU-Net has no setting (its train_step of 2.8.1: autocast on CUDA only)."""
    return {OURS: precision_name(device, setting), THEIRS: "float16" if device.type == "cuda" else "float32"}


def run_side(
    name: str, work_root: Path, plans: dict[str, Any], device: torch.device, workers: int, recipe: Recipe, line: Connection
) -> None:
    """One trainer in its process: for every number that comes in, that many iterations.

    Answers the seconds that passed and those that were computed; after a 0, peak memory.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from flrplan.nnunet.environment import augmentation_workers, nnunet_folders, quiet
    from flrplan.nnunet.planning import CONFIGURATION
    from flrplan.nnunet.run_record import peak_memory_bytes
    from flrplan.nnunet.trainer import FlrTrainer

    work = StageWork(work_root, LIVER)
    dataset = json.loads((work.preprocessed / "dataset.json").read_text())
    kind = FlrTrainer if name == OURS else nnUNetTrainer
    torch.backends.cudnn.benchmark = device.type == "cuda"
    with nnunet_folders(work.folder), augmentation_workers(workers), quiet():
        trainer: Any = kind({**plans, "continue_training": False}, CONFIGURATION, 0, dataset, device)
        if isinstance(trainer, FlrTrainer):
            trainer.apply(recipe.training)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        line.send("ready")
        while count := line.recv():
            started, computed = time.perf_counter(), time.process_time()
            for _ in range(count):
                trainer.train_step(next(trainer.dataloader_train))
            line.send((time.perf_counter() - started, time.process_time() - computed))
        line.send(peak_memory_bytes(device))
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
            "training": {"workers": arguments.workers, "mixed_precision": arguments.precision},
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
    lines: dict[str, Any] = {}
    sides = []
    for name in (OURS, THEIRS):
        lines[name], theirs = context.Pipe()
        side = context.Process(target=run_side, args=(name, work, plans, device, arguments.workers, recipe, theirs))
        side.start()
        sides.append(side)
        lines[name].recv()
    turns: dict[str, list[float]] = {OURS: [], THEIRS: []}
    computed: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for name in turns:  # warm: caches, cuDNN's choice, compiling
        lines[name].send(arguments.turn)
        lines[name].recv()
    started = time.monotonic()
    while time.monotonic() - started < arguments.seconds or len(turns[THEIRS]) < 3:
        for name in turns if len(turns[THEIRS]) % 2 else reversed(turns):
            lines[name].send(arguments.turn)
            seconds, cpu_seconds = lines[name].recv()
            turns[name].append(arguments.turn / seconds)
            computed[name].append(cpu_seconds / arguments.turn)
    result: dict[str, Any] = {"turns": len(turns[THEIRS]), "iterations_per_turn": arguments.turn}
    for name, line in lines.items():
        line.send(0)
        result[name] = {
            "iterations_per_second": statistics.median(turns[name]),
            "cpu_seconds_per_iteration": statistics.median(computed[name]),
            "peak_memory_bytes": line.recv(),
            "precision": precisions(device, arguments.precision)[name],
        }
    for side in sides:
        side.join()
    result["ratio"] = result[OURS]["iterations_per_second"] / result[THEIRS]["iterations_per_second"]
    result["ratio_of_pairs"] = _spread([ours / theirs for ours, theirs in zip(turns[OURS], turns[THEIRS], strict=True)])
    if device.type == "cpu":
        times = zip(computed[OURS], computed[THEIRS], strict=True)
        result["ratio_of_cpu_time"] = _spread([theirs / ours for ours, theirs in times])
    return result


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def build_parser() -> argparse.ArgumentParser:
    """The options; by default both sides compute in the same precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="worker processes of each side (default: 0)")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "on", "off"),
        help="mixed_precision of our side (default: auto, which is what nnU-Net does: float32 on a CPU, float16 on CUDA)",
    )
    parser.add_argument("--plan", default="small", choices=("small", "default"))
    parser.add_argument("--cases", type=Path, help="labelled cases (default: four small synthetic ones)")
    parser.add_argument("--work", type=Path, help="work folder to keep (default: a temporary one)")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--turn", type=int, default=5, help="iterations of one side before the other's turn")
    return parser


def main() -> int:
    """Parses, measures, prints."""
    arguments = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, arguments.work or Path(folder))
    for name in (OURS, THEIRS):
        side = result[name]
        sys.stdout.write(
            f"{name:8} {side['precision']} {side['iterations_per_second']:.2f} it/s, {side['cpu_seconds_per_iteration']:.3f} s of CPU an "
            f"iteration, peak {side['peak_memory_bytes'] / 1e9:.2f} GB\n"
        )
    pairs = result["ratio_of_pairs"]
    sys.stdout.write(
        f"ratio {result['ratio']:.2f} (medians of {result['turns']} turns of {result['iterations_per_turn']}; turn by turn "
        f"{pairs['median']:.2f}, {pairs['least']:.2f} to {pairs['most']:.2f})\n"
    )
    if cpu := result.get("ratio_of_cpu_time"):
        sys.stdout.write(f"by CPU time, turn by turn: {cpu['median']:.2f}, {cpu['least']:.2f} to {cpu['most']:.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
