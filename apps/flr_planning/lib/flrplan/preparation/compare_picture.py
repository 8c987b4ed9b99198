"""The picture of a comparison: Dice and volume change of every case, and the slices that changed most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flrplan.anatomy import Structure
from flrplan.files import replacing
from flrplan.image import Canonical, read_ct, require_same_grid
from flrplan.planning.picture import WINDOW_HU
from flrplan.preparation.compare import CasePair, Change
from flrplan.workfolder import IMAGE_SUFFIX, TRUTH

FIRST_COLOUR, SECOND_COLOUR = "#FF4FD8", "#00C26F"


def write_comparison_picture(
    path: Path, changes: Sequence[Change], pairs: Sequence[CasePair], images: Path | None = None
) -> None:
    """A PNG: per structure the Dice and the volume change of each case, and the case of lowest Dice on its slice of most change.

    ``images``: folder of ``<case>.nii.gz`` for the background; grey without. Raises: OutputError; what reading raises.
    """
    figure = Figure(figsize=(4.2 * len(TRUTH), 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, len(TRUTH))
    pair_of = {p.case: p for p in pairs}
    for column, structure in enumerate(TRUTH):
        own = [c for c in changes if c.structure is structure]
        _draw_changes(upper[column], own, structure)
        defined = [c for c in own if not math.isnan(c.dice)]
        if defined:
            _draw_worst(lower[column], min(defined, key=lambda c: (c.dice, c.case)), pair_of, images)
        else:
            lower[column].set_axis_off()
    figure.suptitle("What the second label set changed (magenta: first, green dashed: second)")
    with replacing(path) as part:
        figure.savefig(part, dpi=100, format="png")


def _draw_changes(axis: Axes, changes: Sequence[Change], structure: Structure) -> None:
    axis.scatter([c.dice for c in changes], [c.change_ml for c in changes], s=14, alpha=0.7)
    axis.axhline(0.0, color="grey", linewidth=0.6)
    axis.set_title(f"{structure}, {len(changes)} cases")
    axis.set_xlabel("Dice of first and second")
    axis.set_ylabel("volume change [ml]")
    axis.set_xlim(-0.03, 1.03)


def _draw_worst(axis: Axes, change: Change, pair_of: Mapping[str, CasePair], images: Path | None) -> None:
    pair = pair_of[change.case]
    first, geometry = pair.first.read(TRUTH, pair.case)
    second, _ = pair.second.read(TRUTH, pair.case)
    canonical = Canonical.of(geometry)
    one, two = canonical.forward(first[change.structure]), canonical.forward(second[change.structure])
    z = int(np.argmax((one ^ two).sum(axis=(1, 2))))
    plane = np.zeros(one.shape[1:], np.float32)
    image = images / f"{pair.case}{IMAGE_SUFFIX}" if images is not None else None
    if image is not None and image.is_file():
        ct = read_ct(image)
        require_same_grid(geometry, ct.geometry, str(pair.first.first), str(image))
        plane = np.asarray(canonical.forward(ct.array_zyx)[z], np.float32)
    _, y_mm, x_mm = canonical.target.spacing_zyx_mm
    axis.imshow(plane, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=y_mm / x_mm)
    for mask, colour, style in ((one[z], FIRST_COLOUR, "solid"), (two[z], SECOND_COLOUR, "dashed")):
        if mask.any() and not mask.all():
            axis.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=1.3, linestyles=style)
    axis.set_title(f"{change.case}, Dice {change.dice:.3f}, slice {z + 1} of {one.shape[0]}", fontsize=9)
    axis.set_axis_off()
