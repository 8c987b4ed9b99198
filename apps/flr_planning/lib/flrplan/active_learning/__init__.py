"""Which case to label next: what is measured of each case, and the strategies that choose by it. Knows nothing of MONAI Label.

Read in this order: :mod:`strategies` (the table), :mod:`measure` and :mod:`predictions` (what they go by),
:mod:`voters` (who may disagree), :mod:`cache` (where it is kept), :mod:`process` and :mod:`background` (measured beside a server).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flrplan.lazy import import_at_first_use

if TYPE_CHECKING:
    from flrplan.active_learning.background import LabelFile, Scores, State
    from flrplan.active_learning.measure import measure_image, measure_label
    from flrplan.active_learning.predictions import measure_by_models
    from flrplan.active_learning.strategies import STRATEGIES, CaseStrategy, Choice, Known, Part, choose
    from flrplan.active_learning.voters import Vote, Voters, find_voters

__all__ = [
    "STRATEGIES",
    "CaseStrategy",
    "Choice",
    "Known",
    "LabelFile",
    "Part",
    "Scores",
    "State",
    "Vote",
    "Voters",
    "choose",
    "find_voters",
    "measure_by_models",
    "measure_image",
    "measure_label",
]

import_at_first_use(
    __name__,
    {
        "flrplan.active_learning.background": ("LabelFile", "Scores", "State"),
        "flrplan.active_learning.measure": ("measure_image", "measure_label"),
        "flrplan.active_learning.predictions": ("measure_by_models",),
        "flrplan.active_learning.strategies": ("STRATEGIES", "CaseStrategy", "Choice", "Known", "Part", "choose"),
        "flrplan.active_learning.voters": ("Vote", "Voters", "find_voters"),
    },
)
