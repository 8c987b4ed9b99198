"""Volumes by hand: each with its own denominator."""

from __future__ import annotations

import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flrplan.anatomy import Structure, structure_mask
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


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("volume_errors", Path(__file__).parents[2] / "benchmark" / "volume_errors.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["volume_errors"] = module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("slice_mm", [0.8, 2.5, 5.0, 7.5])
def test_a_half_space_in_slices_is_wrong_by_what_its_ends_fill(script: ModuleType, slice_mm: float) -> None:
    # a box of 40 mm through the slices, remnant its lower 16 mm: slices of the full box but the ones that hold its ends
    fine_mm = 0.1
    fine = np.zeros((600, 2, 2), np.uint8)
    fine[100:500], fine[100:260] = 2, 1
    for start_mm in (0.13 * slice_mm, 0.37 * slice_mm, 0.9 * slice_mm):
        label = script.sliced(fine, fine_mm, slice_mm, start_mm)
        low, high = (np.floor((at + start_mm) / slice_mm + 0.5) for at in (10.0, 26.0))  # the nearest borders of slices
        assert np.count_nonzero(label[:, 0, 0] == 1) == pytest.approx(high - low, abs=1e-9)
        every = script.sliced(fine, fine_mm, slice_mm, start_mm, 0.1)
        assert np.count_nonzero(structure_mask(every, Structure.FLR)[:, 0, 0]) >= high - low, "all that shows is no less"


def test_a_sphere_in_slices_holds_its_volume_and_all_that_shows_half_a_slice_more(script: ModuleType) -> None:
    fine_mm, radius, slice_mm = 0.5, 25.0, 5.0
    z, y, x = np.ogrid[-30:30:fine_mm, -30:30, -30:30]
    fine = np.where(z**2 + y**2 + x**2 <= radius**2, 1, 0).astype(np.uint8)
    sphere_ml = 4 / 3 * math.pi * radius**3 / 1000
    half, every = (
        np.count_nonzero(script.sliced(fine, fine_mm, slice_mm, 1.7, least)) * slice_mm / 1000 for least in (0.5, 0.1)
    )
    assert half == pytest.approx(sphere_ml, rel=0.02)
    # its outline seen along the slices is pi r^2; 0.4 of a slice more at both ends of every column
    assert every - half == pytest.approx(2 * 0.4 * slice_mm * math.pi * radius**2 / 1000, rel=0.1)


def test_a_synthetic_case_is_measured_at_every_spacing(script: ModuleType) -> None:
    truth = script.truth_of(5, 0)
    found = [script.measured("a", truth, mm, 0.4 * mm, way) for way in script.OUTLINED for mm in script.SPACINGS_MM]
    assert all(m.liver_ml > 500 and 0 < m.flr_ml < m.liver_ml for m in found)
    half, every = found[:4], found[4:]
    assert max(abs(m.flr_error_ml) for m in half) < 0.1 * half[-1].bound_ml
    assert every[1].liver_error_ml > 2 * every[0].liver_error_ml > 0, "slices 3 times as thick"
    assert len(script.table(found)) == 2 + 8
