"""Where the mask of a demo model begins: its decision threshold, chosen on cases of full size that no fold has seen.

A network says 0.5 where it is as likely right as wrong about a voxel, in cases like those that it trained on. Folds that disagree are
averaged to less than that, and the training cases are of medium size: in voxels as fine as a patient's a metastasis comes out too small.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flrplan.anatomy import Structure
from flrplan.errors import ModelError
from flrplan.files import write_json
from flrplan.method import build_stage_input
from flrplan.method.probabilities import encode
from flrplan.metrics.overlap import dice
from flrplan.nnunet.model import ModelFolder, StagePredictor
from flrplan.nnunet.model.checkpoint import load_checkpoint, weights_sha256, write_checkpoint
from flrplan.nnunet.model.model_folder import read_json_object
from flrplan.workfolder import FINAL_CHECKPOINT, RUN_NAME, Case

logger = logging.getLogger(__name__)

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
HARDLY = 0.01
"""Two real CTs without metastases: 5 and 5 ml are called one at 0.5, 17 and 14 ml at 0.25."""
RECORD = "threshold"
"""Of ``run.json``: what was chosen, and the mean Dice of each."""


@dataclass(frozen=True)
class Tried:
    """Mean Dice over ``cases`` by threshold."""

    dice: Mapping[float, float]
    cases: int

    @property
    def best(self) -> float:
        """Of the thresholds whose Dice is hardly below the greatest, the one that lies nearest to 0.5: a lower one finds more that is none."""
        enough = max(self.dice.values()) - HARDLY
        return min((t for t, found in self.dice.items() if found >= enough), key=lambda t: abs(t - 0.5))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"chosen": self.best, "cases": self.cases, "dice": {f"{t:g}": d for t, d in self.dice.items()}}


def try_thresholds(model: Path, cases: Sequence[Case]) -> Tried:
    """Each case by all folds of a model folder, true masks given; a case without the structure tells nothing.

    Raises: ModelError where no case has the structure.
    """
    predictor = StagePredictor(ModelFolder.open(model), torch.device("cpu"))
    found = [scores for case in cases if (scores := _scores(predictor, case)) is not None]
    if not found:
        raise ModelError(f"{model}: no case with {predictor.stage.target} is there to choose its threshold on")
    tried = Tried(dict(zip(THRESHOLDS, np.mean(found, axis=0).tolist(), strict=True)), len(found))
    logger.info("%s: %s", model, tried.as_json())
    return tried


def move_threshold(model: Path, tried: Tried) -> None:
    """Adds the log odds of the chosen threshold to the bias of each fold's output, so that the mask is where the network says 0.5.

    The folder, which nobody may read meanwhile, stays a plain nnU-Net model. ``run.json`` says what was chosen.
    """
    for fold in sorted(model.glob("fold_*")):
        content = load_checkpoint(fold / FINAL_CHECKPOINT)
        weights = content["network_weights"]
        for name in [name for name in weights if ".seg_layers." in name and name.endswith(".bias")]:
            weights[name] = weights[name] + math.log((1 - tried.best) / tried.best)
        write_checkpoint(fold / FINAL_CHECKPOINT, content)
        run = read_json_object(fold / RUN_NAME)
        write_json(fold / RUN_NAME, {**run, RECORD: tried.as_json(), "weights_sha256": weights_sha256(weights)})


def _scores(predictor: StagePredictor, case: Case) -> list[float] | None:
    """Dice at each threshold; None where the structure is absent."""
    stage = predictor.stage
    ct, masks = case.load(dict.fromkeys((*stage.needs, stage.target)))
    truth = masks[stage.target]
    if not truth.any():
        return None
    given = build_stage_input(ct.array_zyx, ct.geometry, masks, stage, predictor.folder.input)
    _, probability = predictor.predict_with_probability(given)[stage.target]
    within = masks.get(Structure.LIVER, np.True_)
    of_thresholds = encode(np.array(THRESHOLDS, np.float32))
    return [dice(given.restore(probability > threshold) & within, truth) for threshold in of_thresholds]
