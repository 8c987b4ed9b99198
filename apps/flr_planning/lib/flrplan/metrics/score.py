"""All metrics of one predicted mask against its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flrplan.anatomy import Structure
from flrplan.metrics.catalogue import METRICS, NSD_TOLERANCE_MM
from flrplan.metrics.cut import cut_of, cut_outcomes
from flrplan.metrics.empty import Outcome, Undefined, value_of
from flrplan.metrics.lesions import LesionMatching, lesion_outcomes, match_lesions
from flrplan.metrics.overlap import dice_ceiling, overlap_outcomes
from flrplan.metrics.region import Region
from flrplan.metrics.surface import surface_outcomes
from flrplan.metrics.volume import OWN, flr_percent, flr_percent_outcomes, volume_outcomes


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
    own: Mapping[Structure, Region] | None = None,
    given: Region | Undefined | None = None,
    instances: Sequence[Region] | None = None,
) -> Scores:
    """Every metric of :data:`flrplan.metrics.catalogue.METRICS` that applies to the structure.

    Args:
        structure: what was predicted.
        references: regions of the ground truth; must hold ``structure``, and for the FLR also liver and CRLM.
        prediction: the predicted region, on the same grid.
        own: for the FLR: the liver and the CRLM that the same architecture predicted from the CT. Without them the metrics of the
            FLR% of these (:data:`flrplan.metrics.volume.OWN` in their names) do not apply and are not among the values.
        given: for CRLM and FLR: the liver inside which the model looked, which its cut divides, too; None: the whole image, and the
            true liver is divided; or why it is not known.
        instances: for the CRLM: the lesions of the ground truth told apart; None: its components.
    Empty masks: :data:`flrplan.metrics.empty.EMPTY_MASKS`.
    Raises: GridError where the regions lie on different grids.
    """
    reference = references[structure]
    outcomes: dict[str, Outcome] = overlap_outcomes(reference, prediction)
    outcomes |= surface_outcomes(reference.surface, prediction.surface, NSD_TOLERANCE_MM[structure])
    if structure in METRICS["dice_ceiling"].structures:
        outcomes["dice_ceiling"] = given if isinstance(given, Undefined) else dice_ceiling(reference, given)
    outcomes |= volume_outcomes(reference, prediction)
    lesions: LesionMatching | None = None
    if structure is Structure.FLR:
        truth = references[Structure.LIVER], references[Structure.CRLM]
        percent = flr_percent(*truth, reference)
        outcomes["flr_percent_reference"] = Undefined.NO_REFERENCE_LIVER if percent is None else percent
        outcomes |= flr_percent_outcomes(percent, flr_percent(*truth, prediction))
        if own is not None:
            of_own = flr_percent(own[Structure.LIVER], own[Structure.CRLM], prediction)
            outcomes |= flr_percent_outcomes(percent, of_own, OWN)
        divided = given if isinstance(given, Region) else truth[0]
        outcomes |= cut_outcomes(cut_of(truth[0], reference), cut_of(divided, prediction), truth[1])
    elif structure is Structure.CRLM:
        lesions = match_lesions(reference, prediction, instances)
        outcomes |= lesion_outcomes(lesions)
    return Scores(
        {name: value_of(outcome) for name, outcome in outcomes.items()},
        {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Undefined)},
        lesions,
    )
