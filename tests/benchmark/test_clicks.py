"""The simulated clicks of ``benchmark/clicks.py``, on arrays; the networks have no part in them."""

from __future__ import annotations

import numpy as np
import pytest

from clicks import clicked, middle, stroke, summary
from flrplan.anatomy import Structure
from flrplan.image import CT, Geometry

GRID = Geometry((30, 28, 12), (2.0, 2.0, 4.0))


def test_a_click_lies_in_the_middle_and_a_stroke_along_the_longest_row() -> None:
    piece = np.zeros(GRID.shape_zyx, bool)
    piece[2:7, 4:13, 6:15] = True
    piece[4, 8, 6:25] = True
    assert middle(piece, GRID.spacing_zyx_mm).tolist() == [[4, 8, 10]]
    assert stroke(piece).tolist() == [[4, 8, x] for x in range(6, 25)]


def test_a_missed_metastasis_is_scored_before_and_after_each_click() -> None:
    liver, lesion = np.zeros((2, *GRID.shape_zyx), bool)
    liver[1:11, 2:26, 2:28] = True
    lesion[4:8, 8:16, 8:16] = True
    noise = np.random.default_rng(1).normal(0, 5, GRID.shape_zyx)
    hu = (np.where(lesion, 50, np.where(liver, 110, -1000)) + noise).astype(np.int16)
    masks = {Structure.LIVER: liver, Structure.CRLM: np.zeros_like(liver), Structure.FLR: liver}
    scores, seconds = clicked(CT(hu, GRID, "a", "a"), masks, Structure.CRLM, lesion, lesion, None, strokes=False)
    assert (scores[0], len(scores)) == (0, 6)
    assert min(scores[1:]) > 0.8
    assert max(seconds) < 2
    rows = [
        {"what": "crlm", "ml": 4.1, "dice": scores, "cpu_seconds": seconds},
        {"what": "crlm", "ml": 1.0, "dice": [0.0] * 6, "cpu_seconds": [0.5]},
    ]
    found = {group["what"]: group for group in summary(rows)}
    assert set(found) == {"crlm 1-5 ml", "crlm"}
    assert found["crlm"]["dice"][1] == pytest.approx(scores[1] / 2, abs=1e-3)
