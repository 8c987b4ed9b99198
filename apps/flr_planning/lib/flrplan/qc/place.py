"""Where the liver lies in the body, and what lies under its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import QcCase

_BODY_HU = -300.0
_STEP = 4
_MOST_OF_VIEW = 0.75
"""A liver that fills more of the view's width leaves too little beside it to tell where the midline is."""


def right_of_midline_mm(case: QcCase) -> float | None:
    """How far the liver's middle lies to the right of the body's midline; negative to the left.

    The midline halves the body in the liver's slices; without a CT it is the middle of the view. None for an empty liver, and where the
    liver fills more than three quarters of the view's width.
    """
    liver = case.whole.masks[Structure.LIVER][:, ::_STEP, ::_STEP]
    columns = np.flatnonzero(liver.any((0, 1)))
    if not columns.size or columns[-1] - columns[0] > _MOST_OF_VIEW * liver.shape[2]:
        return None
    x = np.arange(liver.shape[2])
    own = float((liver.sum((0, 1)) * x).sum() / liver.sum())
    middle = (liver.shape[2] - 1) / 2
    if case.whole.hu is not None:
        body = (case.whole.hu[:, ::_STEP, ::_STEP][liver.any((1, 2))] > _BODY_HU).sum((0, 1))
        if body.any():
            middle = float(np.interp(0.5, np.cumsum(body) / body.sum(), x))
    return (middle - own) * case.spacing_zyx_mm[2] * _STEP


def spread_hu(hu: NDArray[Any], mask: Mask, tail: float = 25.0) -> tuple[float, float]:
    """Median, and distance between the ``tail``-th percentiles from below and above, of the HU under a mask with at least one voxel."""
    low, median, high = np.percentile(hu[mask], (tail, 50, 100 - tail))
    return float(median), float(high - low)
