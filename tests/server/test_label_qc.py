"""The scoring method: worse labels score higher, nothing is read twice, and a thread does the host's calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.interfaces.datastore import DefaultLabelTag
from numpy.typing import NDArray

from flrplan.anatomy import Compartment
from flrplan.cohort import SyntheticCase
from flrplan.server import label_qc
from flrplan.server.durable import DurableDatastore
from flrplan.server.label_qc import METHOD, UNREADABLE, LabelQc
from flrplan.server.studies import PlanningLocalDatastore


@pytest.fixture
def datastore(tmp_path: Path, make_studies: Callable[[Path], Path]) -> PlanningLocalDatastore:
    return PlanningLocalDatastore(str(make_studies(tmp_path / "studies")))


@pytest.fixture
def save(datastore: PlanningLocalDatastore, tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., None]:
    """Stores a planning map as the ``final`` label of a case."""
    named = [{"name": c.label_name, "idx": int(c)} for c in Compartment]

    def store(case: SyntheticCase, label: NDArray[np.uint8], names: list[dict[str, Any]] = named) -> None:
        file = write_image(tmp_path / "upload.nii.gz", label, case.geometry)
        datastore.save_label(case.case_id, str(file), DefaultLabelTag.FINAL, {"label_info": names})

    return store


def test_worse_labels_score_higher_and_are_read_once(
    datastore: PlanningLocalDatastore, cases: list[SyntheticCase], save: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = LabelQc()
    assert scoring({}, datastore) == {}
    good, bad = cases
    save(good, good.planning_zyx)
    wrong = bad.planning_zyx.copy()
    wrong[wrong == Compartment.REMNANT] = Compartment.RESECTION  # nothing remains
    save(bad, wrong)
    scores = scoring({}, datastore)
    assert 3.0 <= scores[bad.case_id] < UNREADABLE
    assert scores[good.case_id] < scores[bad.case_id]
    kept = datastore.get_image_info(bad.case_id)[METHOD]
    assert kept["errors"] >= 1
    assert "the FLR has no voxels: nothing would remain" in kept["messages"]
    monkeypatch.setattr(label_qc, "check_case", lambda case: pytest.fail("read again"))
    assert scoring({}, datastore) == scores
    monkeypatch.undo()
    save(bad, bad.planning_zyx)  # mended
    assert scoring({}, datastore)[bad.case_id] < scores[bad.case_id]


def test_a_label_that_cannot_be_read_scores_worst(
    datastore: PlanningLocalDatastore, case: SyntheticCase, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    file = write_image(tmp_path / "upload.nii.gz", case.planning_zyx, case.geometry)
    named = {"label_info": [{"name": "spleen", "idx": 1}]}
    DurableDatastore.save_label(datastore, case.case_id, str(file), "final", named)  # unchecked, as earlier versions did
    assert LabelQc()({}, datastore) == {case.case_id: UNREADABLE}
    assert "unknown label names" in datastore.get_image_info(case.case_id)[METHOD]["messages"][0]


def test_the_app_scores_in_a_thread_when_the_host_asks(
    tmp_path: Path,
    make_studies: Callable[[Path], Path],
    make_app: Callable[..., Any],
    cases: list[SyntheticCase],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app(make_studies(tmp_path / "studies"), {"device": "cpu"})
    looked: list[float] = []
    monkeypatch.setattr(label_qc, "annotated_images", lambda datastore: (looked.append(time.monotonic()) or [], 2))
    assert app.async_scoring(None) == {}
    deadline = time.monotonic() + 20
    while not looked and time.monotonic() < deadline:
        time.sleep(0.02)
    assert looked
    assert app.scoring({"method": METHOD}) == {}
    assert list(app.info()["scoring"]) == [METHOD, "case_scores"]
