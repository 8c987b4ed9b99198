"""The task ``measure``: the numbers of a person's own label, with no network in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flrplan.anatomy import Compartment, Mask, PlanningLabel, Structure, structure_mask
from flrplan.cohort import SyntheticCase
from flrplan.errors import EmptyLiverError, LabelError
from flrplan.image import CT, Geometry
from flrplan.planning import measure_volumes
from flrplan.server.host import IMAGE_ID
from flrplan.server.measure import NAMES, MeasureTask, measure
from flrplan.server.studies import PlanningLocalDatastore

GRID = Geometry((20, 16, 10), (2.0, 2.0, 5.0))
"""A voxel has 0.02 ml."""


@pytest.fixture
def ct() -> CT:
    array = np.full(GRID.shape_zyx, -1000, np.int16)
    array[1:9, 2:14, 2:18] = 60
    return CT(array, GRID, "a", "the CT")


@pytest.fixture
def masks() -> dict[Structure, Mask]:
    found = {s: np.zeros(GRID.shape_zyx, bool) for s in (Structure.LIVER, Structure.CRLM, Structure.FLR)}
    found[Structure.LIVER][2:8, 4:12, 4:14] = True  # 480 voxels
    found[Structure.FLR][2:8, 4:12, 9:14] = True  # 240
    found[Structure.CRLM][4:6, 6:8, 5:7] = True  # 8, in the resection
    return found


def test_a_whole_plan_has_the_volumes_that_one_counts_by_hand(ct: CT, masks: dict[Structure, Mask]) -> None:
    array, names, params = measure(PlanningLabel(masks), ct)
    volumes = params["volumes"]
    assert {k: volumes[k] for k in ("liver_ml", "crlm_ml", "flr_ml", "lrs_ml")} == pytest.approx(
        {"liver_ml": 9.6, "crlm_ml": 0.16, "flr_ml": 4.8, "lrs_ml": 4.8}
    )
    assert volumes["flr_fraction"] == pytest.approx(240 / 472, abs=1e-5)
    assert params["lesions"][0]["margin_mm"] == pytest.approx(
        4.0
    )  # from the voxel's edge at x = 7 to the cut at x = 9, 2 mm each
    assert names == params["label_names"] == {"remnant": 1, "resection": 2, "crlm_in_resection": 3}
    assert np.array_equal(array == Compartment.CRLM_IN_RESECTION, masks[Structure.CRLM])
    assert (params["given"], params["predicted"], params["models"]) == (["liver", "crlm", "flr"], [], {})
    assert json.dumps(params, allow_nan=False)


def test_a_finding_of_the_label_is_told(ct: CT, masks: dict[Structure, Mask]) -> None:
    masks[Structure.FLR][0, 0, 0] = True
    warnings = measure(PlanningLabel(masks), ct)[2]["warnings"]
    assert "1 FLR voxels lie outside the liver and are not in the planning map" in warnings


def test_a_label_that_is_no_plan_yet_is_measured_as_far_as_it_goes(ct: CT, masks: dict[Structure, Mask]) -> None:
    del masks[Structure.FLR]
    array, names, params = measure(PlanningLabel(masks), ct)
    assert (params["volumes"]["liver_ml"], params["volumes"]["crlm_ml"]) == pytest.approx((9.6, 0.16))
    assert (params["volumes"]["flr_ml"], params["volumes"]["flr_fraction"]) == (None, None), "nothing is made up"
    assert names == {"liver": NAMES["liver"], "crlm": NAMES["crlm"]}
    assert np.array_equal(np.isin(array, list(names.values())), masks[Structure.LIVER])
    assert "no plan yet: the label does not state flr; draw it, or name it and leave it empty" in params["warnings"]
    masks[Structure.LIVER][:] = False
    with pytest.raises(EmptyLiverError, match="the liver in the final label of a has no voxels; draw it"):
        measure(PlanningLabel(masks), ct)


def test_the_stored_label_is_answered_in_the_format_that_was_asked_for(
    tmp_path: Path,
    make_studies: Callable[[Path], Path],
    case: SyntheticCase,
    write_slicer: Callable[..., Path],
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
) -> None:
    datastore = PlanningLocalDatastore(str(make_studies(tmp_path / "studies")))
    task = MeasureTask(datastore)
    request = {"image": datastore.get_image_uri(case.case_id), IMAGE_ID: case.case_id, "result_extension": ".nrrd"}
    with pytest.raises(
        LabelError, match=f"measure: image {case.case_id} has no final label. Draw the liver, .* submit the label$"
    ):
        task(request)
    with pytest.raises(LabelError, match="measure takes the stored label of an image of the studies"):
        task({**request, IMAGE_ID: None})
    drawn = {s.value: structure_mask(case.planning_zyx, s) for s in (Structure.LIVER, Structure.CRLM, Structure.FLR)}
    file = write_slicer(tmp_path / "up.seg.nrrd", case.geometry, drawn)
    datastore.save_label(case.case_id, str(file), "final", {})
    path, params = task(request)
    label, grid = read_image(path)
    Path(path).unlink()
    assert grid.is_same_grid(case.geometry)
    assert np.array_equal(label, case.planning_zyx)
    assert params["volumes"] == pytest.approx(  # NIfTI rounds the spacing
        measure_volumes(case.planning_zyx, case.geometry.voxel_volume_ml).to_json(), rel=1e-5
    )
