"""Trains one stage on true, perturbed and predicted masks, several times each, and tells what each does to the cascade.

    python benchmark/compare_input_masks.py --work W

The paper trains CRLM and FLR on true masks and feeds them predicted ones; Dice falls. On a synthetic cohort this trains the stages
before ``--stage`` once, on true masks, predicts their masks out-of-fold, and trains the stage in four ways: with each
``input_masks``, and on true masks with the region's mask as one more channel (``region_channel``), each from several seeds. It then
predicts the held-out cases with true (pipelined) and with predicted (cascaded) masks and writes the Dice of every case and seed
(``W/dice.json``), a table (``W/table.md``) with bootstrap intervals over cases of the seeds' mean, and every training's pseudo Dice by
epoch (``W/curves.png``): a way of training says something only where its curves have left 0 and flattened.
What is done is kept, so a stopped run continues with the same command.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from tqdm import tqdm

from flrplan.api.predict import predict_columns
from flrplan.api.train import TrainingRequest, prepare, train
from flrplan.cohort import CohortSettings, write_cohort
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import FlrError
from flrplan.evaluation import COLUMNS, Column
from flrplan.evaluation.robustness import PairedDice, markdown, robustness
from flrplan.files import current_version, replacing, write_json, write_text
from flrplan.hardware import choose_device, keep_freed_memory
from flrplan.image import write_label_map
from flrplan.input_masks import with_predictions
from flrplan.input_masks.predictions import column_of
from flrplan.method import CASCADE, InputMasks, Inputs, Recipe, Stage, stage_named
from flrplan.metrics.overlap import dice
from flrplan.networks import ARCHITECTURES
from flrplan.nnunet.model import load_checkpoint
from flrplan.nnunet.model.checkpoint import TRAINING_NAME
from flrplan.nnunet.train import EpochReport
from flrplan.nnunet.train.precision import precision_context
from flrplan.preparation.draw import draw_split, write_split
from flrplan.workfolder import RUN_NAME, Case, Split, find_labelled_cases, read_split
from script import at_least, run_script

matplotlib.use("Agg")

logger = logging.getLogger("compare_input_masks")

FOLDS = 2
"""Of the stages before, so that every training case has a prediction of a model that has not seen it."""
SMOOTHED = 5
"""Epochs whose mean a curve shows."""
VALIDATION_SHARE = 0.12
"""Of the training cases, for the pseudo Dice; the stage itself trains on the others, the same in every way and seed."""
WAYS: Mapping[str, tuple[InputMasks, bool]] = {
    **{source.value: (source, False) for source in InputMasks},
    "ground_truth, region_channel": (InputMasks.GROUND_TRUTH, True),
}
"""The ways of training, the reference first: ``input_masks`` and ``region_channel``."""


def make_cohort(arguments: argparse.Namespace) -> tuple[list[Case], Split]:
    """The cases of the comparison and their split."""
    cohort: Path = arguments.work / "cohort"
    cases = arguments.train_cases + arguments.test_cases
    write_cohort(CohortSettings(cases=cases, seed=arguments.seed, size=arguments.size), cohort)
    split = cohort / "splits.json"
    labelled = find_labelled_cases(cohort)
    if not split.is_file():
        write_split(split, draw_split([case.case_id for case in labelled], arguments.test_cases, folds=FOLDS))
    return labelled, read_split(split)


class Comparison:
    """One stage, its cases, and the models of the stages before it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.work: Path = arguments.work
        self.stage = stage_named(arguments.stage)
        self.before = CASCADE[: CASCADE.index(self.stage)]
        self.device = choose_device(arguments.device)
        self.cases, self.split = make_cohort(arguments)
        columns = {c.inputs: c for c in COLUMNS.values() if c.stage is self.stage}
        self.columns: tuple[Column, Column] = (columns[Inputs.PIPELINED], columns[Inputs.CASCADED])
        self.models = self.work / "models"
        ids = sorted(case_id for fold in self.split.folds for case_id in fold)
        few = max(1, round(VALIDATION_SHARE * len(ids)))
        self.own_split = Split((tuple(ids[:few]), tuple(ids[few:])), self.split.test)

    def recipe(self, stage: Stage) -> Recipe:
        """The recipe of a stage."""
        return Recipe.from_yaml(self.arguments.recipe, stage.name)

    def prepare(self) -> list[Case]:
        """Trains the stages before this one on true masks, and returns the cases with what these predict: out-of-fold, held-out all folds."""
        predictions = self.work / "predictions"
        for stage in self.before:
            for fold in range(FOLDS):
                request = TrainingRequest(
                    stage,
                    fold,
                    self.cases,
                    self.work / "training",
                    self.models,
                    self.arguments.architecture,
                    recipe=self.recipe(stage),
                    split=self.split,
                    device=self.device,
                )
                if not (current_version(request.model_folder) / f"fold_{fold}" / RUN_NAME).is_file():
                    self.train(request)
            column = column_of(stage.target)
            parts: list[tuple[tuple[int, ...] | None, Sequence[str]]] = [(None, self.split.test)]
            parts += [((fold,), self.split.validation_ids(fold)) for fold in range(FOLDS)]
            for folds, ids in parts:
                cascade = self.cascade(self.models, folds)
                for case in tqdm([c for c in self.cases if c.case_id in set(ids)], desc=f"{stage}: predictions", disable=None):
                    path = predictions / column / f"{case.case_id}.nii.gz"
                    if not path.is_file():
                        ct, truth = case.load(stage.needs)
                        with self.precision(stage):
                            _, mask, _ = next(predict_columns(ct, truth, cascade, [column]))
                        write_label_map(path, mask, ct.geometry)
        return with_predictions(self.cases, self.stage, predictions)

    def train(self, request: TrainingRequest) -> None:
        """One training, with a bar on standard error."""

        def tell(report: EpochReport) -> None:
            bar.update(report.epoch + 1 - bar.n)

        title = f"{request.model_folder}, fold {request.fold}"
        with tqdm(total=request.recipe.training.epochs, desc=title, unit="epoch", disable=None) as bar:
            train(request, tell)

    def precision(self, stage: Stage) -> Any:
        """Predictions are computed in the precision of the training."""
        return precision_context(self.device, self.recipe(stage).training.mixed_precision)

    def cascade(self, models: Path, folds: tuple[int, ...] | None) -> Cascade:
        """The cascade of these models as the benchmark runs it, without mirroring."""
        settings = CascadeSettings(self.arguments.architecture, self.arguments.device, mirroring=False, largest_liver=False)
        return Cascade(ModelStore(models, demo=None, folds=folds), settings)

    def run_way(self, cases: Sequence[Case], way: str, seed: int) -> dict[str, Any]:
        """One way of training from one seed: ``dice`` of the held-out cases by column, and ``pseudo_dice`` by epoch."""
        place = self.work / way.replace(", ", "_")
        own = place / f"seed_{seed}"
        result = own / "result.json"
        if result.is_file():
            return dict(json.loads(result.read_text(encoding="utf-8")))
        recipe = self.recipe(self.stage)
        source, channel = WAYS[way]
        given = replace(recipe.input, input_masks=source, region_channel=channel)
        recipe = replace(recipe, input=given, training=replace(recipe.training, seed=seed))
        request = TrainingRequest(
            self.stage,
            0,
            cases,
            place / "prepared",
            own / "models",
            self.arguments.architecture,
            recipe=recipe,
            split=self.own_split,
            device=self.device,
        )
        prepare(request)
        if not own.is_dir():  # a training continues in its own folder; the prepared arrays are hard links
            beside = own.with_name(f".{own.name}.partial")
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(request.work, beside / "training", copy_function=os.link)
            beside.rename(own)
        request = replace(request, work=own / "training")
        self.train(request)
        state = next((request.stage_work.folder / "results").rglob(TRAINING_NAME))
        curve = [float(v) for v in load_checkpoint(state)["logging"]["mean_fg_dice"]]
        done = {"dice": self.scores(cases, own / "models"), "pseudo_dice": curve, "seconds": self.seconds(own)}
        write_json(result, done)
        return done

    def seconds(self, own: Path) -> float:
        """Seconds that a training took, those before an interruption included."""
        run = next(own.glob(f"models/{self.stage}/*/fold_0/run.json"))
        return float(json.loads(run.read_text(encoding="utf-8"))["trained_seconds"])

    def scores(self, cases: Sequence[Case], models: Path) -> dict[str, list[float]]:
        """Dice of the held-out cases, in the order of their ids, by column."""
        cascade = self.cascade(models, None)
        found: dict[str, list[float]] = {column.name: [] for column in self.columns}
        for case in tqdm([c for c in cases if c.case_id in set(self.split.test)], desc=f"{models}: held-out", disable=None):
            ct, truth = case.load({*self.stage.needs, self.stage.target})
            given = {s: truth[s] for s in self.stage.needs}
            for column, masks in zip(self.columns, (given, case.load_predicted(self.stage.needs, ct)), strict=True):
                mask = np.zeros(ct.geometry.shape_zyx, bool)
                if self.stage.region is None or masks[self.stage.region].any():  # a liver that was not found holds nothing
                    with self.precision(self.stage):
                        mask = cascade.run(ct, masks, (self.stage,)).masks[self.stage.target]
                found[column.name].append(dice(truth[self.stage.target], mask))
        return found


def run(arguments: argparse.Namespace) -> int:
    """Trains, predicts, scores, writes. Returns the exit status."""
    comparison = Comparison(arguments)
    cases = comparison.prepare()
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for seed in range(arguments.seeds):  # seed by seed: what is done after a stop is a comparison, too
        for way, done in runs.items():
            done.append(comparison.run_way(cases, way, seed))
    means = {
        way: PairedDice(*(np.mean([done["dice"][column.name] for done in of_way], axis=0) for column in comparison.columns))
        for way, of_way in runs.items()
    }
    rows = robustness(means, next(iter(WAYS)))
    text = f"Stage {comparison.stage}, Dice of {rows[0].n} of {rows[0].cases} held-out cases, mean of {arguments.seeds} seeds\n\n{markdown(rows)}\n"
    text += "| trained on | " + " | ".join(f"{c.inputs}, by seed" for c in comparison.columns) + " |\n|---|---|---|\n"
    for way, of_way in runs.items():
        cells = [" ".join(f"{np.nanmean(done['dice'][c.name]):.3f}" for done in of_way) for c in comparison.columns]
        text += f"| {way} | {' | '.join(cells)} |\n"
    write_json(arguments.work / "dice.json", runs)
    write_text(arguments.work / "table.md", text)
    draw_curves(runs, arguments.work / "curves.png")
    sys.stdout.write(text)
    return 0


def draw_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Pseudo Dice by epoch, the mean of five epochs, a colour a way, a line a seed."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, (way, of_way) in enumerate(runs.items()):
        for seed, done in enumerate(of_way):
            smooth = np.convolve(done["pseudo_dice"], np.ones(SMOOTHED) / SMOOTHED, "valid")
            axes.plot(np.arange(len(smooth)) + SMOOTHED - 1, smooth, color=f"C{number}", label=None if seed else way)
    axes.set(xlabel="epoch", ylabel="pseudo Dice of the validation patches", ylim=(0, 1))
    axes.legend(loc="lower right")
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format="png")
    pyplot.close(figure)


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="compare_input_masks.py", description=head, epilog=tail, formatter_class=raw)
    here = Path(__file__).resolve().parent
    parser.add_argument("--work", type=Path, required=True, help="folder of everything; continue with the same")
    parser.add_argument("--stage", choices=[s.name for s in CASCADE if s.needs], default="crlm", help="default: crlm")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="trainings of each way (default: 3)")
    parser.add_argument("--train-cases", type=at_least(1), default=100, help="cases of the two folds (default: 100)")
    parser.add_argument("--test-cases", type=at_least(1), default=40, help="held-out cases (default: 40)")
    parser.add_argument("--size", default="small", help="size of the synthetic cases (default: small)")
    parser.add_argument("--seed", type=at_least(0), default=11, help="seed of the cohort (default: 11)")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--recipe", type=Path, default=here / "configs" / "input_masks_recipe.yaml")
    parser.add_argument("--device", default="auto")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    keep_freed_memory()
    try:
        return run(parser.parse_args(words))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    run_script(main)
