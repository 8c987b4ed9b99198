"""A liver cut by the field of view, in padding, thick slices or an implausible volume: each is told, and only then."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.anatomy import Mask
from flrplan.image import CT, Geometry
from flrplan.qc import liver_in_view_findings

SHAPE = (20, 30, 40)


def ct_with(spacing_mm: tuple[float, float, float] = (5.0, 5.0, 5.0), direction: tuple[float, ...] | None = None) -> CT:
    geometry = Geometry((40, 30, 20), spacing_mm, direction=direction or (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return CT(np.zeros(SHAPE, np.int16), geometry, "case", "test", ())


def block(z: tuple[int, int] = (4, 16), y: tuple[int, int] = (5, 25), x: tuple[int, int] = (5, 35)) -> Mask:
    mask = np.zeros(SHAPE, bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask  # 12 x 20 x 30 voxels of 0.125 ml: 900 ml


def test_nothing_to_say_about_a_whole_liver() -> None:
    assert liver_in_view_findings(ct_with(), block()) == []


@pytest.mark.parametrize(
    ("mask", "side"),
    [
        (block(z=(8, 20)), "superior"),
        (block(z=(0, 12)), "inferior"),
        (block(x=(0, 30)), "right"),
        (block(y=(10, 30)), "posterior"),
    ],
)
def test_a_cut_liver_names_the_side(mask: Mask, side: str) -> None:
    assert any(f"cut by the field of view ({side})" in f for f in liver_in_view_findings(ct_with(), mask))


def test_sides_are_the_patients_also_for_flipped_axes() -> None:
    flipped = ct_with(direction=(-1, 0, 0, 0, 1, 0, 0, 0, -1))
    findings = liver_in_view_findings(flipped, block(z=(8, 20)))
    assert any("(inferior)" in f for f in findings)


def test_padding_thick_slices_and_implausible_volume() -> None:
    ct = ct_with()
    ct.array_zyx[4:6, 5:25, 5:35] = -2048
    assert any("150 ml of the liver mask lie in padding" in f for f in liver_in_view_findings(ct, block()))
    assert any("slices of 7.5 mm" in f for f in liver_in_view_findings(ct_with((5.0, 5.0, 7.5)), block()))
    assert any("outside 500 to 5000 ml" in f for f in liver_in_view_findings(ct_with(), block(x=(5, 8))))
