"""``flrplan train-many``: several trainings in one process, which loads the libraries once; what is trained is kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.commands import train
from flrplan.commands.options import add_variants_option, known_variants
from flrplan.commands.say import note
from flrplan.engine import MODEL_ROOT
from flrplan.errors import SettingsError, TrainingError
from flrplan.method import STAGES, stage_named
from flrplan.networks import ARCHITECTURES

if TYPE_CHECKING:
    from flrplan.method import Variant


@dataclass(frozen=True)
class Training:
    """One of them: which stage, architecture (or variant) and fold."""

    stage: str
    architecture: str
    fold: int

    @classmethod
    def parse(cls, text: str, variants: Mapping[str, Variant]) -> Training:
        """From ``STAGE/ARCHITECTURE/FOLD``. Raises SettingsError saying what is known."""
        stage, _, rest = text.partition("/")
        architecture, _, fold = rest.partition("/")
        known = (*ARCHITECTURES, *variants)
        if stage not in STAGES or architecture not in known or not fold.isdigit():
            raise SettingsError(
                f"--training takes STAGE/ARCHITECTURE/FOLD with a stage of {', '.join(STAGES)} and an architecture of "
                f"{', '.join(known)}, got {text!r}"
            )
        return cls(stage, architecture, int(fold))

    def __str__(self) -> str:
        return f"{self.stage}/{self.architecture}/{self.fold}"


def add_parser(commands: Any) -> None:
    """Adds ``train-many`` to the command line."""
    parser = commands.add_parser(
        "train-many",
        help="several trainings in one process; what is trained already is kept",
        epilog="All other options are those of 'flrplan train' and hold for every training.",
    )
    parser.add_argument("--training", action="append", required=True, metavar="STAGE/ARCHITECTURE/FOLD", help="repeatable")
    parser.add_argument("--split", type=Path, required=True, help="split file; its folds are trained")
    parser.add_argument("--work", type=Path, required=True, help="prepared data and training states")
    parser.add_argument("--models", type=Path, default=MODEL_ROOT, help="the models go to <models>/<stage>/<architecture>")
    parser.add_argument(
        "--pretrained",
        action="append",
        default=[],
        metavar="ARCHITECTURE=FILE",
        help="weights that its trainings start from, or scratch",
    )
    add_variants_option(parser)
    parser.add_argument("options", nargs="*", metavar="OPTION", help="options of 'flrplan train', after --")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains one after the other, until one fails. A training that another process is at is waited for."""
    from flrplan.files import current_version
    from flrplan.nnunet.train.provenance import require_same_training
    from flrplan.workfolder import read_split

    variants = known_variants(arguments.variants)
    trainings = [Training.parse(text, variants) for text in arguments.training]
    split = read_split(arguments.split)
    weights = {name: str(variant.pretrained) for name, variant in variants.items() if variant.pretrained is not None}
    weights |= dict(_weights(text, variants) for text in arguments.pretrained)
    for number, training in enumerate(trainings, 1):
        title = f"{training} ({number} of {len(trainings)})"
        folder = current_version(arguments.models / training.stage / training.architecture) / f"fold_{training.fold}"
        with _lock(arguments.work, training, title):
            variant, start = variants.get(training.architecture), weights.get(training.architecture)
            if require_same_training(folder, split, training.fold, start, variant):
                note(f"{title}: trained before")
                continue
            note(f"{title}: starts")
            status = train.train_folds(_one(arguments, training, start), variants)
            if status:
                raise TrainingError(
                    f"{title}: its processes ended with status {status}; their error stands above. Mend it and start the same "
                    "command again: what is trained is kept"
                )
    return 0


def _one(arguments: argparse.Namespace, training: Training, start: str | None) -> argparse.Namespace:
    """The options of ``flrplan train`` for one of them; ``words`` say the same, for the processes of several GPUs."""
    own = {
        "stage": training.stage,
        "architecture": training.architecture,
        "fold": training.fold,
        "split": arguments.split,
        "work": arguments.work,
        "models": arguments.models,
        "variants": arguments.variants,
        "pretrained": start,
    }
    words = [word for name, value in own.items() if value is not None for word in (f"--{name}", str(value))]
    parser = argparse.ArgumentParser(prog="flrplan train")
    train.add_training_options(parser)
    one = parser.parse_args(arguments.options, argparse.Namespace(**own))
    one.fold, one.pretrained = [training.fold], None if start is None else train.start_weights(start)
    one.words = ["train", *words, *arguments.options]
    return one


def _weights(text: str, variants: Mapping[str, Variant]) -> tuple[str, str]:
    architecture, _, path = text.partition("=")
    known = (*ARCHITECTURES, *variants)
    if architecture not in known or not path:
        raise SettingsError(f"--pretrained takes ARCHITECTURE=FILE, got {text!r}; architectures are {', '.join(known)}")
    return architecture, path


def _lock(work: Path, training: Training, title: str) -> Any:
    """The lock of one training, held by whoever trains it and released by the system when that process dies."""
    from filelock import FileLock, Timeout

    from flrplan.nnunet.prepare import StageWork

    stage_work = StageWork(work, stage_named(training.stage))
    stage_work.make()
    path = stage_work.folder / "locks" / f"{training.architecture}-{training.fold}.lock"
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        note(f"{title}: another process trains it; waiting for that one")
        return lock.acquire()
