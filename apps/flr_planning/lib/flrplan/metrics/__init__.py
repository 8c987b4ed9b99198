"""Distances and overlaps between a reference mask and a predicted one. Pure numpy and scipy; never imports torch.

Read in this order: :mod:`region` (a mask, cropped), :mod:`overlap`, :mod:`surface_elements`, :mod:`nearest`, :mod:`surface`, :mod:`volume`,
:mod:`lesions`, :mod:`empty` (what every metric returns on empty masks), :mod:`catalogue` (all metrics as data),
:mod:`score` (all metrics of one prediction); of saved probabilities: :mod:`calibration`, :mod:`froc`.
"""

from flrplan.metrics.empty import EMPTY_MASKS, Emptiness, Undefined
from flrplan.metrics.region import Region
from flrplan.metrics.score import Scores, score_mask

__all__ = ["EMPTY_MASKS", "Emptiness", "Region", "Scores", "Undefined", "score_mask"]
