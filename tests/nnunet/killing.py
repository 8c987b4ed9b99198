"""Kills a short training with SIGKILL and lets it go on; run by test_kill.py, a JSON line per training.

    python killing.py WORK MODELS COUNT SEED

WORK holds stage flr, prepared; MODELS a model of the same plan, published before. Each of COUNT trainings starts from a copy of
both and is killed up to three times: at a file operation drawn at random (any open, rename, removal, ...), or after a random time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from flrplan.files import current_version
from flrplan.method import FLR, Recipe
from flrplan.nnunet.model import ModelFolder, load_checkpoint
from flrplan.nnunet.model.checkpoint import TRAINING_NAME, weights_sha256
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.training_run import StageWork

FILE_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree", "os.truncate")


def child(work: Path, models: Path, recipe: Recipe, die_at: int, counter: Path | None = None) -> int:
    """Trains in a process of its own, which kills itself at its ``die_at``-th file operation (0: never). Returns its id."""
    process = os.fork()
    if process:
        return process
    seen = 0

    def hook(event: str, _: object) -> None:
        nonlocal seen
        if event in FILE_EVENTS:
            seen += 1
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(hook)
        train_fold(StageWork(work, FLR), 0, recipe, models, torch.device("cpu"))
        if counter is not None:
            counter.write_text(str(seen))
        code = 0
    finally:
        os._exit(code)


Weights = dict[str, torch.Tensor]


def published(models: Path) -> Weights:
    """The published weights; ends here unless the folder, its record and its checkpoint are whole and fit together."""
    folder = ModelFolder.open(current_version(models))
    record = json.loads((folder.checkpoint(0).parent / "run.json").read_text())
    weights: Weights = load_checkpoint(folder.checkpoint(0))["network_weights"]
    if weights_sha256(weights) != record["weights_sha256"]:
        raise SystemExit(f"the weights in {models} are not those of their record")
    return weights


def apart(first: Weights, second: Weights) -> float:
    """The largest difference of two weights."""
    return max(float((tensor - second[name]).abs().max()) for name, tensor in first.items())


def main() -> None:
    work, models, count, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    recipe = Recipe.from_mapping(json.loads((work / "recipe.json").read_text()))
    draw = random.Random(seed)
    old = published(models)
    whole = work.with_name("whole")
    shutil.copytree(work, whole / "work")
    shutil.copytree(models, whole / "models")
    started = time.monotonic()
    os.waitpid(child(whole / "work", whole / "models", recipe, 0, whole / "count"), 0)
    seconds, operations = time.monotonic() - started, int((whole / "count").read_text())
    new = published(whole / "models")
    for number in range(count):
        trial = work.with_name(f"trial-{number}")
        shutil.copytree(work, trial / "work")
        shutil.copytree(models, trial / "models")
        kills, found = [], []
        for _ in range(draw.randint(1, 3)):
            by_time = draw.random() < 0.25
            at = draw.uniform(0, seconds) if by_time else draw.randint(1, operations)
            process = child(trial / "work", trial / "models", recipe, 0 if by_time else int(at))
            if by_time:
                time.sleep(at)
                os.kill(process, signal.SIGKILL)
            killed = os.WIFSIGNALED(os.waitpid(process, 0)[1])
            now = published(trial / "models")
            found.append("old" if apart(now, old) == 0 else "new" if apart(now, new) < apart(new, old) / 100 else "other")
            states = [load_checkpoint(state)["current_epoch"] for state in trial.rglob(TRAINING_NAME)]
            kills.append(
                {"at": round(at, 2), "by": "seconds" if by_time else "file operation", "killed": killed, "state": states}
            )
        process = child(trial / "work", trial / "models", recipe, 0)
        ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        run = json.loads((current_version(trial / "models") / "fold_0" / "run.json").read_text())
        left_over = sorted(p.name for p in (trial / "models").iterdir())
        result = {"kills": kills, "found": found, "ended": ended}
        result |= {"apart": apart(published(trial / "models"), new), "old_and_new_apart": apart(new, old)}
        sys.stdout.write(json.dumps({**result, "resumed_at": run["resumed_at"], "left_over": left_over}) + "\n")
        sys.stdout.flush()
        shutil.rmtree(trial)


if __name__ == "__main__":
    main()
