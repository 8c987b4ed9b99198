"""A contact sheet: an axial and a coronal slice of each case, to look at before trusting a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import Compartment, Structure, structure_mask
from flrplan.errors import CohortError
from flrplan.files import replacing
from flrplan.image import Canonical, Geometry

WINDOW_HU = (-160.0, 240.0)
"""Width 400, level 40."""

COLUMNS = 6
_PANEL_INCH, _DPI = 2.0, 108
_BODY_HU = -300.0
_SOFT_HU = (0.0, 220.0)
_BLOCK_MM = 36.0
_OUTLINES: tuple[tuple[frozenset[int], str], ...] = (
    (frozenset({Compartment.REMNANT, Compartment.CRLM_IN_REMNANT}), "#00dd66"),
    (frozenset({Compartment.RESECTION, Compartment.CRLM_IN_RESECTION}), "#ff3030"),
    (frozenset({Compartment.CRLM_IN_RESECTION, Compartment.CRLM_IN_REMNANT}), "#ffee00"),
)


@dataclass(frozen=True)
class Panel:
    """One slice ``(rows, columns)`` with its label, None for none, and the size of a pixel in mm."""

    hu: NDArray[np.int16]
    label: NDArray[np.uint8] | None
    pixel_mm: tuple[float, float]


@dataclass(frozen=True)
class SheetCase:
    """What the sheet shows of one case; holds two slices, not the volume."""

    title: str
    axial: Panel
    coronal: Panel


def sheet_case(hu_zyx: NDArray[Any], label_zyx: NDArray[np.uint8] | None, geometry: Geometry, title: str) -> SheetCase:
    """The slices of a case through the most tumour; without a label, or without tumour, through what looks most like liver:
    the widest stretch of soft tissue. The axial slice as radiology shows it, the coronal one head up.
    """
    canonical = Canonical.of(geometry)
    hu = canonical.forward(hu_zyx)
    label = None if label_zyx is None else canonical.forward(label_zyx)
    spacing = canonical.target.spacing_zyx_mm
    liver = _thick_soft_tissue(hu, spacing) if label is None else structure_mask(label, Structure.LIVER)
    sought = liver if label is None else structure_mask(label, Structure.CRLM)
    if not sought.any():
        sought = liver
    z = int(sought.sum((1, 2)).argmax())
    # Where there is tumour, the coronal slice with the most liver.
    y = int((liver.sum((0, 2)) * sought.any((0, 2))).argmax())
    axial = _panel(hu[z], None if label is None else label[z], (spacing[1], spacing[2]))
    coronal = _panel(hu[::-1, y], None if label is None else label[::-1, y], (spacing[0], spacing[2]))
    return SheetCase(title, axial, coronal)


def _panel(hu: NDArray[Any], label: NDArray[np.uint8] | None, pixel_mm: tuple[float, float]) -> Panel:
    """A slice cut to what is not air."""
    body = ndimage.uniform_filter((hu > _BODY_HU).astype(np.float32), [2 * round(3 / mm) + 1 for mm in pixel_mm]) > 0.5
    rows, columns = np.nonzero(body.any(1))[0], np.nonzero(body.any(0))[0]
    if rows.size == 0:
        return Panel(hu.copy(), None if label is None else label.copy(), pixel_mm)
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Panel(hu[cut].copy(), None if label is None else label[cut].copy(), pixel_mm)


def _thick_soft_tissue(hu: NDArray[Any], spacing_zyx_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Where soft tissue fills a cube of 36 mm, ``(Z, Y, X) bool``; liver, above all."""
    soft = ((hu > _SOFT_HU[0]) & (hu < _SOFT_HU[1])).astype(np.float32)
    filled = ndimage.uniform_filter(soft, [max(round(_BLOCK_MM / mm), 1) for mm in spacing_zyx_mm])
    return np.asarray(filled > 0.97 * float(filled.max()))


def varied_cases(facts: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Positions of up to ``count`` cases that differ most: each brings the most words of facts not seen so far."""
    words = [_words(one) for one in facts]
    chosen: list[int] = []
    seen: dict[str, int] = {}
    while len(chosen) < min(count, len(words)):
        left = [i for i in range(len(words)) if i not in chosen]
        best = max(left, key=lambda i: (sum(0.3 ** seen.get(word, 0) for word in words[i]), -i))
        chosen.append(best)
        for word in words[best]:
            seen[word] = seen.get(word, 0) + 1
    return sorted(chosen)


def _words(facts: Mapping[str, Any]) -> set[str]:
    own = {f"{key}={value}" for key, value in facts.items() if isinstance(value, str | bool) and key != "case_id"}
    return own | {f"{key}={one[key]}" for one in facts.get("lesions", []) for key in ("kind", "place") if key in one}


def case_title(facts: Mapping[str, Any]) -> str:
    """Two lines over a case: how it was scanned, and what is planned."""
    metal = "" if facts["metal"] == "none" else f", {facts['metal']}"
    lesions = f"{facts['lesion_count']} lesion{'s' if facts['lesion_count'] != 1 else ''}"
    return (
        f"{facts['phase']}, {facts['spacing_mm'][2]:.1f} mm, {facts['kernel']}{metal}\n"
        f"{lesions}, {facts['resection']}, FLR {facts['flr_fraction']:.2f}"
    )


def contact_sheet(cases: Sequence[SheetCase], path: Path) -> Path:
    """Writes a PNG: a row of axial slices, bare, over a row of coronal ones with the plan outlined (remnant green, resection
    red, metastases yellow), six cases wide; window W400 L40.

    Raises: CohortError without cases; OutputError where it cannot be written.
    """
    if not cases:
        raise CohortError("a contact sheet needs at least one case, got none")
    columns = min(COLUMNS, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(columns * _PANEL_INCH, rows * 1.95 * _PANEL_INCH), facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    figure.subplots_adjust(left=0.002, right=0.998, bottom=0.003, top=1 - 0.17 / rows / 1.95, wspace=0.01, hspace=0.16)
    for axes in grid.ravel():
        axes.axis("off")
    for number, case in enumerate(cases):
        row, column = 2 * (number // columns), number % columns
        _show(grid[row][column], case.axial, outlined=False)
        _show(grid[row + 1][column], case.coronal, outlined=True)
        grid[row][column].set_title(case.title, fontsize=5.0, color="white", pad=2)
    path = Path(path)
    with replacing(path) as part:
        figure.savefig(part, dpi=_DPI, format="png", pil_kwargs={"optimize": True})
    return path


def _show(axes: Axes, panel: Panel, outlined: bool) -> None:
    high, wide = panel.hu.shape
    tall = high * panel.pixel_mm[0] / panel.pixel_mm[1]
    axes.imshow(
        panel.hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=(0, wide, tall, 0), interpolation="antialiased"
    )
    side = max(wide, tall)
    axes.set_xlim(wide / 2 - side / 2, wide / 2 + side / 2)
    axes.set_ylim(tall / 2 + side / 2, tall / 2 - side / 2)
    if panel.label is None or not outlined:
        return
    x, y = (np.arange(wide) + 0.5), (np.arange(high) + 0.5) * tall / high
    for members, colour in _OUTLINES:
        mask = np.isin(panel.label, [int(m) for m in members])
        if mask.any() and not mask.all():
            axes.contour(x, y, mask, [0.5], colors=colour, linewidths=0.5)
