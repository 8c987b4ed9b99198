"""The trivial answers to "which part of the liver remains?", scored like a model.

Where the remnant is a fraction f of the liver, "the whole liver" has a Dice of 2f / (1 + f): 0.75 at f = 0.60. A model's FLR
must be read beside that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flrplan.evaluation.columns import COLUMNS, Column, Inputs
from flrplan.evaluation.paper import architecture_title
from flrplan.labels import Structure

WHOLE_LIVER = "whole liver"
LIVER_MINUS_TUMOUR = "liver minus tumour"
WHOLE_PREDICTED_LIVER = "whole predicted liver"
_PREDICTED = "whole_predicted_liver"

_FLR_COLUMNS: Mapping[Inputs, Column] = {c.inputs: c for c in COLUMNS.values() if c.target is Structure.FLR}


@dataclass(frozen=True)
class Baseline:
    """One trivial prediction of the FLR. ``columns``: where it stands beside the models.

    name: key in ``baselines.csv`` and ``summary.json``. architecture: whose predicted liver it is; None for ground truth.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    architecture: str | None = None


TRUTH_BASELINES: tuple[Baseline, ...] = tuple(
    Baseline(name, title, tuple(_FLR_COLUMNS.values()))
    for name, title in (("whole_liver", WHOLE_LIVER), ("liver_minus_tumour", LIVER_MINUS_TUMOUR))
)
"""Made from ground truth, as the inputs of the pipelined column are. The models of the other columns do not know the true liver;
beside them, it says what the trivial answer scores with a perfect liver, also where no architecture predicted one."""

TRUTH_NOTE = (
    f"The baselines {WHOLE_LIVER} and {LIVER_MINUS_TUMOUR} know the true liver and tumours, which the cascaded and E2E models do "
    f"not; {WHOLE_PREDICTED_LIVER} is made from the CT alone, as theirs are."
)
"""Stands over the tables."""


def predicted_liver_baseline(architecture: str) -> Baseline:
    """The whole predicted liver of one architecture: made from the CT alone, as the cascaded and the E2E FLR are."""
    columns = (_FLR_COLUMNS[Inputs.CASCADED], _FLR_COLUMNS[Inputs.E2E])
    return Baseline(
        f"{_PREDICTED}:{architecture}", f"{WHOLE_PREDICTED_LIVER} ({architecture_title(architecture)})", columns, architecture
    )


LIVER_COLUMN = f"{Inputs.PIPELINED}_{Structure.LIVER}"
"""The column that holds an architecture's predicted liver."""


def knows_truth(name: str) -> bool:
    """Whether the baseline of this name is made from ground truth, so that it is no way from a CT to an FLR."""
    return any(baseline.name == name for baseline in TRUTH_BASELINES)


def baseline_title(name: str) -> str | None:
    """The title of a baseline by its name; None for any other name."""
    kind, _, architecture = name.partition(":")
    if kind == _PREDICTED and architecture:
        return predicted_liver_baseline(architecture).title
    return next((baseline.title for baseline in TRUTH_BASELINES if baseline.name == name), None)
