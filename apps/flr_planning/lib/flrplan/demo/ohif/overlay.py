"""Is what OHIF draws the answer of the server: the same voxels, at the same place, in the colours of their names?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flrplan.anatomy import APPEARANCE, Compartment
from flrplan.demo.ohif.viewer_state import AxialPicture, Segment
from flrplan.image import Geometry

COLORFUL = 10.0
"""Distance of an RGB pixel from grey, above which it is overlay; the CT itself is grey."""
MIN_PIXELS = 60
"""Segments with fewer pixels in the slice are mostly outline, drawn over their neighbours."""
MIN_AGREEMENT = 0.8
"""Dice of the pixels of a colour and the voxels of its segment; outlines (3 pixels wide) and magnification take the rest."""


def compare(
    answer_zyx: NDArray[np.uint8],
    answer_grid: Geometry,
    held_zyx: NDArray[np.uint8],
    held_grid: Geometry,
    segments: list[Segment],
) -> list[str]:
    """What differs between the server's answer (compartments) and what OHIF holds (its own indices, by name); empty if nothing."""
    index = {s.name: s.index for s in segments}
    missing = [c.label_name for c in Compartment if c.label_name not in index]
    if missing:
        return [f"OHIF has no segment {', '.join(missing)}; it has {', '.join(index) or 'none'}"]
    wrong = []
    if not answer_grid.is_same_grid(held_grid):
        wrong.append(f"OHIF's grid is {held_grid.describe()}, the answer's is {answer_grid.describe()}")
    expected = np.zeros_like(answer_zyx)
    for compartment in Compartment:
        expected[answer_zyx == compartment] = index[compartment.label_name]
    if not wrong and (held_zyx != expected).any():
        wrong.append(f"{np.count_nonzero(held_zyx != expected)} voxels in OHIF differ from the answer")
    return wrong


def wrong_colors(segments: list[Segment]) -> list[str]:
    """The compartments that OHIF draws in another colour than theirs."""
    return [
        f"{s.name} is drawn in {s.rgb}, expected {APPEARANCE[c].rgb}"
        for c in Compartment
        for s in segments
        if s.name == c.label_name and s.rgb != APPEARANCE[c].rgb
    ]


def place_to_look(answer_zyx: NDArray[np.uint8], grid: Geometry) -> NDArray[np.float64]:
    """A place (LPS mm) where there is much to see: in the slice with most compartments, in the smallest of them there."""
    counts = np.stack([np.count_nonzero(answer_zyx == c, axis=(1, 2)) for c in Compartment])
    visible = np.where(counts >= MIN_PIXELS, counts, 0)
    z = int(np.argmax((visible > 0).sum(axis=0) * 1e9 + visible.sum(axis=0)))
    sizes = {c: int(counts[i, z]) for i, c in enumerate(Compartment) if counts[i, z]}
    smallest = min(sizes, key=lambda c: (sizes[c] < MIN_PIXELS, sizes[c]))
    inside = np.argwhere(answer_zyx[z] == smallest)
    y, x = inside[np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()]
    return np.asarray(grid.world_mm(np.array([[x, y, z]], float))[0])


def agreement(
    picture: AxialPicture, answer_zyx: NDArray[np.uint8], grid: Geometry, segments: list[Segment]
) -> dict[str, float]:
    """Dice per name of the coloured pixels and the answer's voxels under them, for names with enough pixels in the slice."""
    rgb_of = {s.name: s.rgb for s in segments}
    under = _answer_under(picture, answer_zyx, grid)
    drawn = _drawn(picture.rgb, {int(c): rgb_of[c.label_name] for c in Compartment})
    result = {}
    for compartment in Compartment:
        expected = under == compartment
        if np.count_nonzero(expected) >= MIN_PIXELS:
            both = np.count_nonzero(expected & (drawn == compartment))
            result[compartment.label_name] = 2 * both / (np.count_nonzero(expected) + np.count_nonzero(drawn == compartment))
    return result


def centre_of_overlay(picture: AxialPicture) -> tuple[float, float]:
    """Centre of the coloured pixels as parts of the viewport's width and height, from its upper left; NaN if there are none."""
    rows, columns = np.nonzero(_distance_from_grey(picture.rgb) > COLORFUL)
    if not rows.size:
        return float("nan"), float("nan")
    height, width = picture.rgb.shape[:2]
    return float(columns.mean() / width), float(rows.mean() / height)


def _answer_under(picture: AxialPicture, answer_zyx: NDArray[np.uint8], grid: Geometry) -> NDArray[np.uint8]:
    index_xyz = np.rint((picture.world_mm - grid.origin_mm) @ grid.direction_matrix / grid.spacing_mm).astype(int)
    inside = ((index_xyz >= 0) & (index_xyz < grid.size_xyz)).all(axis=-1)
    under = np.zeros(inside.shape, np.uint8)
    x, y, z = index_xyz[inside].T
    under[inside] = answer_zyx[z, y, x]
    return under


def _drawn(rgb: NDArray[np.uint8], colors: Mapping[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """``(H, W) uint8``: whose colour each pixel has, 0 for grey. Over grey, a colour keeps its direction from grey."""
    offset = rgb.astype(float) - rgb.mean(axis=-1, keepdims=True)
    directions = np.array([np.subtract(c, np.mean(c)) / np.linalg.norm(np.subtract(c, np.mean(c))) for c in colors.values()])
    nearest = np.array(list(colors), np.uint8)[(offset @ directions.T).argmax(axis=-1)]
    return np.where(_distance_from_grey(rgb) > COLORFUL, nearest, 0).astype(np.uint8)


def _distance_from_grey(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(rgb - rgb.mean(axis=-1, keepdims=True), axis=-1))
