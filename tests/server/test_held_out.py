"""Held-out cases never train from the viewer: by the id of the image or the PatientID, and by a split file nobody named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.interfaces.exception import MONAILabelException
from pydicom.dataset import Dataset

from flrplan.cohort import SyntheticCase
from flrplan.image import Geometry
from flrplan.image.dicom_write import write_dicom_series
from flrplan.learning import RetrainingFolder, read_annotations
from flrplan.learning.stage_training import RECORD_NAME
from flrplan.server.annotations import annotated_images
from flrplan.server.dicomweb import PlanningDICOMWebDatastore
from flrplan.server.durable import DurableDatastore
from flrplan.server.held_out import split_of, warning_of

PATIENT = "CRLM-CT-1007"
SERIES = "1.2.3"


class OneSeries:
    """A DICOMweb server with one CT series, which states a PatientID only where it is asked for."""

    base_url = "http://dicomweb.invalid"

    def search_for_series(self, search_filters: dict[str, str], fields: list[str] | None = None) -> list[dict[str, Any]]:
        series = Dataset()
        series.StudyInstanceUID, series.SeriesInstanceUID, series.Modality = "1.1", SERIES, "CT"
        if fields:
            series.PatientID = PATIENT
        return [series.to_json_dict()]


@pytest.fixture
def dicomweb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanningDICOMWebDatastore:
    """Its one series is labelled, and in the cache as DICOM files."""
    store = PlanningDICOMWebDatastore(OneSeries(), {"Modality": "CT"}, str(tmp_path / "cache"), convert_to_nifti=False)
    folder = Path(store._datastore.image_path(), SERIES)
    write_dicom_series(folder, np.zeros((3, 4, 4), np.int16), Geometry((4, 4, 3), (1.0, 1.0, 5.0)), PATIENT, "test")
    monkeypatch.setattr(PlanningDICOMWebDatastore, "get_labeled_images", lambda _: [SERIES])
    monkeypatch.setattr(PlanningDICOMWebDatastore, "forget_lists", lambda _: None)
    return store


def test_a_series_is_held_out_by_its_patient(dicomweb: PlanningDICOMWebDatastore, tmp_path: Path) -> None:
    images, _ = annotated_images(dicomweb)
    assert images[0].patients == {PATIENT}
    found = read_annotations(images, tmp_path / "masks", [PATIENT, "CRLM-CT-1008"])
    assert [(e.case_id, e.reason) for e in found.left_out] == [(SERIES, f"held out by the split file (PatientID {PATIENT})")]
    assert found.held_out == {PATIENT, "CRLM-CT-1008", SERIES}


def test_a_split_of_other_cases_is_told(dicomweb: PlanningDICOMWebDatastore) -> None:
    split = Path("splits.json")
    for fits in ([PATIENT, "another"], [SERIES], []):
        assert warning_of(split, fits, dicomweb) is None
    warning = warning_of(split, ["case_7", "case_6"], dicomweb)
    assert warning is not None
    assert warning.startswith("splits.json calls 2 ids test (such as case_6), but none is the id or the PatientID of an image")


def test_where_a_split_file_is_looked_for(tmp_path: Path) -> None:
    images, beside = tmp_path / "W" / "images", tmp_path / "W" / "splits.json"
    images.mkdir(parents=True)
    assert split_of(None, str(images)) is None
    beside.write_text("{}")
    assert split_of(None, str(images)) == beside
    assert split_of(None, f"{images}/") == beside
    assert split_of(tmp_path / "given.json", str(images)) == tmp_path / "given.json"
    assert split_of(None, str(tmp_path / "W" / "other")) is None
    (images / "splits.json").write_text("{}")
    assert split_of(None, str(images)) == images / "splits.json"
    assert split_of(None, "http://127.0.0.1/dicom-web") is None


@pytest.mark.parametrize("fits", [True, False])
def test_the_split_file_of_a_work_folder_is_used_unasked(
    fits: bool,
    tmp_path: Path,
    cases: list[SyntheticCase],
    make_studies: Callable[[Path], Path],
    make_app: Callable[..., Any],
    write_image: Callable[..., Path],
) -> None:
    studies, first = make_studies(tmp_path / "W" / "images"), cases[0]
    (tmp_path / "W" / "splits.json").write_text(json.dumps({"test": [first.case_id if fits else "another"], "folds": []}))
    (tmp_path / "models").mkdir()
    app = make_app(studies, {"device": "cpu", "models": str(tmp_path / "models")})
    label = write_image(tmp_path / "label.nii.gz", first.planning_zyx, first.geometry)
    spleen = {"label_info": [{"name": "spleen", "idx": 1}]}
    DurableDatastore.save_label(
        app.datastore(), first.case_id, str(label), "final", spleen
    )  # unchecked, as earlier versions did
    with pytest.raises(MONAILabelException, match="stage liver: 0 cases can train it"):
        app.train({"model": "liver"})
    record = json.loads((RetrainingFolder(tmp_path / "models").stage("liver") / RECORD_NAME).read_text())
    assert (record["left_out"][0]["reason"] == "held out by the split file") is fits
    assert [w[:40] for w in record["warnings"]] == ([] if fits else ["splits.json calls 1 ids test (such as an"])
