"""What clicks say, and what is no click."""

from __future__ import annotations

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.clicks import MarkSet, points_of
from flrplan.errors import LabelError

SHAPE = (10, 20, 30)


def test_a_point_is_column_row_slice() -> None:
    assert points_of([[29, 19, 9], [1.0, 2, 3]], "crlm", SHAPE).tolist() == [[9, 19, 29], [3, 2, 1]]
    assert points_of([], "crlm", SHAPE).shape == (0, 3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([[30, 0, 0]], r"crlm: point \[30, 0, 0\] lies beside the image, which has 30 x 20 x 10 voxels"),
        ([[0, 0, -1]], "lies beside the image"),
        ([[10**400, 0, 0]], "lies beside the image"),  # no float holds it
        ([[1, 2]], r"whole numbers from 0; point 1 is \[1, 2\]"),
        ([[1, 2, 3], [1, 2, 0.5]], "point 2 is"),
        ([[1, 2, float("nan")]], "point 1 is"),
        ([[1, 2, True]], "point 1 is"),
        ([[1, 2, "3"]], "point 1 is"),
        ("here", "expected voxels as"),
        ({"x": 1}, "expected voxels as"),
        ([None], "point 1 is None"),
    ],
)
def test_what_is_no_point_is_told(given: object, says: str) -> None:
    with pytest.raises(LabelError, match=says):
        points_of(given, "crlm", SHAPE)


def test_a_voxel_inside_and_outside_is_an_error_that_names_it() -> None:
    marks = MarkSet(SHAPE)
    marks.add_named("crlm", np.array([[3, 2, 1], [3, 2, 2]]))
    marks.add_named("remnant", np.array([[3, 2, 1]]))
    with pytest.raises(LabelError, match=r"voxel \[1, 2, 3\] .* inside and as outside of crlm; delete one"):
        marks.checked()


def test_names_say_what_their_voxels_are() -> None:
    marks = MarkSet(SHAPE)
    marks.add_named("remnant", np.array([[0, 0, 0]]))
    marks.deny("resection", np.array([[0, 0, 1]]))
    found = marks.checked()
    assert found[Structure.FLR].inside.tolist() == [[0, 0, 0], [0, 0, 1]], "not resection is remnant"
    assert found[Structure.CRLM].outside.tolist() == [[0, 0, 0]], "but not resection may be a metastasis"
    assert Structure.LIVER not in found
