"""Trains the stages after the liver on true, perturbed and predicted masks, and tells what each does to the cascade.

    python benchmark/compare_input_masks.py --work W

The paper trains CRLM and FLR on true masks and feeds them predicted ones; Dice falls. This trains, on a synthetic cohort, the
liver once and the stages after it three times (setting ``input_masks``), two folds each; the cascade of each way takes its own masks
throughout. It then predicts the held-out cases with true (pipelined) and with predicted (cascaded) masks and writes the Dice of every
case (``W/dice.json``) and a table a stage (``W/table.md``), with bootstrap intervals over cases.
Everything is done by the commands of the benchmark; what is done is kept, so a stopped run continues with the same command.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

import draw_split
import predict
from flrplan import cli
from flrplan.cohort import CohortSettings, write_cohort
from flrplan.errors import FlrError
from flrplan.evaluation.columns import COLUMNS, Inputs
from flrplan.evaluation.robustness import PairedDice, markdown, robustness
from flrplan.io import read_mask, write_json, write_text
from flrplan.metrics.overlap import dice
from flrplan.splits import read_split
from flrplan.stage_input import InputMasks
from flrplan.stages import ARCHITECTURES, CASCADE, Stage
from flrplan.training_cases import find_labelled_cases

logger = logging.getLogger("compare_input_masks")

FOLDS = 2


def make_cohort(arguments: argparse.Namespace) -> Path:
    """The cohort of the comparison and its split."""
    cohort: Path = arguments.work / "cohort"
    cases = arguments.train_cases + arguments.test_cases
    write_cohort(CohortSettings(cases=cases, seed=arguments.seed, size=arguments.size), cohort)
    if not (cohort / "splits.json").is_file():
        words = ["--cases", cohort, "--held-out", arguments.test_cases, "--folds", FOLDS, "--out", cohort / "splits.json"]
        _run(draw_split.main, words, "drawing the split")
    return cohort


def train(arguments: argparse.Namespace, work: Path, stage: Stage, source: InputMasks) -> None:
    """Both folds of one stage; predicted masks are those that lie in ``work`` already."""
    folder = work / "models" / stage.name / arguments.architecture
    missing = [k for k in range(FOLDS) if not (folder / f"fold_{k}" / "run.json").is_file()]
    if not missing:
        return
    words: list[object] = ["train", "--cases", work, "--stage", stage, "--architecture", arguments.architecture]
    words += ["--split", work / "splits.json", "--work", work / "training", "--models", work / "models"]
    words += ["--recipe", arguments.recipe, "--device", arguments.device]
    words += [word for fold in missing for word in ("--fold", fold)]
    if stage.needs and source is not InputMasks.GROUND_TRUTH:
        words += ["--input-masks", source.value, "--predictions", work / "predictions" / arguments.architecture]
    _run(cli.main, words, f"training {stage} on {source.value}")


def predict_part(arguments: argparse.Namespace, work: Path, stages: list[Stage], held_out: bool) -> None:
    """The columns of these stages: of the held-out cases by both folds, or of the others out-of-fold."""
    words: list[object] = ["--work", work, "--models", work / "models", "--architecture", arguments.architecture]
    words += ["--device", arguments.device, "--no-mirroring", "--cascaded-cv"]
    words += [word for stage in stages for word in ("--stage", stage)]
    parts = ["held-out"] if held_out else [f"fold-{k}" for k in range(FOLDS)]
    words += [word for part in parts for word in ("--part", part)]
    _run(predict.main, words, f"predicting in {work}")


def run_source(arguments: argparse.Namespace, cohort: Path, source: InputMasks) -> Path:
    """The whole cascade trained one way, and its predictions of the held-out cases. Returns its work folder."""
    work: Path = arguments.work / source.value
    work.mkdir(parents=True, exist_ok=True)
    for name in ("images", "labels", "masks"):
        if (cohort / name).is_dir() and not (work / name).exists():
            (work / name).symlink_to((cohort / name).resolve(), target_is_directory=True)
    shutil.copyfile(cohort / "splits.json", work / "splits.json")
    first = arguments.work / InputMasks.GROUND_TRUTH.value
    for number, stage in enumerate(CASCADE):
        if not stage.needs and work != first:
            for part in (f"models/{stage}", "predictions", "predicted"):
                if not (work / part).exists():
                    _copy_liver(first / part, work / part, arguments.architecture)
            continue
        train(arguments, work, stage, source)
        if stage is not CASCADE[-1]:
            predict_part(arguments, work, list(CASCADE[: number + 1]), held_out=False)
    predict_part(arguments, work, list(CASCADE), held_out=True)
    return work


def _copy_liver(source: Path, target: Path, architecture: str) -> None:
    """The liver's models and out-of-fold predictions are the same for all ways of training."""
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    if source.name == "predictions":
        column = f"{Inputs.PIPELINED}_{CASCADE[0].target}"
        shutil.copytree(source / architecture / column, beside / architecture / column)
    elif source.name == "predicted":
        for path in (source / architecture).glob("fold-*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            kept = {k: v for k, v in record.items() if k in ("mirroring", CASCADE[0].name)}
            write_json(beside / architecture / path.name, kept)
    else:
        shutil.copytree(source, beside)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside.rename(target)


def scores(work: Path, architecture: str, stage: Stage) -> dict[str, list[float]]:
    """Dice of the held-out cases by column of one stage, in the order of their ids."""
    cases = {c.case_id: c for c in find_labelled_cases(work)}
    result: dict[str, list[float]] = {name: [] for name, column in COLUMNS.items() if column.stage is stage}
    for case_id in sorted(read_split(work / "splits.json").test):
        ct, truth = cases[case_id].load((stage.target,))
        for name, values in result.items():
            mask = read_mask(work / "predictions" / architecture / name / f"{case_id}.nii.gz", ct, stage.target)
            values.append(dice(truth[stage.target], mask))
    return result


def run(arguments: argparse.Namespace) -> int:
    """Trains, predicts, scores, writes. Returns the exit status."""
    cohort = make_cohort(arguments)
    works = {source: run_source(arguments, cohort, source) for source in InputMasks}
    everything: dict[str, dict[str, dict[str, list[float]]]] = {}
    text = ""
    for stage in (s for s in CASCADE if s.needs):
        found = {source.value: scores(work, arguments.architecture, stage) for source, work in works.items()}
        everything[stage.name] = found
        pairs = {
            name: PairedDice(*(np.array(columns[f"{kind}_{stage.target}"]) for kind in (Inputs.PIPELINED, Inputs.CASCADED)))
            for name, columns in found.items()
        }
        rows = robustness(pairs, InputMasks.GROUND_TRUTH.value)
        text += f"Stage {stage}, Dice of {rows[0].n} of {rows[0].cases} held-out cases\n\n{markdown(rows)}\n"
    write_json(arguments.work / "dice.json", everything)
    write_text(arguments.work / "table.md", text)
    sys.stdout.write(text)
    return 0


def _run(command: Callable[[list[str]], int], words: Sequence[object], what: str) -> None:
    """Runs a command of ours; what it writes to standard output goes to standard error, for the table alone belongs there."""
    with redirect_stdout(sys.stderr):
        status = command([str(word) for word in words])
    if status:
        raise FlrError(f"{what} failed (see above); the same command continues")


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="compare_input_masks.py", description=head, epilog=tail, formatter_class=raw)
    here = Path(__file__).resolve().parent
    parser.add_argument("--work", type=Path, required=True, help="folder of everything; continue with the same")
    parser.add_argument("--train-cases", type=int, default=40, help="cases of the two folds (default: 40)")
    parser.add_argument("--test-cases", type=int, default=40, help="held-out cases (default: 40)")
    parser.add_argument("--size", default="small", help="size of the synthetic cases (default: small)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--recipe", type=Path, default=here / "configs" / "input_masks_recipe.yaml")
    parser.add_argument("--device", default="auto")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        return run(parser.parse_args(words))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
