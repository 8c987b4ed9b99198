"""All metrics of one predicted mask against its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flrplan.labels import Structure
from flrplan.metrics.catalogue import NSD_TOLERANCE_MM
from flrplan.metrics.empty import Outcome, Undefined, value_of
from flrplan.metrics.lesions import LesionMatching, lesion_outcomes, match_lesions
from flrplan.metrics.overlap import overlap_outcomes
from flrplan.metrics.region import Region
from flrplan.metrics.surface import surface_outcomes
from flrplan.metrics.volume import flr_percent, flr_percent_outcomes, volume_outcomes


@dataclass(frozen=True)
class Scores:
    """The metrics of one prediction.

    values: by metric name; NaN where undefined. reasons: why, for exactly the metrics that are NaN.
    lesions: the matching behind the lesion metrics; None unless the structure is CRLM.
    """

    values: Mapping[str, float]
    reasons: Mapping[str, Undefined]
    lesions: LesionMatching | None = None


def score_mask(
    structure: Structure,
    references: Mapping[Structure, Region],
    prediction: Region,
    predicted_context: Mapping[Structure, Region] | None = None,
    instances: Sequence[Region] | None = None,
) -> Scores:
    """Every metric of :data:`flrplan.metrics.catalogue.METRICS` that applies to the structure.

    Args:
        structure: what was predicted.
        references: regions of the ground truth; must hold ``structure``, and for the FLR also liver and CRLM.
        prediction: the predicted region, on the same grid.
        predicted_context: for the FLR: the liver and the CRLM that the prediction's own FLR% is taken of; a structure
            that is not in it comes from the ground truth.
        instances: for the CRLM: the lesions of the ground truth told apart; None: its components.
    Empty masks: :data:`flrplan.metrics.empty.EMPTY_MASKS`.
    Raises: GridError where the regions lie on different grids.
    """
    reference = references[structure]
    outcomes: dict[str, Outcome] = overlap_outcomes(reference, prediction)
    outcomes |= surface_outcomes(reference.surface, prediction.surface, NSD_TOLERANCE_MM[structure])
    outcomes |= volume_outcomes(reference, prediction)
    lesions: LesionMatching | None = None
    if structure is Structure.FLR:
        context = {**references, **(predicted_context or {})}
        outcomes |= flr_percent_outcomes(
            flr_percent(references[Structure.LIVER], references[Structure.CRLM], reference),
            flr_percent(context[Structure.LIVER], context[Structure.CRLM], prediction),
        )
    elif structure is Structure.CRLM:
        lesions = match_lesions(reference, prediction, instances)
        outcomes |= lesion_outcomes(lesions)
    return Scores(
        {name: value_of(outcome) for name, outcome in outcomes.items()},
        {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Undefined)},
        lesions,
    )
