"""What stopping an ensemble's folds early costs and saves: how many run, how far the answer agrees with that of all, and with the label.

    python benchmark/early_stop.py --cases labelled --models my_models
    python benchmark/early_stop.py --cases labelled --models new older oldest     # their folds, in this order, as one ensemble

Nothing stops folds early: this weighs it. Each stage is given the labels' masks. A row is a level: no further fold would be run once what the
folds so far find together, at the resolution of the networks, agrees by that Dice with what they find without the last of them. Several folders
of models must have the same voxel size; the masks are made by the first one's settings. docs/speed.md has figures.
"""

from __future__ import annotations

import argparse
import sys
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from numpy.typing import NDArray

from flrplan.anatomy import Mask
from flrplan.engine import ModelStore
from flrplan.errors import ModelError
from flrplan.files import make_writable, write_json
from flrplan.method import CASCADE, Stage, StageInput, build_stage_input
from flrplan.metrics.overlap import dice
from flrplan.networks import ARCHITECTURES
from flrplan.nnunet.model import StagePredictor
from flrplan.nnunet.model.predictor import Say
from flrplan.workfolder import Case, find_labelled_cases
from script import at_least, run_script

LEVELS = (0.98, 0.99, 0.995, 0.998, 0.999)


class Kept(StagePredictor):
    """Keeps the logits of its folds, and answers by those that it is given."""

    logits: list[torch.Tensor] | None = None

    def _ensemble(self, data: NDArray[Any], say: Say) -> list[torch.Tensor]:
        self.logits = self.logits or super()._ensemble(data, say)
        return self.logits

    def folds(self, given: StageInput) -> list[torch.Tensor]:
        """The logits of each fold."""
        self.logits = None
        self.predict(given)
        return self.logits or []

    def by(self, logits: list[torch.Tensor], given: StageInput) -> tuple[Mask, Mask]:
        """What these logits find together: on the grid of the input, and at the resolution of the network."""
        self.logits = logits
        return self.predict(given)[self.stage.target], self._foreground(reduce(torch.add, logits)) > 0


def measure(case: Case, stage: Stage, predictors: list[Kept]) -> list[dict[str, Any]]:
    """One row a level, of one case; none where the label has no such structure."""
    ct, masks = case.load(dict.fromkeys((*stage.needs, stage.target)))
    true = masks[stage.target]
    if not true.any():
        return []
    given = build_stage_input(ct.array_zyx, ct.geometry, masks, stage, predictors[0].folder.input)
    logits = [fold for predictor in predictors for fold in predictor.folds(given)]
    if len({fold.shape for fold in logits}) > 1:
        raise ModelError(f"{case.case_id}, {stage}: the models do not have the same voxel size; give those that do")
    found = [predictors[0].by(logits[: n + 1], given) for n in range(len(logits))]
    of_all = given.restore(found[-1][0])
    rows = []
    for level in LEVELS:
        agreed = (n + 1 for n in range(1, len(logits)) if dice(found[n - 1][1], found[n][1]) >= level)
        ran = next(agreed, len(logits))
        mask = given.restore(found[ran - 1][0])
        agreement = dice(mask, of_all)
        rows.append(
            {
                "stage": stage.name,
                "case": case.case_id,
                "level": level,
                "ran": ran,
                "of": len(logits),
                "agreement": 1.0 if agreement != agreement else agreement,
                "dice": dice(mask, true),
                "dice_of_all": dice(of_all, true),
            }
        )
    return rows


def main() -> int:
    """Measures, prints the table, writes it."""
    head, _, tail = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=head, epilog=tail, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--first", type=at_least(1), help="measure so many cases (default: all)")
    parser.add_argument("--out", type=Path, help="a JSON file with every case")
    a = parser.parse_args()
    if a.out and a.out.is_dir():
        parser.error(f"--out: expected a file, {a.out} is a folder")
    if a.out:
        make_writable(a.out.parent, "give another --out")
    stores = [ModelStore(root, demo=None) for root in a.models]
    of_stage = {
        stage: [Kept(store.find(stage, ARCHITECTURES[0]).folder, torch.device("cpu")) for store in stores] for stage in CASCADE
    }
    rows: list[dict[str, Any]] = []
    for case in find_labelled_cases(a.cases)[: a.first]:
        for stage, predictors in of_stage.items():
            rows += measure(case, stage, predictors)
        sys.stderr.write(f"{case.case_id}\n")
        if a.out:
            write_json(a.out, rows)
    sys.stdout.write(
        "| stage | level | folds run | agreement, mean | least | Dice with the label | of all folds |\n|---|---|---|---|---|---|---|\n"
    )
    for stage in CASCADE:
        for level in LEVELS:
            own = [row for row in rows if (row["stage"], row["level"]) == (stage.name, level)]
            if own:
                means = {key: fmean(row[key] for row in own) for key in ("ran", "agreement", "dice", "dice_of_all")}
                sys.stdout.write(
                    f"| {stage.name} | {level} | {means['ran']:.1f} of {own[0]['of']} | {means['agreement']:.4f} | "
                    f"{min(row['agreement'] for row in own):.4f} | {means['dice']:.4f} | {means['dice_of_all']:.4f} |\n"
                )
    return 0


if __name__ == "__main__":
    run_script(main)
