"""The key images of a plan: CT with the compartments outlined, a millimetre scale, and the liver as seen from outside.

Nothing depends on colour: the remnant has a solid outline, the resection a dashed one and hatching, metastases their numbers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from flrplan.anatomy import APPEARANCE, Compartment, Mask
from flrplan.files import replacing
from flrplan.image import CT, Canonical
from flrplan.planning.assessment import Assessment
from flrplan.planning.criteria import Denominator
from flrplan.planning.fonts import families, shown
from flrplan.planning.parts import Lesion
from flrplan.planning.volumetry import Volumes

WINDOW_HU = (-140.0, 260.0)
"""Soft-tissue window: width 400, level 60."""
MARGIN_MM = 25.0
"""Of the body around the liver in a key image."""
_SCALE_MM, _TICK_MM = 50, 10
_PLANES = (("axial", "R", "L"), ("coronal", "R", "L"), ("sagittal", "A", "P"))
_LINES = ((0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))
_LESION_COMPARTMENTS = (Compartment.CRLM_IN_RESECTION, Compartment.CRLM_IN_REMNANT)
_STYLES: Mapping[Compartment, tuple[Any, float, str | None]] = {
    Compartment.REMNANT: ("solid", 1.4, None),
    Compartment.RESECTION: ((0, (4, 1.5)), 1.4, "////"),
    Compartment.CRLM_IN_RESECTION: ("solid", 2.0, None),
    Compartment.CRLM_IN_REMNANT: ((0, (1, 1)), 2.4, "xxxx"),
}


@dataclass(frozen=True, eq=False)
class View:
    """One slice through a plan, in radiological view: the patient's right on the left, the head or the front on top.

    hu, label: ``(rows, columns)``; spacing_mm: of rows and columns. veins, others: masks of veins, and remnants of other plans, by name.
    """

    title: str
    letters: tuple[str, str]
    hu: NDArray[np.generic]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float]
    lesions: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    veins: Mapping[str, Mask] = field(default_factory=dict)
    others: Mapping[str, Mask] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class KeyImage:
    """A view as it is drawn. rgb: ``(rows, columns, 3) uint8``."""

    title: str
    rgb: NDArray[np.uint8]

    @property
    def jpeg(self) -> bytes:
        """The picture, without its title, as a JPEG."""
        buffer = io.BytesIO()
        Image.fromarray(self.rgb).save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def key_views(
    ct: CT,
    label_zyx: NDArray[np.uint8],
    lesions: Sequence[Lesion] = (),
    veins: Mapping[str, Mask] | None = None,
    others: Mapping[str, Mask] | None = None,
) -> list[View]:
    """The axial, coronal and sagittal slice with most of the cut (without a cut, of the liver), and the axial one of the smallest margin
    where it lies elsewhere.

    lesions: of the plan, whose numbers are shown. veins, others: masks on the CT's grid. An empty map gives the middle slices.
    """
    canonical = Canonical.of(ct.geometry)
    hu, label = canonical.forward(ct.array_zyx), canonical.forward(label_zyx)
    box = _around(label, canonical.target.spacing_zyx_mm)
    hu, label = hu[box], label[box]
    more = [{name: canonical.forward(mask)[box] for name, mask in (of or {}).items()} for of in (veins, others)]
    places = {n.number: _index(n.centre_lps_mm, canonical) - [cut.start for cut in box] for n in lesions}
    reach = {n.number: n.diameter_mm / 2 for n in lesions}
    most = [_most(label, axis) for axis in range(3)]
    wanted = [(0, most[0]), (1, most[1]), (2, most[2])]
    if closest := min((n for n in lesions if n.nearest_lps_mm is not None), key=lambda n: n.margin_mm, default=None):
        z = round(float(places[closest.number][0]))
        if abs(z - most[0]) * canonical.target.spacing_mm[2] > _TICK_MM and 0 <= z < label.shape[0]:
            wanted.append((0, z))
    views: list[View] = []
    for axis, index in wanted:
        rows, columns = ((1, 2), (0, 2), (0, 1))[axis]
        flip = -1 if axis else 1  # slices run to the head, rows of an image down
        spacing = canonical.target.spacing_zyx_mm

        def cut(array: NDArray[Any], axis: int = axis, index: int = index, flip: int = flip) -> NDArray[Any]:
            return np.asarray(np.take(array, index, axis)[::flip])

        shown = {
            number: (float(place[rows] if flip > 0 else label.shape[rows] - 1 - place[rows]), float(place[columns]))
            for number, place in places.items()
            if abs(place[axis] - index) * spacing[axis] <= max(reach[number], spacing[axis])
        }
        plane, left, right = _PLANES[axis]
        number = f", slice {index + box[0].start + 1} of {canonical.target.size_xyz[2]} from the feet" if axis == 0 else ""
        if len(views) == len(_PLANES):
            number += ", at the smallest margin"
        views.append(
            View(
                f"{plane}{number}",
                (left, right),
                cut(hu),
                cut(label),
                (spacing[rows], spacing[columns]),
                shown,
                *({name: cut(mask) for name, mask in of.items()} for of in more),
            )
        )
    return views


def draw(view: View, width_in: float = 4.2, dpi: int = 150) -> KeyImage:
    """Draws a key image."""
    rows, columns = (n * s for n, s in zip(view.label.shape, view.spacing_mm, strict=True))
    figure = _figure(width_in, width_in * rows / columns)
    figure.set_dpi(dpi)
    _draw(figure.add_axes((0, 0, 1, 1)), view)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return KeyImage(view.title, np.array(canvas.buffer_rgba())[..., :3])


def outside_jpeg(ct: CT, label_zyx: NDArray[np.uint8], lesions: Sequence[Lesion] = (), from_below: bool = False) -> bytes:
    """The liver as seen from the front, or from the feet: shaded, the resection hatched, metastases as outlines. A JPEG."""
    canonical = Canonical.of(ct.geometry)
    label = canonical.forward(label_zyx)
    box = _around(label, canonical.target.spacing_zyx_mm, 5.0)
    label = label[box] if from_below else label[box].transpose(1, 0, 2)[:, ::-1]  # depth, rows, columns
    z_mm, y_mm, x_mm = canonical.target.spacing_zyx_mm
    depth_mm, row_mm = (z_mm, y_mm) if from_below else (y_mm, z_mm)
    liver = label > 0
    seen = liver.any(axis=0)
    first = np.where(seen, liver.argmax(axis=0), label.shape[0])
    shown = np.where(seen, np.take_along_axis(label, np.minimum(first, label.shape[0] - 1)[None], 0)[0], 0)
    smooth = [2.5 / row_mm, 2.5 / x_mm]
    weight = ndimage.gaussian_filter(seen.astype(np.float32), smooth)
    depth = ndimage.gaussian_filter(np.where(seen, first * depth_mm, 0.0), smooth) / np.maximum(weight, 1e-3)
    down, right = np.gradient(depth, row_mm, x_mm)
    normal = np.stack([-right, -down, np.ones_like(depth)]) / np.sqrt(1 + right**2 + down**2)
    light = np.clip(0.3 + 0.7 * np.tensordot(np.array([-0.2, -0.3, 0.93]), normal, 1), 0.3, 1.0)
    rgb = np.ones((*seen.shape, 3))
    for compartment in Compartment:
        rgb[shown == compartment] = np.array(APPEARANCE[compartment].rgb) / 255
    rgb = np.where(seen[..., None], (0.45 + 0.55 * rgb) * light[..., None], 1.0)
    figure = _figure(4.2, 4.2 * seen.shape[0] * row_mm / (seen.shape[1] * x_mm))
    figure.set_facecolor("white")
    axes = figure.add_axes((0, 0, 1, 1))
    extent = (0.0, seen.shape[1] * x_mm, seen.shape[0] * row_mm, 0.0)
    axes.imshow(rgb, extent=extent, interpolation="bilinear")
    columns, rows = _centres(seen.shape, (row_mm, x_mm))
    cut = np.isin(shown, [Compartment.RESECTION, Compartment.CRLM_IN_RESECTION])
    with mpl.rc_context({"hatch.color": "#5a0000", "hatch.linewidth": 0.6}):
        if cut.any():
            axes.contourf(columns, rows, cut, [0.5, 1.5], colors="none", hatches=["////"])
            axes.contour(columns, rows, cut, [0.5], colors="#5a0000", linewidths=1.4, linestyles=[(0, (4, 1.5))])
    tumours = np.isin(label, _LESION_COMPARTMENTS).any(axis=0)
    if tumours.any():
        axes.contour(columns, rows, tumours, [0.5], colors="black", linewidths=1.3)
    for lesion in lesions:
        place = _index(lesion.centre_lps_mm, canonical) - [part.start for part in box]
        row = place[1] if from_below else len(rows) - 1 - place[0]
        _write(axes, (place[2] + 0.5) * x_mm, (row + 0.5) * row_mm, str(lesion.number), "black", "white", 8)
    _letters(axes, ("R", "L"), "black", "white")
    _scale(axes, extent, "black", "white")
    axes.set_axis_off()
    return _jpeg(figure, 150)


def thresholds_png(assessment: Assessment, interval: tuple[float, float] | None = None) -> bytes:
    """The remnant as a bar over each denominator that is known, with its thresholds as marked lines. A PNG.

    interval: of the FLR% over the measured liver, drawn over the first bar; None where there is none.
    """
    judged = assessment.judged()
    with_threshold = {threshold.over for threshold, _, _ in judged} | {Denominator.MEASURED}
    rows = [over for over in Denominator if over in with_threshold and not np.isnan(assessment.flr_percent(over))]
    figure = _figure(7.2, 0.32 + 0.62 * max(len(rows), 1))
    figure.set_facecolor("white")
    axes = figure.add_axes((0.03, 0.27 / figure.get_figheight(), 0.94, 1 - 0.3 / figure.get_figheight()))
    for number, over in enumerate(rows):
        percent = assessment.flr_percent(over)
        axes.barh(-number, 100, 0.34, color="white", edgecolor="#555555", linewidth=0.8, hatch="////", alpha=0.6)
        axes.barh(-number, min(percent, 100), 0.34, color="#1f6b4a")
        axes.text(0, 0.23 - number, f"{percent:.1f} % of {over.value}", fontsize=8, fontweight="bold", va="bottom")
        if interval is not None and over is Denominator.MEASURED:
            low, high = (100 * end for end in interval)
            for colour, width in (("white", 5), ("black", 2)):  # legible on the bar and beside it
                axes.errorbar(
                    (low + high) / 2, -number, xerr=(high - low) / 2, color=colour, capsize=5, capthick=width, linewidth=width
                )
        placed = sorted({(t.percent, t.source.split(",")[0]) for t, _, _ in judged if t.over is over})
        for least in sorted({p for p, _ in placed}):
            axes.plot([least] * 2, [-0.27 - number, 0.19 - number], color="black", linewidth=1.6, linestyle=(0, (2, 1)))
        words = "; ".join(f"{p:g} % {source}" for p, source in placed)
        axes.text(100, 0.23 - number, words, fontsize=7, va="bottom", ha="right")
    axes.set_xlim(0, 100)
    axes.set_ylim(-max(len(rows), 1) + 0.62, 0.6)
    axes.set_xticks(range(0, 101, 10), [f"{p} %" for p in range(0, 101, 10)], fontsize=7)
    axes.tick_params(length=2)
    axes.set_yticks([])
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=170, format="png")
    return buffer.getvalue()


def write_picture(path: Path, ct: CT, images: Sequence[KeyImage], volumes: Volumes) -> None:
    """A PNG of the key images in a row and the volumes in words. Raises: OutputError where it cannot be written."""
    dpi, gap, title, caption = 150, 20, 36, 60  # pixels
    heights, widths = zip(*(image.rgb.shape[:2] for image in images), strict=True)
    across, down = sum(widths) + gap * (len(images) + 1), max(heights) + title + caption + gap
    figure = _figure(across / dpi, down / dpi)
    figure.set_dpi(dpi)
    x = gap
    for image, height, width in zip(images, heights, widths, strict=True):
        y = gap + (max(heights) - height) // 2
        figure.figimage(image.rgb, x, y)
        figure.text((x + width / 2) / across, (y + height + 8) / down, image.title, color="white", fontsize=9, ha="center")
        x += width + gap
    figure.text(
        0.5,
        1 - caption / 2 / down,
        shown(_caption(ct, volumes)),
        color="white",
        fontsize=10,
        ha="center",
        va="center",
        fontfamily=families(),
    )
    with replacing(path) as beside:
        figure.savefig(beside, dpi=dpi, facecolor="black", format="png")


def _draw(axes: Axes, view: View) -> None:
    height, width = (n * s for n, s in zip(view.label.shape, view.spacing_mm, strict=True))
    extent = (0.0, width, height, 0.0)
    low, high = WINDOW_HU
    axes.imshow(view.hu, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
    columns, rows = _centres(view.label.shape, view.spacing_mm)
    with mpl.rc_context({"hatch.linewidth": 0.5}):
        for compartment, (line, thickness, hatch) in _STYLES.items():
            mask = view.label == compartment
            if compartment in (Compartment.REMNANT, Compartment.RESECTION):  # of the side: a metastasis is drawn over it
                mask |= view.label == (
                    Compartment.CRLM_IN_REMNANT if compartment is Compartment.REMNANT else Compartment.CRLM_IN_RESECTION
                )
            if not mask.any():
                continue
            colour = _colour(compartment)
            if hatch:
                filled = axes.contourf(columns, rows, mask, [0.5, 1.5], colors="none", hatches=[hatch])
                filled.set_edgecolor((*colour, 0.7))
                filled.set_linewidth(0.0)
            axes.contour(columns, rows, mask, [0.5], colors=[colour], linewidths=thickness, linestyles=[line])
    for name, vein in view.veins.items():
        if vein.any():
            line = "dotted" if "portal" in name else "solid"
            axes.contour(columns, rows, vein, [0.5], colors="#7fd4ff", linewidths=1.0, linestyles=line)
    for line, remnant in zip(_LINES, view.others.values(), strict=False):
        _draw_cut(axes, columns, rows, view.label > 0, remnant, line)
    for compartment, text in ((Compartment.REMNANT, "FLR"), (Compartment.RESECTION, "resection")):
        mask = view.label == compartment
        if np.count_nonzero(mask) * view.spacing_mm[0] * view.spacing_mm[1] > 400:  # room for the word
            deepest = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=view.spacing_mm)[1:-1, 1:-1].argmax()
            row, column = divmod(int(deepest), mask.shape[1])
            _write(axes, float(columns[column]), float(rows[row]), text, "white", "black", 9)
    for number, (y, x) in view.lesions.items():
        _write(axes, (x + 0.5) * view.spacing_mm[1], (y + 0.5) * view.spacing_mm[0], str(number), "white", "black", 9)
    _letters(axes, view.letters, "white", "black")
    _scale(axes, extent, "white", "black")
    axes.set_axis_off()


def _draw_cut(axes: Axes, columns: NDArray[Any], rows: NDArray[Any], liver: Mask, remnant: Mask, line: Any) -> None:
    """The cut of another plan: the part of its remnant's outline inside this liver."""
    if not (liver & remnant).any() or not (liver & ~remnant).any():
        return
    signed = np.where(liver & remnant, 1.0, -1.0)
    inside = ndimage.binary_erosion(liver, iterations=2)
    axes.contour(columns, rows, np.ma.masked_array(signed, ~inside), [0.0], colors="white", linewidths=1.3, linestyles=[line])


def _colour(compartment: Compartment) -> tuple[float, float, float]:
    """Its colour, half way to white, so that it stands out of the liver in grey as well."""
    r, g, b = APPEARANCE[compartment].rgb
    return 0.5 + r / 510, 0.5 + g / 510, 0.5 + b / 510


def _around(
    label: NDArray[np.uint8], spacing_mm: tuple[float, ...], margin_mm: float = MARGIN_MM
) -> tuple[slice, slice, slice]:
    """The bounding box of what is not 0, and a margin of a voxel at least; all of an empty map."""
    cuts = []
    for axis, (size, spacing) in enumerate(zip(label.shape, spacing_mm, strict=True)):
        hit = np.flatnonzero(label.any(axis=tuple({0, 1, 2} - {axis})))
        margin = max(1, round(margin_mm / spacing))  # else what lies in one thick slice has no outline
        cuts.append(slice(max(0, int(hit[0]) - margin), min(size, int(hit[-1]) + 1 + margin)) if hit.size else slice(0, size))
    return cuts[0], cuts[1], cuts[2]


def _most(label: NDArray[np.uint8], axis: int) -> int:
    """The slice across an axis where most faces lie between the two sides; without any, most of the liver; else the middle one."""
    others = tuple({0, 1, 2} - {axis})
    remnant = np.isin(label, [Compartment.REMNANT, Compartment.CRLM_IN_REMNANT])
    resection = np.isin(label, [Compartment.RESECTION, Compartment.CRLM_IN_RESECTION])
    count = np.zeros(label.shape[axis], int)
    for along in others:
        one, two = np.moveaxis(remnant, along, 0), np.moveaxis(resection, along, 0)
        faces = one[1:] & two[:-1] | two[1:] & one[:-1]
        count += np.count_nonzero(np.moveaxis(faces, 0, along), axis=others)
    if not count.any():
        count = np.count_nonzero(label, axis=others)
    return int(count.argmax()) if count.any() else label.shape[axis] // 2


def _index(place_lps_mm: tuple[float, float, float], canonical: Canonical) -> NDArray[np.float64]:
    """A place as index ``(z, y, x)`` of the canonical array."""
    grid = canonical.target
    along = (np.asarray(place_lps_mm) - grid.origin_mm) @ grid.direction_matrix / np.asarray(grid.spacing_mm)
    return np.asarray(along[::-1], float)


def _centres(shape: tuple[int, ...], spacing_mm: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of the columns and rows in an image, mm."""
    rows, columns = ((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing_mm, strict=True))
    return columns, rows


def _write(axes: Axes, x: float, y: float, text: str, colour: str, around: str, size: float) -> None:
    axes.text(
        x, y, text, color=colour, fontsize=size, fontweight="bold", ha="center", va="center",
        path_effects=[withStroke(linewidth=2.2, foreground=around)], clip_on=True,
    )  # fmt: skip


def _letters(axes: Axes, letters: tuple[str, str], colour: str, around: str) -> None:
    for x, letter in zip((0.03, 0.97), letters, strict=True):
        axes.text(
            x, 0.5, letter, color=colour, fontsize=9, ha="center", va="center", transform=axes.transAxes,
            path_effects=[withStroke(linewidth=2, foreground=around)],
        )  # fmt: skip


def _scale(axes: Axes, extent: tuple[float, float, float, float], colour: str, around: str) -> None:
    """A bar of 50 mm with a tick every 10 mm, in the lower right corner."""
    right, bottom = extent[1] - 8, extent[2] - 6
    effects = [withStroke(linewidth=3, foreground=around)]
    axes.plot([right - _SCALE_MM, right], [bottom, bottom], color=colour, linewidth=1.5, path_effects=effects)
    for mm in range(0, _SCALE_MM + 1, _TICK_MM):
        axes.plot([right - mm] * 2, [bottom - 4, bottom], color=colour, linewidth=1, path_effects=effects)
    _write(axes, right - _SCALE_MM / 2, bottom - 9, f"{_SCALE_MM} mm", colour, around, 7)
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])


def _figure(width_in: float, height_in: float) -> Figure:
    figure = Figure(figsize=(width_in, height_in), facecolor="black")
    FigureCanvasAgg(figure)
    return figure


def _jpeg(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi, format="jpg", facecolor=figure.get_facecolor(), pil_kwargs={"quality": 85})
    return buffer.getvalue()


def _caption(ct: CT, volumes: Volumes) -> str:
    share = "undefined" if np.isnan(volumes.flr_fraction) else f"{100 * volumes.flr_fraction:.0f} % of the parenchyma"
    return (
        f"{ct.name}: liver {volumes.liver_ml:.0f} ml, metastases {volumes.crlm_ml:.0f} ml, FLR {volumes.flr_functional_ml:.0f} ml, "
        f"{share}, resection (hatched) {volumes.lrs_ml:.0f} ml. Research use only."
    )
