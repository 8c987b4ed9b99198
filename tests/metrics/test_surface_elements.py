"""The area table: hand-computed neighbourhoods, and all 256 against surface-distance."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.metrics.surface_elements import TRIANGLES_BY_KIND, area_table_mm2

SPACING = (2.5, 0.7, 0.9)  # z, y, x


def test_all_outside_and_all_inside_have_no_surface():
    table = area_table_mm2(SPACING)
    assert table[0] == table[255] == 0.0
    assert (table[1:255] > 0).all()


def test_flat_face_is_one_voxel_face():
    table = area_table_mm2(SPACING)
    assert table[0b00001111] == pytest.approx(0.7 * 0.9)  # lower half in z: the face across z is y * x
    assert table[0b00110011] == pytest.approx(2.5 * 0.9)  # lower half in y
    assert table[0b01010101] == pytest.approx(2.5 * 0.7)  # lower half in x


def test_corner_is_the_triangle_through_three_edge_middles():
    z, y, x = (s / 2 for s in SPACING)
    by_hand = 0.5 * np.linalg.norm(np.cross([-z, y, 0], [-z, 0, x]))
    for corner in range(8):
        assert area_table_mm2(SPACING)[1 << corner] == pytest.approx(by_hand)


def test_kinds_cover_all_codes_without_contradiction():
    assert len(TRIANGLES_BY_KIND) == 14
    assert area_table_mm2((1.0, 1.0, 1.0)).shape == (256,)


def test_all_codes_agree_with_surface_distance():
    upstream = pytest.importorskip("surface_distance.lookup_tables")
    for spacing in (SPACING, (1.0, 1.0, 1.0), (7.5, 0.61, 0.98)):
        theirs = upstream.create_table_neighbour_code_to_surface_area(spacing)
        # Their first corner is the highest bit: the byte is mirrored.
        mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
        np.testing.assert_allclose(area_table_mm2(spacing), theirs[mirrored], rtol=1e-12)
