"""Do the intervals of the FLR hold what they say, and are they narrow? From the known cases of a ``calibration.json``, without a network.

    python benchmark/how_sure.py apps/flr_planning/model/demo/calibration.json --figure docs/how_sure.png

Twenty times a fifth of the cases of each kind of inputs, drawn at random, is held out, the rest calibrates; a few seconds. Prints Markdown
tables: how often the true FLR% lies inside and how wide the interval is, and the Brier score of the probability that FLR% is below 20, 30
and 40 %. ``by all other cases``: each held out by itself. A held-out case that is unlike the rest has no interval and is counted apart, in every row.

spread of the folds: the ensemble's FLR +- 1.645 standard deviations of the folds', taken for normal. one width: FLR +- the quantile of the
absolute errors, for all cases the same. signed errors: their quantiles, the same for all. plan: the interval that plans have. Of a
calibration with second opinions (``--architecture nnunet+stunet``) also without them: what that interval would be without what they said.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flrplan.errors import ModelError
from flrplan.files import replacing
from flrplan.planning.calibration import Calibration, KnownCase
from flrplan.planning.conformal import PredictiveDistribution
from flrplan.planning.interval import COVERAGE
from script import run_script

SPLITS = 20
HELD_OUT = 0.2
THRESHOLDS = (20.0, 30.0, 40.0)
METHODS = ("spread of the folds", "one width", "signed errors", "plan")
WITHOUT_OPINIONS = "plan, without second opinions"
Ends = tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """A held-out case in one split: the true FLR, and by method the ends of its interval and the probability below each threshold."""

    true: float
    ends: Mapping[str, Ends]
    below: Mapping[str, Mapping[float, float]]
    ml_inside: bool
    ml_width: float


def judged(calibration: Calibration, inputs: str, splits: int = SPLITS, seed: int = 0) -> tuple[list[Judged], int]:
    """Every held-out case of every split that has an interval, and how many have none; ``splits`` of 0: one case at a time."""
    ids = sorted(c for c, kinds in calibration.cases.items() if inputs in kinds and not kinds[inputs].evidence.unlike)
    rng = np.random.default_rng(seed)
    drawn = [{ids[i] for i in rng.permutation(len(ids))[: round(HELD_OUT * len(ids))]} for _ in range(splits)]
    found, without = [], 0
    for held_out in drawn or [{case} for case in ids]:
        rest = replace(calibration, cases={c: calibration.cases[c] for c in ids if c not in held_out})
        for case in sorted(held_out):
            one = _judged(rest, calibration.cases[case][inputs])
            found += [] if one is None else [one]
            without += one is None
    return found, without


def _judged(rest: Calibration, case: KnownCase) -> Judged | None:
    evidence = case.evidence
    interval = rest.interval(evidence)
    if interval.flr_fraction is None or interval.flr_ml is None:
        return None
    known = rest.of_kind(evidence.inputs)
    errors = np.array([k.true_flr_fraction - k.evidence.flr_fraction for k in known])
    spread = 1.645 * float(np.std(evidence.fold_fractions, ddof=1))
    size = float(np.sort(np.abs(errors))[math.ceil((len(errors) + 1) * COVERAGE) - 1])
    signed = PredictiveDistribution(np.sort(evidence.flr_fraction + errors))
    middle = evidence.flr_fraction
    ends = {
        "spread of the folds": (middle - spread, middle + spread),
        "one width": (middle - size, middle + size),
        "signed errors": signed.bounds(COVERAGE),
        "plan": interval.flr_fraction,
    }
    normal = NormalDist(middle, max(spread / 1.645, 1e-3))
    share = {t: float(np.mean([k.true_flr_fraction < t / 100 for k in known])) for t in THRESHOLDS}
    below = {
        "spread of the folds": {t: normal.cdf(t / 100) for t in THRESHOLDS},
        "share of the known cases": share,
        "signed errors": {t: signed.below(t / 100) for t in THRESHOLDS},
        "plan": {t: interval.below[t] for t in THRESHOLDS},
    }
    if evidence.architecture_fractions:
        alone = _without_opinions(rest).interval(replace(evidence, architecture_fractions={}))
        if alone.flr_fraction is not None:
            ends[WITHOUT_OPINIONS] = alone.flr_fraction
            below[WITHOUT_OPINIONS] = {t: alone.below[t] for t in THRESHOLDS}
    ml = interval.flr_ml
    return Judged(
        case.true_flr_fraction,
        {m: (max(low, 0.0), min(high, 1.0)) for m, (low, high) in ends.items()},
        below,
        ml.lower <= case.true_flr_ml <= ml.upper,
        ml.upper - ml.lower,
    )


def _without_opinions(calibration: Calibration) -> Calibration:
    def of(known: KnownCase) -> KnownCase:
        return replace(known, evidence=replace(known.evidence, architecture_fractions={}))

    cases = {case: {kind: of(known) for kind, known in kinds.items()} for case, kinds in calibration.cases.items()}
    return replace(calibration, cases=cases)


def tables(of_kind: Mapping[str, tuple[list[Judged], int]], calibration: Calibration) -> list[str]:
    """Lines of Markdown: coverage and width, then Brier scores."""
    lines = ["| inputs (cases) | interval | FLR% inside | width, points, mean (median) |", "|---|---|---|---|"]
    for inputs, (found, without) in of_kind.items():
        count = len(calibration.of_kind(inputs))
        for method in (*METHODS, *({WITHOUT_OPINIONS} & found[0].ends.keys())):
            width = [100 * (j.ends[method][1] - j.ends[method][0]) for j in found]
            inside = np.mean([j.ends[method][0] <= j.true <= j.ends[method][1] for j in found])
            lines.append(f"| {inputs} ({count}) | {method} | {inside:.1%} | {np.mean(width):.0f} ({np.median(width):.0f}) |")
        alone, _ = judged(calibration, inputs, splits=0)
        width = [100 * (j.ends["plan"][1] - j.ends["plan"][0]) for j in alone]
        inside = np.mean([j.ends["plan"][0] <= j.true <= j.ends["plan"][1] for j in alone])
        lines.append(
            f"| {inputs} ({count}) | plan, by all other cases | {inside:.1%} | {np.mean(width):.0f} ({np.median(width):.0f}) |"
        )
        ml = np.mean([j.ml_inside for j in found])
        lines.append(f"| {inputs} ({count}) | plan, ml | {ml:.1%} | {np.mean([j.ml_width for j in found]):.0f} ml |")
        lines.append(
            f"| {inputs} ({count}) | none: unlike the others | {without / (len(found) + without):.1%} of the held out | |"
        )
    lines += ["", "| inputs | P(FLR% below) by | 20 % | 30 % | 40 % |", "|---|---|---|---|---|"]
    for inputs, (found, _) in of_kind.items():
        for method in found[0].below:
            scores = [np.mean([(j.below[method][t] - (j.true < t / 100)) ** 2 for j in found]) for t in THRESHOLDS]
            lines.append(f"| {inputs} | {method} | " + " | ".join(f"{s:.3f}" for s in scores) + " |")
    return lines


def reliability(
    found: Sequence[Judged], method: str, bins: int = 5
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean probability, share that came true and number, of each bin of equal width that is not empty; all thresholds together."""
    p = np.array([j.below[method][t] for j in found for t in THRESHOLDS])
    came = np.array([j.true < t / 100 for j in found for t in THRESHOLDS], float)
    number = np.minimum((p * bins).astype(int), bins - 1)
    size = np.bincount(number, minlength=bins)
    full = size > 0
    return (np.bincount(number, p, bins)[full] / size[full], np.bincount(number, came, bins)[full] / size[full], size[full])


def draw(of_kind: Mapping[str, tuple[list[Judged], int]], calibration: Calibration, path: Path) -> None:
    """For each kind of inputs the reliability diagram, and each case's interval, by the others, against the truth."""
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3.1 * 2, 3.0 * len(of_kind)), layout="constrained", dpi=120)
        for row, (inputs, (found, _)) in zip(figure.subplots(len(of_kind), 2, squeeze=False), of_kind.items(), strict=True):
            row[0].plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
            for method, mark, colour in (("spread of the folds", "s:", "#D55E00"), ("plan", "o-", "#0072B2")):
                x, y, size = reliability(found, method)
                row[0].plot(x, y, mark, color=colour, label=method, markersize=3)
                row[0].scatter(x, y, s=4 + 200 * size / size.sum(), color=colour, alpha=0.3, linewidth=0)
            row[0].set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title=f"inputs {inputs}: FLR% below 20, 30, 40 %")
            row[0].set(xlabel="probability that was given", ylabel="share of cases where it was so")
            row[0].legend(loc="upper left", frameon=False)
            alone = sorted(judged(calibration, inputs, splits=0)[0], key=lambda j: j.true)
            true, ends = (100 * np.array(values) for values in ([j.true for j in alone], [j.ends["plan"] for j in alone]))
            inside = (ends[:, 0] <= true) & (true <= ends[:, 1])
            place = np.arange(len(true))
            for which, colour, label in ((inside, "#0072B2", "truth inside"), (~inside, "#D55E00", "outside")):
                row[1].vlines(place[which], *ends[which].T, color=colour, linewidth=1.5, label=label)
            row[1].plot(place, true, "k.", markersize=3, label="true FLR%")
            row[1].set(
                xlabel="held-out case, by its true FLR%", ylabel="FLR%", ylim=(0, 119), title=f"inputs {inputs}: intervals"
            )
            row[1].legend(loc="upper center", frameon=False, ncols=3, handlelength=1, columnspacing=0.8)
        with replacing(path) as beside:
            figure.savefig(beside, format="png")


def main() -> int:
    """Prints the tables and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--architecture", default="nnunet")
    parser.add_argument("--figure", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    calibration = Calibration.read(arguments.calibration, arguments.architecture)
    if calibration is None:
        raise ModelError(f"{arguments.calibration}: expected a calibration of {arguments.architecture}, found none")
    of_kind = {inputs: found for inputs in ("given", "predicted") if (found := judged(calibration, inputs))[0]}
    if not of_kind:
        raise ModelError(
            f"{arguments.calibration}: expected at least 40 cases of a kind of inputs, found fewer; calibrate on more"
        )
    sys.stdout.write("\n".join(tables(of_kind, calibration)) + "\n")
    if arguments.figure is not None:
        draw(of_kind, calibration, arguments.figure)
    return 0


if __name__ == "__main__":
    run_script(main)
