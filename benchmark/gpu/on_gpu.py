"""What a GPU is good for, within a given time and without network: tests, speed, and the demo models trained on a larger cohort.

    PYTHONPATH=site:apps/flr_planning/lib python benchmark/gpu/on_gpu.py --minutes 9 --out OUT      # bundle.py makes `site`
    python benchmark/gpu/on_gpu.py --device cpu --smoke --minutes 3 --out OUT                       # the same steps in small

It measures first: the tests marked ``gpu``; ``benchmark/speed.py``; iterations per second and memory of our trainer beside nnU-Net's at
its default plan (``benchmark/bench_training.py``), float16 and bfloat16. Meanwhile the cohort is made and prepared on the other cores.
Then every (stage, fold) of the demo models trains at once, as long as the time allows, and the models are measured on held-out cases.

Writes into OUT, step by step, so that whatever finished is there: ``gpu.json`` (card, versions, seconds and exit code of each step),
``<step>.log``, the figures of each step, ``demo.tar.gz`` (the models, as they lie in the demo folder) and ``measured.json``. With
them, ``flrplan demo-models --measure`` on any machine writes the models' card. A step that fails or runs out of time is recorded, and
the next goes on; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from flrplan.cohort import CaseSize, CohortSettings
from flrplan.commands.demo_models import MEASURED_NAME
from flrplan.demo.build import RECIPE_NAME, STARTS_FROM, install_demo_model
from flrplan.demo.held_out import FOLDS, TRAIN_SEED, TRAIN_WIDE
from flrplan.engine import DEMO_NAME, MODEL_ROOT
from flrplan.errors import FlrError, SettingsError
from flrplan.files import make_writable, read_json, write_json
from flrplan.hardware import choose_device
from flrplan.method import LIVER, PAPER_STAGES
from flrplan.networks import ARCHITECTURES
from flrplan.nnunet.train.provenance import device_name, versions
from flrplan.workfolder import FINAL_CHECKPOINT

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
FLRPLAN = (sys.executable, "-m", "flrplan.cli")
PARTS = ("speed", "cohort", "training", "demo", "measure")
RECORD_NAME = "gpu.json"
EPOCHS_NAME = "epochs.json"
"""In the work folder: the epochs of the trainings that began there, which a run after one that was stopped goes on with."""
PACKING_SECONDS = 8
CALIBRATION_EPOCHS = 3
START_SECONDS = 15
"""From the start of a training to its first epoch, and for publishing."""
MARGIN = 0.9
"""Of the time that is left, what the trainings are planned to take."""


MEASURE = """import sys
from pathlib import Path
from flrplan.cohort import CaseSize
from flrplan.demo.measure import measure_synthetic
models, cases, workers, size, device, kept = sys.argv[1:]
measure_synthetic(Path(models), int(cases), int(workers), CaseSize(size), device, Path(kept))"""


@dataclass(frozen=True)
class Scale:
    """How much of everything: ``cases`` train (their number and size), ``measured`` ones are held out, steps take at most ``_seconds``."""

    cases: int
    size: str
    stages: tuple[str, ...]
    most_epochs: int
    measured: int
    measured_size: str
    bench_plan: str
    bench_seconds: int
    speed: tuple[str, ...]
    measure_seconds: int


FULL = Scale(240, "medium", tuple(map(str, PAPER_STAGES)), 10_000, 50, "full", "default", 25, ("demo", "default-24"), 110)
SMOKE = Scale(4, "small", (LIVER.name,), 5, 1, "small", "small", 1, ("small",), 30)


@dataclass
class Run:
    """The steps of one run: child processes with logs, and the record that is rewritten after each."""

    out: Path
    deadline: float
    record: dict[str, Any] = field(default_factory=dict)
    running: list[Step] = field(default_factory=list)

    def start(self, step: str, command: tuple[object, ...], threads: int = 0) -> Step:
        """Starts a step; ``threads``: at most so many of torch and numpy."""
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        log = (self.out / f"{step}.log").open("a")
        words = [str(word) for word in command]
        process = subprocess.Popen(words, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.running.append(Step(step, process, time.monotonic(), self.out / f"{step}.log"))
        return self.running[-1]

    def wait(self, step: Step, before: float | None = None) -> bool:
        """Ends a step, killed where it is not over ``before`` (a time of ``time.monotonic``; None: the deadline); keeps its outcome."""
        try:
            step.process.wait(max(0.0, (before or self.deadline) - time.monotonic()))
            outcome: int | str = step.process.returncode
        except subprocess.TimeoutExpired:
            step.kill()
            outcome = "out of time"
        self.running.remove(step)
        self.record.setdefault("steps", {})[step.name] = {
            "outcome": outcome,
            "seconds": round(time.monotonic() - step.started, 1),
        }
        self.write()
        sys.stdout.write(f"{step.name}: {outcome}, {time.monotonic() - step.started:.0f} s\n")
        if outcome != 0:
            sys.stdout.write(step.log.read_text(errors="replace")[-1500:] + "\n")
        sys.stdout.flush()
        return outcome == 0

    def stop(self) -> None:
        """Ends what still runs when this process ends: it would hold cores and card."""
        for step in self.running:
            step.kill()

    def write(self) -> None:
        """``gpu.json`` as it stands."""
        write_json(self.out / RECORD_NAME, self.record)


@dataclass(frozen=True)
class Step:
    """A child process that runs."""

    name: str
    process: subprocess.Popen[bytes]
    started: float
    log: Path

    def kill(self) -> None:
        """Ends it and its workers, which may hold the card, too."""
        with suppress(psutil.NoSuchProcess):
            workers = psutil.Process(self.process.pid).children(recursive=True)
            for process in (*workers, self.process):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()


def machine(device: torch.device) -> dict[str, Any]:
    """Card, driver-side versions, cores."""
    facts: dict[str, Any] = {"device": device_name(device), "cores": os.cpu_count(), "python": platform.python_version()}
    if device.type == "cuda":
        facts |= {
            "memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return {**facts, "versions": versions()}


def measure_speed(run: Run, scale: Scale, device: str) -> None:
    """The tests of the GPU and the cascade beside nnU-Net's own commands, while the other cores make cases."""
    tests = (sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider", "tests/gpu")
    run.wait(run.start("tests", tests), time.monotonic() + 120)
    for size in scale.speed:
        out = run.out / f"speed_{size}"
        command = (sys.executable, "benchmark/speed.py", "--size", size, "--device", device, "--out", out)
        run.wait(run.start(f"speed_{size}", command), time.monotonic() + 90)


def measure_training(run: Run, scale: Scale, device: str, work: Path) -> None:
    """Iterations per second and memory of ours and nnU-Net's trainer, alone on the machine; compiling would outlast the measurement."""
    precisions = ("auto", "bfloat16") if device == "cuda" else ("auto",)
    workers = max(0, min(12, (os.cpu_count() or 1) - 2)) if device == "cuda" else 0
    cases = work / "bench_cases"
    command: tuple[object, ...] = (sys.executable, "benchmark/bench_training.py", "--device", device)
    command += ("--plan", scale.bench_plan, "--seconds", scale.bench_seconds, "--work", work / "bench", "--workers", workers)
    command += ("--out", run.out / "training.json", "--no-compile", "--precision", *precisions)
    if scale.bench_plan == "default":
        made = ("cohort", "--cases", 4, "--seed", 5, "--size", "medium", "--out", cases, "--workers", 4)
        run.wait(run.start("bench_cases", (*FLRPLAN, *made)))
        command += ("--cases", cases)
    run.wait(run.start("training_speed", command), time.monotonic() + 180)


def train_demo(run: Run, scale: Scale, recipe: Path, device: str, work: Path, before: float) -> dict[str, int]:
    """Every (stage, fold) at once: three epochs to see how fast they are, then as many as fit; returns the epochs of the stages that are whole.

    A stage that starts from another one's weights shares its time with it. Trainings that began in ``work`` go on, with the epochs they began with.
    """
    begun = read_json(work / EPOCHS_NAME, "epochs by stage") if (work / EPOCHS_NAME).is_file() else {}
    own = [stage for stage in scale.stages if stage not in STARTS_FROM]
    later = [stage for stage in scale.stages if stage in STARTS_FROM]

    def start(name: str, stage: str, fold: int, epochs: int, models: Path, pretrained: Path | None = None) -> Step:
        path = work / f"recipe_{name}_{stage}_{fold}.yaml"
        write_recipe(recipe, {stage: epochs}, path)
        command = (*train_command(stage, path, device, work), "--fold", fold, "--models", models, "--half")
        return run.start(f"{name}_{stage}_{fold}", (*command, *(["--pretrained", pretrained] if pretrained else [])), threads=1)

    folds = range(FOLDS)
    jobs = [(stage, fold) for stage in own for fold in folds]
    tried = {job: start("try", *job, CALIBRATION_EPOCHS, work / "tried") for job in jobs if job[0] not in begun}
    done = {job: run.wait(step, before) for job, step in tried.items()}
    whole = [stage for stage in own if all(done.get((stage, fold)) for fold in folds)]
    seconds = {stage: max(_epoch_seconds(tried[stage, fold].log) for fold in folds) for stage in whole}
    share = {stage: 0.5 if stage in [STARTS_FROM[name] for name in later] else 1.0 for stage in own}
    left = (before - time.monotonic()) * MARGIN
    epochs = {
        stage: min(scale.most_epochs, max(CALIBRATION_EPOCHS + 1, int((left * share[stage] - START_SECONDS) / seconds[stage])))
        for stage in seconds
    }
    epochs |= {stage: begun[stage] for stage in own if stage in begun}
    epochs |= {stage: epochs[STARTS_FROM[stage]] for stage in later if STARTS_FROM[stage] in epochs}
    run.record |= {"seconds_an_epoch": {**run.record.get("seconds_an_epoch", {}), **seconds}, "epochs": epochs}
    write_json(work / EPOCHS_NAME, {**begun, **epochs})
    models = work / "models"
    steps = {(stage, fold): start("train", stage, fold, epochs[stage], models) for stage, fold in jobs if stage in epochs}
    trained: dict[tuple[str, int], bool] = {}
    for stage in later:
        for fold in folds:
            base = STARTS_FROM[stage], fold
            if base in steps:
                trained[base] = run.wait(steps.pop(base), before)
            if trained.get(base):
                weights = models / base[0] / ARCHITECTURES[0] / f"fold_{fold}" / FINAL_CHECKPOINT
                steps[stage, fold] = start("train", stage, fold, epochs[stage], models, weights)
    trained |= {job: run.wait(step, before) for job, step in steps.items()}
    return {stage: epochs[stage] for stage in scale.stages if all(trained.get((stage, fold)) for fold in folds)}


def write_recipe(recipe: Path, epochs: dict[str, int], path: Path) -> None:
    """The recipe with these epochs by stage."""
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for stage, count in epochs.items():
        block = content[stage] = content.get(stage) or {}
        block["training"] = {**block.get("training", {}), "epochs": count}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def train_command(stage: str, recipe: Path, device: str, work: Path) -> tuple[object, ...]:
    """``flrplan train`` of a stage on the cohort in ``work``."""
    command = (*FLRPLAN, "train", "--cases", work / "cohort", "--stage", stage, "--folds", FOLDS, "--work", work)
    return (*command, "--recipe", recipe, "--device", device)


def _epoch_seconds(log: Path) -> float:
    """Of the last epoch, from what ``flrplan train`` prints: tenths."""
    return max(0.1, float(re.findall(r"epoch \d+/\d+: .* ([\d.]+) s", log.read_text())[-1]))


def _minutes(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected minutes, more than 0, got {text!r}")
    return float(text)


def main() -> int:
    """Parses, runs all steps, says what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=_minutes, required=True, help="all steps together end within this time")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, help="cohort, prepared data, training states (default: OUT/work, removed at the end)"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--cases", type=int, help=f"training cases (default: {FULL.cases})")
    parser.add_argument("--recipe", type=Path, help="of the demo models (default: demo_recipe.yaml; in small the smoke test's)")
    parser.add_argument("--smoke", action="store_true", help="every step in small: a few cases, one stage")
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        help="only these parts (in this order; demo needs the cohort in --work); repeatable",
    )
    arguments = parser.parse_args()
    scale = SMOKE if arguments.smoke else FULL
    recipe = arguments.recipe or (
        REPOSITORY / "benchmark/configs/smoke_recipe.yaml" if arguments.smoke else HERE / "demo_recipe.yaml"
    )
    scale = Scale(**{**scale.__dict__, **({} if arguments.cases is None else {"cases": arguments.cases})})
    parts = arguments.only or PARTS
    out = arguments.out.resolve()
    work = (arguments.work or out / "work").resolve()
    try:
        if scale.cases < FOLDS:
            raise SettingsError(f"--cases: expected {FOLDS} or more, one for each fold, got {scale.cases}")
        device = choose_device(arguments.device)
        make_writable(out, "give another --out")
        make_writable(work, "give another --work")
        before = read_json(out / RECORD_NAME, "the record of a run") if (out / RECORD_NAME).is_file() else {}
    except FlrError as error:
        parser.error(str(error))
    run = Run(out, time.monotonic() + arguments.minutes * 60, {**before, "machine": machine(device), "cases": scale.cases})
    run.write()
    atexit.register(run.stop)
    for stopped in (signal.SIGTERM, signal.SIGINT):  # Python would end without it, or with a traceback
        signal.signal(stopped, lambda number, _: sys.exit(128 + number))
    cores = os.cpu_count() or 1
    spare = max(1, cores - 4)
    made = None
    if "cohort" in parts:
        cohort = (
            "cohort",
            "--cases",
            scale.cases,
            "--seed",
            TRAIN_SEED,
            "--size",
            scale.size,
            "--wide",
            TRAIN_WIDE,
            "--out",
            work / "cohort",
        )
        made = run.start("cohort", (*FLRPLAN, *cohort, "--workers", spare), threads=1)
    if "speed" in parts:
        measure_speed(run, scale, arguments.device)
    if made is not None and run.wait(made):
        prepared = [
            run.start(
                f"prepare_{stage}",
                (
                    *train_command(stage, recipe, arguments.device, work),
                    "--prepare-only",
                    "--workers",
                    max(1, cores // 4),
                ),
                threads=1,
            )
            for stage in scale.stages
        ]
        for step in prepared:
            run.wait(step)
    if "training" in parts:
        measure_training(run, scale, arguments.device, work)
    fresh = work / DEMO_NAME
    if "demo" in parts:
        settings = CohortSettings(cases=scale.cases, seed=TRAIN_SEED, size=CaseSize(scale.size), wide=TRAIN_WIDE)
        until = run.deadline - PACKING_SECONDS - (scale.measure_seconds if "measure" in parts else 0)
        shutil.rmtree(fresh, ignore_errors=True)
        trained = train_demo(run, scale, recipe, arguments.device, work, until)
        if trained:
            shutil.copytree(MODEL_ROOT / DEMO_NAME, fresh)
            for stage in trained:
                install_demo_model(work / "models", fresh, stage, settings)
            write_recipe(recipe, trained, fresh / RECIPE_NAME)
            partial = out / ".demo.tar.gz.partial"
            with tarfile.open(partial, "w:gz") as archive:
                archive.add(fresh, DEMO_NAME)
            partial.replace(out / "demo.tar.gz")
    if "measure" in parts and fresh.is_dir():
        workers = min(scale.measured, spare)
        measure = (sys.executable, "-c", MEASURE, fresh, scale.measured, workers, scale.measured_size, arguments.device)
        run.wait(run.start("measure", (*measure, out / MEASURED_NAME), threads=1))
    if arguments.work is None:
        shutil.rmtree(work, ignore_errors=True)
    failed = [name for name, step in run.record.get("steps", {}).items() if step["outcome"] != 0]
    sys.stdout.write(f"{out / RECORD_NAME}: {'all steps done' if not failed else 'not done: ' + ', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
