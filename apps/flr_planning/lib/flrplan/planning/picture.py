"""The key images of a plan: CT with the compartments outlined, axial and coronal, and the volumes in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from flrplan.anatomy import APPEARANCE, Compartment
from flrplan.files import replacing
from flrplan.image import CT, Canonical
from flrplan.planning.volumetry import Volumes

WINDOW_HU = (-140.0, 260.0)
"""Soft-tissue window: width 400, level 60."""
AXIAL_COUNT = 3


def write_picture(path: Path, ct: CT, label_zyx: NDArray[np.uint8], volumes: Volumes) -> None:
    """A PNG of three axial and one coronal slice through the liver, radiological view (the patient's right on the left).

    An empty map gives the middle slices without outlines. Raises: OutputError where it cannot be written.
    """
    canonical = Canonical.of(ct.geometry)
    image, label = canonical.forward(ct.array_zyx), canonical.forward(label_zyx)
    z_mm, y_mm, x_mm = canonical.target.spacing_zyx_mm
    figure = Figure(figsize=(4 * (AXIAL_COUNT + 1), 4.6), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, AXIAL_COUNT + 1)
    liver_z = np.flatnonzero((label > 0).any(axis=(1, 2)))
    low, high = (int(liver_z[0]), int(liver_z[-1])) if liver_z.size else (0, image.shape[0] - 1)
    for axis, part in zip(axes[:-1], np.linspace(0.7, 0.3, AXIAL_COUNT), strict=True):
        z = round(low + part * (high - low))
        _draw(axis, image[z], label[z], (y_mm, x_mm), f"axial, slice {z + 1} of {image.shape[0]}")
    liver_y = np.count_nonzero(label, axis=(0, 2))
    y = int(liver_y.argmax()) if liver_y.any() else image.shape[1] // 2
    _draw(axes[-1], image[::-1, y], label[::-1, y], (z_mm, x_mm), "coronal")
    figure.suptitle(_caption(ct, volumes), color="white", fontsize=11)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=100, facecolor="black", format="png")


def _draw(axis: Axes, hu: NDArray[np.generic], label: NDArray[np.uint8], spacing_mm: tuple[float, float], title: str) -> None:
    height, width = hu.shape
    extent = (0.0, width * spacing_mm[1], height * spacing_mm[0], 0.0)
    axis.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent, interpolation="bilinear")
    overlay = np.zeros((height, width, 4))
    for compartment in Compartment:
        mask = label == compartment
        if mask.any():
            overlay[mask] = (*(c / 255 for c in APPEARANCE[compartment].rgb), 0.25)
            overlay[mask & ~ndimage.binary_erosion(mask)] = (*(c / 255 for c in APPEARANCE[compartment].rgb), 0.9)
    axis.imshow(overlay, extent=extent, interpolation="nearest")
    axis.set_title(title, color="white", fontsize=9)
    axis.set_axis_off()


def _caption(ct: CT, volumes: Volumes) -> str:
    share = "undefined" if np.isnan(volumes.flr_fraction) else f"{100 * volumes.flr_fraction:.0f} % of the parenchyma"
    return (
        f"{ct.name}: liver {volumes.liver_ml:.0f} ml, metastases {volumes.crlm_ml:.0f} ml, "
        f"FLR (green) {volumes.flr_functional_ml:.0f} ml, {share}, resection (red) {volumes.lrs_ml:.0f} ml. Research use only."
    )
