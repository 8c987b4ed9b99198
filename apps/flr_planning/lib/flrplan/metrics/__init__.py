"""Distances and overlaps between a reference mask and a predicted one. Pure numpy and scipy; never imports torch.

Read in this order: :mod:`region` (a mask, cropped), :mod:`overlap`, :mod:`surface_elements`, :mod:`nearest`, :mod:`surface`, :mod:`volume`,
:mod:`lesions`, :mod:`cut` (of remnant and resection), :mod:`empty` (what every metric returns on empty masks), :mod:`catalogue` (all metrics as data),
:mod:`score` (all metrics of one prediction); of saved probabilities: :mod:`calibration`, :mod:`froc`.
"""

from flrplan.metrics.cut import Cut, Fate, LesionMargin, cut_outcomes, lesion_margins, smallest_margin_mm
from flrplan.metrics.empty import EMPTY_CUTS, EMPTY_MASKS, Emptiness, Undefined
from flrplan.metrics.region import Region
from flrplan.metrics.score import Scores, score_mask

__all__ = [
    "EMPTY_CUTS", "EMPTY_MASKS", "Cut", "Emptiness", "Fate", "LesionMargin", "Region", "Scores", "Undefined", "cut_outcomes",
    "lesion_margins", "score_mask", "smallest_margin_mm",
]  # fmt: skip
