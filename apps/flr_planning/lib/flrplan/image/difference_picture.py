"""Where a prediction and the truth differ: the axial slice on which they differ most, both outlined over the CT."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from flrplan.anatomy import Mask

WINDOW_HU = (-90.0, 210.0)
"""Liver window."""

MARGIN_MM = 20.0
TRUTH_COLOUR, PREDICTION_COLOUR = "#00C26F", "#FF4FD8"


def draw_difference(
    axes: Axes, hu: NDArray[Any], truth: Mask, predicted: Mask, spacing_zyx_mm: tuple[float, float, float]
) -> int:
    """Draws that slice, cropped to both masks; the truth solid green, the prediction dashed pink. Returns its index.

    All arrays ``(Z, Y, X)`` in canonical axis order. A mask without a border in view (empty, or all of it) has no outline.
    """
    k = int(np.argmax((truth ^ predicted).sum(axis=(1, 2))))
    box = _box(truth[k] | predicted[k], spacing_zyx_mm)
    axes.imshow(hu[k][box], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=spacing_zyx_mm[1] / spacing_zyx_mm[2])
    for mask, colour, style in ((truth, TRUTH_COLOUR, "solid"), (predicted, PREDICTION_COLOUR, "dashed")):
        if mask[k][box].any() and not mask[k][box].all():
            axes.contour(mask[k][box].astype(float), levels=[0.5], colors=[colour], linewidths=1.3, linestyles=style)
    axes.set_axis_off()
    return k


def _box(area: Mask, spacing_zyx_mm: tuple[float, float, float]) -> tuple[slice, slice]:
    slices = []
    for axis in (0, 1):
        hit = np.flatnonzero(area.any(axis=1 - axis))
        margin = int(np.ceil(MARGIN_MM / spacing_zyx_mm[axis + 1]))
        low, high = (int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, area.shape[axis])
        slices.append(slice(max(0, low - margin), min(area.shape[axis], high + margin)))
    return slices[0], slices[1]
