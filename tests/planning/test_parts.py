"""Parts, metastases and margins of planning maps, by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from flrplan.image import Geometry
from flrplan.metrics.cut import Fate
from flrplan.planning.parts import parts_of, plan_findings, vessel_of

GRID = Geometry((30, 20, 10), (1.0, 2.0, 5.0), (100.0, 200.0, 300.0))  # voxels of 0.01 ml
VOXEL_ML = 0.01


@pytest.fixture
def label() -> np.ndarray:
    """Remnant for x < 15, resection beyond; a metastasis on each side and a wedge without one in the remnant."""
    label = np.zeros(GRID.shape_zyx, np.uint8)
    label[1:9, 1:19, 1:15] = 1
    label[1:9, 1:19, 15:29] = 2
    label[4:6, 8:12, 20:24] = 3  # 2 x 4 x 4 voxels, its surface 5 mm right of the cut
    label[7, 15, 3] = 4
    label[1:3, 1:8, 1:9] = 2  # 2 x 7 x 8 voxels: 1.12 ml
    return label


def test_parts_lesions_and_margin_by_hand(label: np.ndarray) -> None:
    parts = parts_of(label, GRID)
    assert [(round(p.volume_ml, 4), p.lesions) for p in parts.resection] == [(8 * 18 * 14 * VOXEL_ML, (1,)), (1.12, ())]
    assert [(round(p.volume_ml, 4), p.lesions) for p in parts.remnant] == [(8 * 18 * 14 * VOXEL_ML - 1.12, (2,))]
    large, small = parts.lesions
    assert (large.fate, small.fate) == (Fate.RESECTED, Fate.LEFT)
    assert large.volume_ml == pytest.approx(32 * VOXEL_ML)
    assert large.diameter_mm == pytest.approx(math.hypot(5, 6, 3)), "between centres: 1 slice, 3 rows, 3 columns"
    assert large.centre_lps_mm == (100 + 21.5, 200 + 2 * 9.5, 300 + 5 * 4.5)
    assert large.margin_mm == pytest.approx(5.0), "from the face at x = 19.5 to the cut at x = 14.5"
    assert large.nearest_lps_mm is not None
    assert large.nearest_lps_mm[0] == 114.5
    assert (small.diameter_mm, small.nearest_lps_mm) == (0.0, None)
    assert math.isnan(small.margin_mm)
    assert parts.closest is large
    report = json.loads(json.dumps(parts.to_json(), allow_nan=False))
    assert report["smallest_margin"] == {"mm": 5.0, "lesion": 1, "nearest_lps_mm": list(large.nearest_lps_mm)}
    assert report["lesions"][1]["margin_mm"] is None
    assert (report["lesions"][0]["diameter_mm"], report["lesions"][0]["fate"]) == (8.37, "resected")


def test_findings_name_what_to_look_at(label: np.ndarray) -> None:
    label[:] = np.repeat(label, 1, axis=0)
    findings = plan_findings(parts_of(label, Geometry(GRID.size_xyz, (2.0, 2.0, 5.0))))  # voxels of 0.02 ml: the wedge has 2.24
    assert findings == [
        "no metastasis is seen in 1 of the parts of the resection (2.2 ml): one that vanished under chemotherapy, or one missed, or no "
        "reason to resect",
        "metastases left in the remnant: 1 (0.0 ml): a second stage, ablation, or a part of the resection that was missed",
    ]
    crumbs = plan_findings(parts_of(label, GRID))
    assert crumbs[0] == "1 of 2 parts of the resection are smaller than 2 ml"


def test_a_remnant_in_two_and_a_lesion_cut_through() -> None:
    label = np.full(GRID.shape_zyx, 1, np.uint8)
    label[:, :, 10:20] = 2
    label[5, 10, 8:10] = 4
    label[5, 10, 10:14] = 3
    parts = parts_of(label, GRID)
    (lesion,) = parts.lesions
    assert (lesion.fate, lesion.margin_mm) == (Fate.CUT_THROUGH, 0.0)
    assert parts.closest is lesion
    assert {"the remnant is not connected: parts of 20 and 20 ml", "metastases cut through: 1 (0.1 ml): move the cut"} <= {
        *plan_findings(parts)
    }


def test_maps_without_a_cut() -> None:
    nothing = np.zeros(GRID.shape_zyx, np.uint8)
    assert plan_findings(parts_of(nothing, GRID)) == []
    assert parts_of(nothing, GRID).to_json()["smallest_margin"] is None
    for value, empty in ((2, "the remnant is empty"), (1, "the resection is empty")):
        label = np.full(GRID.shape_zyx, value, np.uint8)
        label[3:5, 3:5, 3:5] = value + (1 if value == 2 else 3)
        parts = parts_of(label, GRID)
        assert plan_findings(parts)[0] == empty
        assert math.isnan(parts.lesions[0].margin_mm), "without a cut there is no margin"


@pytest.mark.parametrize("radius_mm", [6.0, 14.0])
def test_a_sphere_has_its_diameter_and_a_half_space_its_margin(radius_mm: float) -> None:
    grid = Geometry((48, 48, 24), (0.9, 0.9, 1.7))
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(grid.shape_zyx, grid.spacing_zyx_mm, strict=True)), indexing="ij")
    label = np.where(x < 4.05, 1, 2).astype(np.uint8)  # the cut lies between x = 3.6 and 4.5
    label[(z - 20) ** 2 + (y - 21) ** 2 + (x - 25) ** 2 <= radius_mm**2] = 3
    (lesion,) = parts_of(label, grid).lesions
    assert lesion.diameter_mm == pytest.approx(2 * radius_mm, abs=0.9)
    assert lesion.volume_ml == pytest.approx(4 / 3 * np.pi * radius_mm**3 / 1000, rel=0.03)
    assert lesion.margin_mm == pytest.approx(25 - radius_mm - 4.05, abs=0.9)


def test_veins_are_kept_cut_or_apart(label: np.ndarray) -> None:
    vein = np.zeros(GRID.shape_zyx, np.bool_)
    vein[4, 10, 2:12] = True  # in the remnant, its last face at x = 11.5, the cut at 14.5
    vein[0, 0, 0] = True
    apart = vessel_of("portal veins", vein, label, GRID)
    assert (apart.remnant_ml, apart.resection_ml, apart.outside_ml) == pytest.approx((0.1, 0.0, 0.01))
    assert apart.distance_mm == pytest.approx(3.0)
    vein[4, 10, 2:20] = True
    through = vessel_of("portal veins", vein, label, GRID)
    assert (through.remnant_ml, through.resection_ml, through.distance_mm) == pytest.approx((0.13, 0.05, 0.0))
    none = vessel_of("hepatic veins", np.zeros_like(vein), label, GRID)
    assert none.to_json() == {"name": "hepatic veins", "remnant_ml": 0, "resection_ml": 0, "outside_ml": 0, "distance_mm": None}
