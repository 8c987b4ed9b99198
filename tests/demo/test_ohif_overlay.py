"""The comparison of what OHIF draws with what the server answered, on pictures made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from flrplan.anatomy import APPEARANCE, Compartment
from flrplan.demo.ohif.overlay import agreement, centre_of_overlay, compare, place_to_look, wrong_colors
from flrplan.demo.ohif.viewer_state import AxialPicture, Segment
from flrplan.image import Geometry

GRID = Geometry((20, 16, 4), (2.0, 2.0, 5.0), (-10.0, -20.0, 100.0))
Z = 2
# As the panel does: names in alphabetical order, the structures among them.
INDEX = {Compartment.CRLM_IN_REMNANT: 2, Compartment.CRLM_IN_RESECTION: 3, Compartment.REMNANT: 7, Compartment.RESECTION: 8}
SEGMENTS = [Segment("liver", 5, (221, 130, 101)), *(Segment(c.label_name, i, APPEARANCE[c].rgb) for c, i in INDEX.items())]


@pytest.fixture
def answer() -> NDArray[np.uint8]:
    """A liver on the left half of slice 2: 80 voxels of remnant above 70 of resection with 10 of metastasis; some in slice 1."""
    array = np.zeros(GRID.shape_zyx, np.uint8)
    array[Z, 0:8, 0:10] = Compartment.REMNANT
    array[Z, 8:16, 0:10] = Compartment.RESECTION
    array[Z, 10:12, 2:7] = Compartment.CRLM_IN_RESECTION
    array[1, 0:8, 0:10] = Compartment.REMNANT
    return array


def held(answer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    array = np.zeros_like(answer)
    for compartment, index in INDEX.items():
        array[answer == compartment] = index
    return array


def picture(answer: NDArray[np.uint8], magnified: int = 4) -> AxialPicture:
    """Slice 2, each voxel 4x4 pixels, the colours half transparent over a grey body."""
    shown = answer[Z].repeat(magnified, 0).repeat(magnified, 1)
    rgb = np.full((*shown.shape, 3), 120.0)
    for compartment in Compartment:
        inside = shown == compartment
        rgb[inside] = 0.5 * rgb[inside] + 0.5 * np.array(APPEARANCE[compartment].rgb)
    rows, columns = (np.mgrid[: shown.shape[0], : shown.shape[1]] + 0.5) / magnified - 0.5
    index_xyz = np.stack([columns, rows, np.full(shown.shape, float(Z))], axis=-1)
    world = GRID.world_mm(index_xyz.reshape(-1, 3)).reshape(*shown.shape, 3)
    return AxialPicture(rgb.astype(np.uint8), world)


def test_the_answer_in_ohifs_own_indices_is_the_answer(answer: NDArray[np.uint8]) -> None:
    assert compare(answer, GRID, held(answer), GRID, SEGMENTS) == []
    assert wrong_colors(SEGMENTS) == []


def test_differences_are_named(answer: NDArray[np.uint8]) -> None:
    other = held(answer)
    other[0, 0, 0:3] = 7
    assert compare(answer, GRID, other, GRID, SEGMENTS) == ["3 voxels in OHIF differ from the answer"]
    moved = replace(GRID, origin_mm=(-10.0, -20.0, 105.0))
    (wrong,) = compare(answer, GRID, held(answer), moved, SEGMENTS)
    assert "origin (-10.00, -20.00, 105.00)" in wrong
    (wrong,) = compare(answer, GRID, held(answer), GRID, SEGMENTS[:-1])
    assert wrong.startswith("OHIF has no segment resection; it has liver, ")
    pale = [replace(s, rgb=(224, 208, 176)) if s.name == "resection" else s for s in SEGMENTS]
    assert wrong_colors(pale) == ["resection is drawn in (224, 208, 176), expected (220, 40, 40)"]


def test_pixels_are_found_under_their_voxels(answer: NDArray[np.uint8]) -> None:
    seen = agreement(picture(answer), answer, GRID, SEGMENTS)
    assert seen == {"remnant": 1.0, "resection": 1.0, "crlm_in_resection": 1.0}
    x, y = centre_of_overlay(picture(answer))
    assert x == pytest.approx(0.25, abs=0.01)
    assert y == pytest.approx(0.5, abs=0.01)


def test_an_overlay_elsewhere_or_in_other_colours_is_not_the_answer(answer: NDArray[np.uint8]) -> None:
    mirrored = agreement(picture(answer[:, :, ::-1]), answer, GRID, SEGMENTS)
    assert max(mirrored.values()) == 0.0
    shown = picture(answer)
    swapped = agreement(AxialPicture(shown.rgb[..., ::-1], shown.world_mm), answer, GRID, SEGMENTS)
    assert swapped["resection"] == 0.0
    grey = AxialPicture(np.full_like(shown.rgb, 120), shown.world_mm)
    assert max(agreement(grey, answer, GRID, SEGMENTS).values()) == 0.0
    assert np.isnan(centre_of_overlay(grey)).all()


def test_the_place_to_look_at_is_a_compartment_in_the_fullest_slice(answer: NDArray[np.uint8]) -> None:
    x, y, z = (place_to_look(answer, GRID) - GRID.origin_mm) / GRID.spacing_mm
    assert z == pytest.approx(Z)
    assert answer[Z, round(y), round(x)] == Compartment.RESECTION  # 70 voxels: the smallest that is not mere outline
