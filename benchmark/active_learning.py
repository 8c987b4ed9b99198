"""Does it matter which case is labelled next? A simulated annotator, strategy against strategy.

    python benchmark/active_learning.py --work W --figure docs/active_learning.png

Synthetic small cases with their truth. In each round a tiny FLR network is trained (two folds, the paper's trainer, the recipe below) on
the cases that are labelled so far, liver and metastases given as true masks; the held-out cases are predicted (Dice of the FLR); then each
strategy (:mod:`flrplan.active_learning`) chooses the next cases, and the annotator answers with the truth. The first round is shared:
strategies begin with the same cases and the same networks, so what differs after it is what they chose. ``label_faults`` is not among them:
the annotator has no labels to correct. Every seed is another first round and another training.

Writes ``W/result.json`` (cases, Dice per round, strategy and seed, differences to random) and the figure; prints Markdown. What is done is
kept: the same command goes on. Cost: two trainings a round, strategy and seed, and a prediction of each case: about 25 s of one core a round.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from flrplan.active_learning import STRATEGIES, CaseStrategy, Known, choose, find_voters, measure_by_models, measure_image
from flrplan.anatomy import Structure
from flrplan.api.train import TrainingRequest, train
from flrplan.cohort import CohortSettings, write_cohort
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import FlrError, SettingsError
from flrplan.files import read_json, replacing, write_json
from flrplan.method import FLR, Recipe
from flrplan.metrics.overlap import dice
from flrplan.workfolder import Case, Split, find_labelled_cases
from script import at_least, run_script

BASELINE = "random"
FIRST_ROUND = "first round"
SEEDS_OF_AN_INTERVAL = 5
"""Fewer seeds have curves and no interval."""
RECIPE = {
    "plan": {
        "batch_size": 2,
        "features": [8, 16, 32],
        "convs_decoder": 1,
        "resampling": "torch",
        "spacing_zyx_mm": [10, 10, 10],
        "patch_size_zyx": [16, 24, 24],
    },
    "training": {
        "epochs": 6,
        "iterations_per_epoch": 25,
        "validation_iterations": 1,
        "learning_rate": 0.003,
        "mirror_axes": [],
        "save_every": 100,
        "workers": 0,
        "mixed_precision": "off",
    },
}
"""Tiny: 150 iterations of patches of 160 x 240 x 240 mm in voxels of 10 mm."""


@dataclass(frozen=True)
class Learned:
    """What two networks know: Dice of each held-out case, and of the cases to choose from what strategies go by."""

    dice: Mapping[str, float]
    known: Mapping[str, Known]


@dataclass(frozen=True)
class Round:
    """One round: the cases that were labelled by then, and the Dice of each held-out case."""

    labelled: tuple[str, ...]
    dice: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Over the held-out cases."""
        return float(np.mean(list(self.dice.values())))


Learn = Callable[[Path, Sequence[str], int, Sequence[str]], Learned]
"""From a folder for the training, the labelled cases, a seed, and the cases of which strategies must know something."""


def ask(strategy: CaseStrategy, known: Mapping[str, Known], labelled: Sequence[str], step: int, seed: int) -> list[str]:
    """The next ``step`` cases, one after the other: what is chosen counts as labelled for the next. Fewer where no more are left."""
    random.seed(seed)  # the strategy "random" draws from it
    left = {case: k for case, k in known.items() if case not in labelled}
    chosen: list[str] = []
    while left and len(chosen) < step:
        case = choose(strategy, left, {c: known[c] for c in (*labelled, *chosen)}).case or min(
            left
        )  # without a score, the first
        chosen.append(case)
        del left[case]
    return chosen


def simulate(
    work: Path, strategies: Sequence[str], pool: Sequence[str], seed: int, first: int, step: int, rounds: int, learn: Learn
) -> dict[str, list[Round]]:
    """The rounds of each strategy with one seed. What was learned is kept in ``work``, and not learned again."""
    begin = tuple(sorted(np.random.default_rng(seed).permutation(sorted(pool))[:first].tolist()))
    done: dict[str, list[Round]] = {}
    for name in strategies:
        labelled, done[name] = begin, []
        for number in range(rounds):
            place = work / f"seed_{seed}" / (f"{name}_{number}" if number else FIRST_ROUND)
            last = number == rounds - 1
            asks_models = not last and (number == 0 or STRATEGIES[name].needs is not None)
            learned = _kept(place, lambda p=place, c=labelled, m=asks_models: learn(p, c, seed, sorted(pool) if m else ()))  # type: ignore[misc]
            done[name].append(Round(labelled, learned.dice))
            if not last:
                known = {case: learned.known.get(case, Known()) for case in pool}
                labelled = (*labelled, *ask(STRATEGIES[name], known, labelled, step, 1000 * seed + number))
    return done


def _kept(place: Path, learn: Callable[[], Learned]) -> Learned:
    file = place.with_name(f"{place.name}.json")
    if file.is_file():
        content = read_json(file, "what an earlier call wrote; delete it to make it again")
        return Learned(content["dice"], {case: Known(**known) for case, known in content["known"].items()})
    learned = learn()
    write_json(file, asdict(learned))
    shutil.rmtree(place, ignore_errors=True)  # networks, which nobody needs any more
    return learned


class Annotator:
    """Trains on what is labelled so far, predicts what is held out, and measures what strategies go by. Its labels are the truth."""

    def __init__(self, cases: Sequence[Case], held_out: Sequence[str], recipe: Recipe) -> None:
        self.cases = {case.case_id: case for case in cases}
        self.held_out = held_out
        self.recipe = recipe

    def learn(self, place: Path, labelled: Sequence[str], seed: int, measured: Sequence[str]) -> Learned:
        """As :data:`Learn`. Each of the two folds trains on all cases but one."""
        recipe = replace(self.recipe, training=replace(self.recipe.training, seed=seed))
        split = Split(((labelled[0],), (labelled[1],), tuple(labelled[2:])))
        cases = [self.cases[case] for case in labelled]
        for fold in (0, 1):
            train(TrainingRequest(FLR, fold, cases, place / "work", place / "models", recipe=recipe, split=split, device="cpu"))
        store = ModelStore(place / "models", demo=None)
        cascade = Cascade(store, CascadeSettings(device="cpu"))
        voters = find_voters(store, cascade.settings, (FLR,))
        scores, known = {}, {}
        for case in self.held_out:
            ct, truth = self.cases[case].load((*FLR.needs, Structure.FLR))
            given = {s: truth[s] for s in FLR.needs}
            scores[case] = round(dice(truth[Structure.FLR], cascade.run(ct, given, (FLR,)).masks[Structure.FLR]), 4)
        for case in measured:
            ct, truth = self.cases[case].load(FLR.needs)
            known[case] = Known(measure_image(ct), models=measure_by_models(ct, cascade, voters, truth, (FLR,))[0])
        logging.info("%s: %d labelled, Dice %.3f", place, len(labelled), np.mean(list(scores.values())))
        return Learned(scores, known)


def gain(rounds: Sequence[Round], baseline: Sequence[Round]) -> float:
    """Mean over the rounds after the first of the mean Dice, less that of the baseline: what a strategy brought, with the same first round."""
    return float(np.mean([a.mean - b.mean for a, b in zip(rounds[1:], baseline[1:], strict=True)]))


def summary(seeds: Mapping[int, Mapping[str, Sequence[Round]]]) -> dict[str, Any]:
    """Curves, the gain over random of each strategy and seed, and its interval (95 %, t) from :data:`SEEDS_OF_AN_INTERVAL` seeds on."""
    names = [name for name in next(iter(seeds.values())) if name != BASELINE]
    gains = {name: {seed: round(gain(of[name], of[BASELINE]), 4) for seed, of in seeds.items()} for name in names}
    found = {}
    for name, of_seed in gains.items():
        values = np.array(list(of_seed.values()))
        interval = None
        if len(values) >= SEEDS_OF_AN_INTERVAL:
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
            interval = [round(float(values.mean() - half), 4), round(float(values.mean() + half), 4)]
        found[name] = {"by_seed": of_seed, "mean": round(float(values.mean()), 4), "interval_95": interval}
    curves = {
        seed: {
            name: [{"labelled": len(r.labelled), "dice": round(r.mean, 4), "cases": r.labelled} for r in of[name]]
            for name in of
        }
        for seed, of in seeds.items()
    }
    return {"gain_over_random": found, "curves": curves}


def markdown(seeds: Mapping[int, Mapping[str, Sequence[Round]]], result: Mapping[str, Any]) -> str:
    """Mean Dice over the seeds by the number of labelled cases, and the gain over random; the last line says whether any strategy beat it."""
    strategies = list(next(iter(seeds.values())))
    counts = [len(r.labelled) for r in next(iter(seeds.values()))[strategies[0]]]
    lines = ["| labelled | " + " | ".join(strategies) + " |", "|" + "---|" * (len(strategies) + 1)]
    for k, count in enumerate(counts):
        means = [np.mean([of[name][k].mean for of in seeds.values()]) for name in strategies]
        lines.append(f"| {count} | " + " | ".join(f"{m:.3f}" for m in means) + " |")
    gains = result["gain_over_random"]
    beat = [name for name, of in gains.items() if of["interval_95"] and of["interval_95"][0] > 0]
    lines += ["", f"| Dice less that of random, seeds: {len(seeds)} | mean | by seed | 95 % |", "|---|---|---|---|"]
    for name, of in gains.items():
        by_seed = ", ".join(f"{v:+.3f}" for v in of["by_seed"].values())
        interval = "-" if of["interval_95"] is None else "{:+.3f} to {:+.3f}".format(*of["interval_95"])
        lines.append(f"| {name} | {of['mean']:+.3f} | {by_seed} | {interval} |")
    last = f"Better than random: {', '.join(beat)}." if beat else "None is shown to be better than random."
    return "\n".join([*lines, "", last])


def draw(seeds: Mapping[int, Mapping[str, Sequence[Round]]], path: Path) -> None:
    """Dice against the number of labelled cases: a colour a strategy, a thin line a seed, the thick one their mean."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(next(iter(seeds.values()))):
        curves = [[r.mean for r in of[name]] for of in seeds.values()]
        labelled = [len(r.labelled) for r in next(iter(seeds.values()))[name]]
        for curve in curves:
            axes.plot(labelled, curve, color=f"C{number}", linewidth=0.8, alpha=0.5)
        axes.plot(labelled, np.mean(curves, axis=0), color=f"C{number}", linewidth=2.5, marker="o", label=name)
    axes.set(xlabel="labelled cases", ylabel="Dice of the FLR, held-out cases", xticks=labelled)
    axes.legend(title="one seed" if len(seeds) == 1 else f"thin: a seed; thick: the mean of {len(seeds)}")
    with replacing(path) as part:
        figure.savefig(part, dpi=110, format="png")


def run(arguments: argparse.Namespace) -> int:
    """Simulates seed by seed: what is done after a stop is a comparison, too. Returns the exit status."""
    strategies = list(dict.fromkeys([BASELINE, *arguments.strategies.split(",")]))
    if unknown := sorted({*strategies} - {*STRATEGIES}):
        raise SettingsError(f"--strategies: unknown are {', '.join(unknown)}; known are {', '.join(STRATEGIES)}")
    if arguments.first < 3 or arguments.first + arguments.step * (arguments.rounds - 1) > arguments.cases:
        raise SettingsError("--first must be at least 3, and --cases enough for all rounds")
    cohort = arguments.work / "cohort"
    count = arguments.cases + arguments.test_cases
    write_cohort(CohortSettings(cases=count, seed=arguments.seed, wide=arguments.wide), cohort)
    cases = find_labelled_cases(cohort)
    ids = [case.case_id for case in cases]
    pool, held_out = ids[: arguments.cases], ids[arguments.cases :]
    recipe = Recipe.from_yaml(arguments.recipe, FLR.name) if arguments.recipe else Recipe.from_mapping(RECIPE)
    annotator = Annotator(cases, held_out, recipe)
    seeds: dict[int, dict[str, list[Round]]] = {}
    for seed in range(arguments.seeds):
        numbers = (arguments.first, arguments.step, arguments.rounds)
        seeds[seed] = simulate(arguments.work, strategies, pool, seed, *numbers, annotator.learn)
        settings = {k: str(v) for k, v in vars(arguments).items()} | {"recipe": recipe.to_json()}
        result = summary(seeds)
        write_json(arguments.work / "result.json", {"settings": settings, **result})
        draw(seeds, arguments.figure or arguments.work / "curves.png")
    sys.stdout.write(markdown(seeds, result) + "\n")
    return 0


def main(words: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="active_learning.py", description=head, epilog=tail, formatter_class=raw)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything; continue with the same")
    parser.add_argument("--strategies", default="disagreement,decision,diverse", help="beside random (default: %(default)s)")
    parser.add_argument("--seeds", type=at_least(1), default=3, help="first rounds and trainings (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=4, help="default: %(default)s")
    parser.add_argument("--first", type=at_least(1), default=4, help="cases of the first round (default: %(default)s)")
    parser.add_argument("--step", type=at_least(1), default=2, help="cases that each round adds (default: %(default)s)")
    parser.add_argument("--cases", type=at_least(1), default=20, help="cases to choose from (default: %(default)s)")
    parser.add_argument("--test-cases", type=at_least(1), default=10, help="held-out cases (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=31, help="seed of the cohort (default: %(default)s)")
    parser.add_argument("--wide", type=float, default=0.5, help="share of cases that spread wide (default: %(default)s)")
    parser.add_argument("--recipe", type=Path, help="of the FLR network; default: the tiny one in this file")
    parser.add_argument("--figure", type=Path, help="PNG of the curves (default: W/curves.png)")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        return run(parser.parse_args(words))
    except FlrError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    run_script(main)
