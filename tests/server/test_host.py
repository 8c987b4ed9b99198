from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from flrplan.errors import ImageError
from flrplan.server.host import IMAGE_ID, find_seg_writer, image_path, name_segments, with_image_id
from flrplan.server.studies import PlanningLocalDatastore


def test_the_id_travels_beside_the_path() -> None:
    assert with_image_id({"image": "case-1", "x": 2}, None) == {"image": "case-1", "x": 2, IMAGE_ID: "case-1"}
    with tempfile.NamedTemporaryFile(suffix=".nii.gz") as upload:
        assert with_image_id({"image": upload.name}, None)[IMAGE_ID] is None


def test_an_unknown_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no image .case-9. in this server's studies"):
        image_path({"image": "", IMAGE_ID: "case-9"}, PlanningLocalDatastore(str(tmp_path)))


def test_a_folder_of_dicom_beside_a_nifti_of_the_studies_is_not_it(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "0.dcm").touch()
    image = str(tmp_path / "case.nii.gz")
    assert image_path({"image": image, IMAGE_ID: "case"}, PlanningLocalDatastore(str(tmp_path))) == Path(image)


def test_a_file_of_the_working_folder_is_not_the_image_of_that_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "case").touch()
    (tmp_path / "case.nii.gz").write_bytes(b"an image")
    monkeypatch.chdir(tmp_path / "elsewhere")  # the host takes an id that exists as a path for that path
    found = image_path({"image": "case", IMAGE_ID: "case"}, PlanningLocalDatastore(str(tmp_path)))
    assert found == tmp_path.resolve() / "case.nii.gz"


def test_segments_are_named_by_the_values_that_are_present() -> None:
    listed = [{"name": n, "model_name": "plan"} for n in ("remnant", "resection", "crlm_in_resection", "crlm_in_remnant")]
    names = {"remnant": 1, "resection": 2, "crlm_in_resection": 3, "crlm_in_remnant": 4}
    request = {"label_info": listed}
    name_segments(request, {"label_names": names, "labels_present": ["remnant", "resection", "crlm_in_remnant"]})
    assert request["label_info"] is listed
    assert [(e["name"], e["idx"], e["model_name"]) for e in listed] == [
        ("remnant", 1, "plan"),
        ("resection", 2, "plan"),
        ("crlm_in_remnant", 4, "plan"),
    ]
    assert listed[2]["segmentAttribute"]["labelID"] == 4


def test_a_request_without_names_is_left_alone() -> None:
    request = {"label_info": None}
    name_segments(request, {"label_names": {"liver": 1}, "labels_present": ["liver"]})
    assert request == {"label_info": None}


def test_the_seg_writer_of_the_environment_is_found_without_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    find_seg_writer()
    assert os.environ["PATH"].split(os.pathsep) == ["/nowhere", str(Path(sys.executable).parent)]


def test_a_missing_seg_writer_is_told_and_nothing_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    find_seg_writer()
    assert "pip install dcmqi" in caplog.text
    assert os.environ["PATH"] == "/nowhere"
