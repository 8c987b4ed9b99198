"""New model against current one on the hold-out cases, with true masks as inputs: does the new one take its place?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from flrplan.errors import FlrError, ModelError
from flrplan.method import build_stage_input
from flrplan.metrics.overlap import dice
from flrplan.nnunet.model import ModelFolder, StagePredictor
from flrplan.workfolder import Case

DEFAULT_MARGIN = 0.01

Scores = Mapping[str, float]
"""Dice per case id, 0..1. Nothing predicted where nothing is counts 1: the model was right."""


@dataclass(frozen=True)
class Decision:
    """Whether the new model is published, and why, in words.

    verdict: the same in a few, such as ``NOT published: 0.876 < 0.959``. score: the mean Dice of the new model that decided, 0..1.
    """

    publish: bool
    reason: str
    verdict: str
    score: float

    def __str__(self) -> str:
        return f"{self.verdict}; {self.reason}"


def score_model(folder: ModelFolder, cases: Sequence[Case], device: torch.device) -> dict[str, float]:
    """Dice of a model on each case, raw (no mirroring, no clean-up), on the CT's own grid.

    Raises: ModelError where the folder cannot be opened, or a prediction is not finite; errors of the cases.
    """
    predictor = StagePredictor(folder, device)
    stage = folder.stage
    scores = {}
    for case in cases:
        ct, masks = case.load(dict.fromkeys((*stage.needs, stage.target)))
        given = build_stage_input(ct.array_zyx, ct.geometry, masks, stage, folder.input)
        value = dice(masks[stage.target], given.restore(predictor.predict(given)[stage.target]))
        scores[case.case_id] = 1.0 if value != value else value
    return scores


def score_current(folder: ModelFolder, cases: Sequence[Case], device: torch.device) -> tuple[dict[str, float] | None, str]:
    """As :func:`score_model`, but a current model that does not work is None, with the reason."""
    try:
        return score_model(folder, cases, device), ""
    except ModelError as error:
        return None, str(error)


def decide(
    new: Scores, current: Scores | None, margin: float, without: str = "", showing: Collection[str] | None = None
) -> Decision:
    """The new model is published unless its mean Dice is lower by more than ``margin``, on all cases or on those ``showing``.

    showing: ids with voxels of the target; None: all. On the others a model that never finds anything counts as right, so a mean
        over all may favour it, and without one the current model stays. Where there is no current model a new one is published
        whatever it scores, since there is nothing to lose, and the reason says what it was not tried on.
    without: why there are no scores of a current model.
    """
    if not new:
        raise FlrError("no hold-out case was scored, so the new model cannot be judged; label more images")
    shown = [i for i in new if showing is None or i in showing]
    unknown = f"the target is empty in all {len(new)} hold-out cases ({', '.join(new)}), so a model that never finds it would count as right"
    score = fmean(new.values())
    if current is None:
        caution = "" if shown else f"; {unknown}"
        return Decision(
            True,
            f"mean Dice {score:.3f} on {len(new)} hold-out cases; nothing to compare with: {without}{caution}",
            f"published: {score:.3f}",
            score,
        )
    if not shown:
        return Decision(False, f"{unknown}; label more images that show it", "NOT published: it cannot be compared", score)
    before = fmean(current.values())
    publish = score >= before - margin
    verdict = f"mean Dice on {len(new)} hold-out cases: new {score:.3f}, current {before:.3f}"
    if len(shown) < len(new):
        on_shown, before_on_shown = fmean(new[i] for i in shown), fmean(current[i] for i in shown)
        verdict += f"; on the {len(shown)} that show the target: new {on_shown:.3f}, current {before_on_shown:.3f}"
        if publish:
            score, before = on_shown, before_on_shown
            publish = score >= before - margin
    told = f"published: {score:.3f}, before {before:.3f}" if publish else f"NOT published: {score:.3f} < {before:.3f}"
    return Decision(publish, f"{verdict}, margin {margin:g}", told, score)
