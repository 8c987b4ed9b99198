"""A contact sheet: a row per case with the planned compartments outlined, to look at before trusting a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flrplan.cohort.case import SyntheticCase
from flrplan.errors import CohortError
from flrplan.io.write import replacing
from flrplan.labels import Compartment, Structure, structure_mask

WINDOW_HU = (-160.0, 240.0)
"""Width 400, level 40."""

_OUTLINES: tuple[tuple[frozenset[int], str], ...] = (
    (frozenset({Compartment.REMNANT, Compartment.CRLM_IN_REMNANT}), "#00dd66"),
    (frozenset({Compartment.RESECTION, Compartment.CRLM_IN_RESECTION}), "#ff3030"),
    (frozenset({Compartment.CRLM_IN_RESECTION, Compartment.CRLM_IN_REMNANT}), "#ffee00"),
)


def _show(axes: Axes, hu: NDArray[np.int16], label: NDArray[np.uint8], aspect: float, outlined: bool) -> None:
    axes.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=aspect, interpolation="nearest")
    axes.axis("off")
    for members, colour in _OUTLINES if outlined else ():
        mask = np.isin(label, [int(m) for m in members])
        if mask.any() and not mask.all():
            axes.contour(mask, [0.5], colors=colour, linewidths=0.8)


def contact_sheet(cases: Sequence[SyntheticCase], path: Path) -> Path:
    """Writes a PNG with a row per case: two axial slices (the lower bare), a coronal and a sagittal one, head up.

    Axial slices go through the most tumour and a third below; window W400 L40.
    Raises: CohortError without cases.
    """
    if not cases:
        raise CohortError("a contact sheet needs at least one case, got none")
    figure = Figure(figsize=(13.5, 3.4 * len(cases)), layout="tight")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(cases), 4, squeeze=False)
    for row, case in zip(grid, cases, strict=True):
        label, hu = case.planning_zyx, case.hu_zyx
        dx, dy, dz = case.geometry.spacing_mm
        tumour = structure_mask(label, Structure.CRLM)
        liver = np.nonzero(label)
        z = int(tumour.sum((1, 2)).argmax())
        y = int(tumour.sum((0, 2)).argmax())
        x = int(np.median(liver[2]))
        low = int(np.quantile(liver[0], 0.3))
        _show(row[0], hu[z], label[z], dy / dx, True)
        _show(row[1], hu[low], label[low], dy / dx, False)
        _show(row[2], hu[::-1, y], label[::-1, y], dz / dx, True)
        _show(row[3], hu[::-1, :, x], label[::-1, :, x], dz / dy, True)
        facts = case.facts
        row[0].set_title(f"{case.case_id}  {facts['resection']}  FLR {facts['flr_fraction']:.2f}", fontsize=8)
        row[1].set_title(f"{facts['phase']}, liver {facts['liver_hu']:.0f} HU, noise {facts['noise_hu']:.0f}", fontsize=8)
        row[2].set_title(f"{facts['scan_range']}, {dx:.2f} x {dy:.2f} x {dz:.2f} mm", fontsize=8)
        row[3].set_title(f"{facts['lesion_count']} lesions, liver {facts['liver_ml']:.0f} ml", fontsize=8)
    path = Path(path)
    with replacing(path) as part:
        figure.savefig(part, dpi=70, format="png")
    return path
