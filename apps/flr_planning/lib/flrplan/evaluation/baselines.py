"""The trivial answers to "which part of the liver remains?", scored like a model.

Where the remnant is a fraction f of the liver, "the whole liver" has a Dice of 2f / (1 + f): 0.75 at f = 0.60. A model's FLR
must be read beside that, and beside what a ruler would draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from flrplan.anatomy import Structure
from flrplan.evaluation.columns import COLUMNS, OWN_MASKS, Column
from flrplan.evaluation.paper import architecture_order, architecture_title
from flrplan.evaluation.trivial_plans import TUMOUR_MARGIN_MM, Plane, beyond_plane, without_tumour, without_tumour_side
from flrplan.image import Geometry
from flrplan.method import Inputs
from flrplan.metrics import Region


class Rule(StrEnum):
    """How a trivial answer is made from a liver and its tumours. The value is the baseline's name where both are true."""

    WHOLE = "whole_liver"
    WITHOUT_TUMOUR = "liver_minus_tumour"
    WITHOUT_MARGIN = "liver_minus_tumour_10mm"
    WITHOUT_SIDE = "liver_minus_tumour_side"
    PLANE = "fixed_plane"

    def remnant(self, liver: Region, crlm: Region | None, geometry: Geometry, plane: Plane | None) -> Region | None:
        """The answer; None where it needs tumours or a plane and there is none of that."""
        if self is Rule.WHOLE:
            return liver
        if self is Rule.PLANE:
            return beyond_plane(liver, geometry, plane) if plane is not None else None
        if crlm is None:
            return None
        if self is Rule.WITHOUT_SIDE:
            return without_tumour_side(liver, crlm, geometry)
        return without_tumour(liver, crlm, TUMOUR_MARGIN_MM if self is Rule.WITHOUT_MARGIN else 0.0)


TITLES: Mapping[Rule, str] = {
    Rule.WHOLE: "whole liver",
    Rule.WITHOUT_TUMOUR: "liver minus tumour",
    Rule.WITHOUT_MARGIN: f"liver minus tumour and {TUMOUR_MARGIN_MM:g} mm",
    Rule.WITHOUT_SIDE: "liver minus the side with more tumour",
    Rule.PLANE: "fixed plane",
}

PREDICTED: Mapping[Rule, tuple[str, str]] = {
    Rule.WHOLE: ("whole_predicted_liver", "whole predicted liver"),
    Rule.WITHOUT_MARGIN: (
        "predicted_liver_minus_tumour_10mm",
        f"predicted liver minus predicted tumour and {TUMOUR_MARGIN_MM:g} mm",
    ),
    Rule.WITHOUT_SIDE: ("predicted_liver_minus_tumour_side", "predicted liver minus the side with more predicted tumour"),
    Rule.PLANE: ("predicted_fixed_plane", "fixed plane through the predicted liver"),
}
"""The rules that are applied to what an architecture predicted from the CT alone, too: first word of the name, and title."""

ORIGINAL = "original_labels"
ORIGINAL_TITLE = "original labels"
"""The pseudo-rater (:mod:`flrplan.evaluation.original`): no baseline, but a name that no architecture may have."""

_FLR_COLUMNS: tuple[Column, ...] = tuple(c for c in COLUMNS.values() if c.target is Structure.FLR)


@dataclass(frozen=True)
class Baseline:
    """One trivial prediction of the FLR. ``columns``: where it stands beside the models.

    name: key in ``baselines.csv`` and ``summary.json``. architecture: whose predicted liver it is; None for ground truth.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rule: Rule
    architecture: str | None = None


TRUTH_BASELINES: tuple[Baseline, ...] = tuple(Baseline(rule.value, title, _FLR_COLUMNS, rule) for rule, title in TITLES.items())
"""Made from ground truth, as the inputs of the pipelined column are. The models of the other columns do not know the true liver;
beside them, it says what the trivial answer scores with a perfect liver, also where no architecture predicted one."""

TRUTH_NOTE = (
    f"What the baselines know: {', '.join(list(TITLES.values())[:-1])} and {TITLES[Rule.PLANE]} know the true liver (and tumours, where "
    "they name them), which the cascaded and E2E models do not; those of a predicted liver are made from what that architecture "
    "predicted from the CT alone, as its cascade is. A fixed plane was chosen on the training cases: one normal for all patients, "
    "and their mean FLR fraction."
)
"""Stands over the tables."""


def predicted_baselines(architecture: str) -> tuple[Baseline, ...]:
    """The trivial answers from one architecture's predictions: made from the CT alone, as the cascaded and the E2E FLR are."""
    columns = tuple(c for c in _FLR_COLUMNS if c.is_papers and c.inputs is not Inputs.PIPELINED)
    return tuple(
        Baseline(f"{name}:{architecture}", f"{title} ({architecture_title(architecture)})", columns, rule, architecture)
        for rule, (name, title) in PREDICTED.items()
    )


LIVER_COLUMN = OWN_MASKS[Structure.LIVER]
"""The column that holds an architecture's predicted liver."""

CRLM_COLUMN = OWN_MASKS[Structure.CRLM]
"""The column that holds the tumours it predicted from the CT alone."""


def knows_truth(name: str) -> bool:
    """Whether the baseline of this name is made from ground truth, so that it is no way from a CT to an FLR."""
    return any(baseline.name == name for baseline in TRUTH_BASELINES)


def baseline_title(name: str) -> str | None:
    """The title of a baseline, or of the pseudo-rater, by its name; None for any other name."""
    if name == ORIGINAL:
        return ORIGINAL_TITLE
    _, _, architecture = name.partition(":")
    known = (*TRUTH_BASELINES, *(predicted_baselines(architecture) if architecture else ()))
    return next((baseline.title for baseline in known if baseline.name == name), None)


def baseline_order(present: Iterable[str]) -> list[str]:
    """The names of baselines: those of ground truth first, then by architecture in the order of tables."""
    names = set(present)
    architectures = architecture_order({name.partition(":")[2] for name in names})
    ordered = [*TRUTH_BASELINES, *(baseline for a in architectures for baseline in predicted_baselines(a))]
    return [baseline.name for baseline in ordered if baseline.name in names]
