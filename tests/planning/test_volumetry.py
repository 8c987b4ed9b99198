"""Volumes by hand: each with its own denominator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flrplan.planning import measure_volumes


def test_volumes_by_hand() -> None:
    # 30 remnant, 20 resected, 6 tumour in the resection, 4 tumour in the remnant, voxels of 0.5 ml
    label = np.zeros((4, 5, 5), np.uint8)
    label.ravel()[:60] = [1] * 30 + [2] * 20 + [3] * 6 + [4] * 4
    volumes = measure_volumes(label, 0.5)
    assert volumes.liver_ml == 30.0
    assert volumes.crlm_ml == 5.0
    assert volumes.functional_liver_ml == 25.0
    assert volumes.flr_ml == 17.0
    assert volumes.flr_functional_ml == 15.0
    assert volumes.lrs_ml == 13.0
    assert volumes.flr_fraction == pytest.approx(30 / 50)
    assert volumes.flr_of_liver == pytest.approx(34 / 60)
    assert volumes.describe() == "liver 30 ml, crlm 5.0 ml, FLR 15 ml (60.0 %); with the metastases left in it 17 ml"
    label[label == 4] = 1
    assert measure_volumes(label, 0.5).describe() == "liver 30 ml, crlm 3.0 ml, FLR 17 ml (63.0 %)"


def test_empty_map_has_no_fraction() -> None:
    volumes = measure_volumes(np.zeros((2, 2, 2), np.uint8), 1.0)
    assert volumes.liver_ml == 0.0
    assert math.isnan(volumes.flr_fraction)
    assert volumes.to_json()["flr_fraction"] is None


def test_a_liver_that_is_all_tumour_has_no_fraction() -> None:
    volumes = measure_volumes(np.full((2, 2, 2), 4, np.uint8), 1.0)
    assert math.isnan(volumes.flr_fraction)
    assert volumes.flr_of_liver == 1.0
