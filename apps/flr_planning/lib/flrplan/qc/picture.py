"""The picture of a finding: its axial and its coronal slice over the CT, with the structures outlined and the place in a box."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from flrplan.anatomy import APPEARANCE, Mask, Structure
from flrplan.qc.case import Box, QcCase
from flrplan.qc.finding import Finding

WINDOW_HU = (-140.0, 260.0)
_HEIGHT = 280
_DRAWN = (Structure.LIVER, Structure.LRS, Structure.FLR, Structure.CRLM)
_FILL = 0.22


def finding_png(case: QcCase, finding: Finding) -> bytes:
    """A PNG of the middle slices of the finding's place, axial and coronal, radiological view; of the liver's largest where it has none."""
    return _png(case, None if finding.box_zyx is None else case.canonical_box(finding.box_zyx))


def case_png(case: QcCase) -> bytes:
    """A PNG of the slices where the liver is largest, as :func:`finding_png`; the middle ones where it has none."""
    return _png(case, None)


def _png(case: QcCase, place: Box | None) -> bytes:
    grid = case.whole
    view = case.box if place is not None else _all(case)
    middle = _middle(case, place)
    z_mm, y_mm, x_mm = grid.spacing_zyx_mm
    panels = []
    for axis, mm in ((0, (y_mm, x_mm)), (1, (z_mm, x_mm))):
        cut = [view[a] if a != axis else slice(middle[a], middle[a] + 1) for a in range(3)]
        at = (cut[0], cut[1], cut[2])
        hu = None if grid.hu is None else grid.hu[at].squeeze(axis)
        masks = {s: grid.masks[s][at].squeeze(axis) for s in _DRAWN if s in grid.masks}
        rows = [a for a in range(3) if a != axis]
        box = None
        if place is not None:
            box = [(place[a].start - view[a].start, place[a].stop - view[a].start) for a in rows]
        panels.append(_panel(hu, masks, mm, box, flip=axis == 1))
    sheet = Image.new("RGB", (sum(p.width for p in panels) + 4, _HEIGHT))
    sheet.paste(panels[0], (0, 0))
    sheet.paste(panels[1], (panels[0].width + 4, 0))
    data = io.BytesIO()
    sheet.save(data, "PNG", optimize=True)
    return data.getvalue()


def _all(case: QcCase) -> Box:
    z, y, x = case.canonical.target.shape_zyx
    return slice(0, z), slice(0, y), slice(0, x)


def _middle(case: QcCase, place: Box | None) -> tuple[int, int, int]:
    """The voxel whose slices are shown."""
    if place is not None:
        z, y, x = ((cut.start + cut.stop - 1) // 2 for cut in place)
        return z, y, x
    shape = case.canonical.target.shape_zyx
    mask = case.whole.masks.get(Structure.LIVER, np.zeros((1, 1, 1), bool))
    if not mask.any():
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    return int(mask.sum((1, 2)).argmax()), int(mask.sum((0, 2)).argmax()), int(mask.sum((0, 1)).argmax())


def _panel(
    hu: NDArray[Any] | None,
    masks: dict[Structure, Mask],
    mm: tuple[float, float],
    box: list[tuple[int, int]] | None,
    flip: bool,
) -> Image.Image:
    rows, columns = hu.shape if hu is not None else next(iter(masks.values())).shape
    scale = _HEIGHT / (rows * mm[0])
    width = max(round(columns * mm[1] * scale), 8)
    at = np.ix_(_nearest(rows, _HEIGHT), _nearest(columns, width))
    low, high = WINDOW_HU
    gray = np.full((_HEIGHT, width), 40.0) if hu is None else np.clip((hu.astype(float)[at] - low) / (high - low), 0, 1) * 255
    rgb = np.repeat(gray[..., None], 3, 2)
    for structure, mask in masks.items():
        if not mask.any():
            continue
        colour = np.array(APPEARANCE[structure].rgb, float)
        large = mask[at]
        if structure is not Structure.LIVER or len(masks) == 1:
            rgb[large] = (1 - _FILL) * rgb[large] + _FILL * colour
        rgb[large & ~ndimage.binary_erosion(large)] = colour
    image = Image.fromarray((rgb[::-1] if flip else rgb).astype(np.uint8))
    if box is not None:
        (top, bottom), (left, right) = box
        y0, y1 = top / rows * _HEIGHT, bottom / rows * _HEIGHT
        if flip:
            y0, y1 = _HEIGHT - y1, _HEIGHT - y0
        x0, x1 = left / columns * width, right / columns * width
        edges = (max(x0 - 5, 0), max(y0 - 5, 0), min(x1 + 5, width - 1), min(y1 + 5, _HEIGHT - 1))
        ImageDraw.Draw(image).rectangle(edges, outline=(255, 255, 255), width=1)
    return image


def _nearest(count: int, pixels: int) -> NDArray[np.intp]:
    return np.minimum((np.arange(pixels) + 0.5) * count / pixels, count - 1).astype(np.intp)
