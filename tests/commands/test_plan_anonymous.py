"""``flrplan plan --anonymize``: nothing of whose it is in what is written, printed, warned of and logged."""

from __future__ import annotations

import gzip
import json
import logging
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Mask, Structure
from flrplan.api.anonymous import Anonymizer, AnonymousLog, anonymous_request
from flrplan.cli import main
from flrplan.image import CT
from flrplan.image.dicom_write import SYNTHETIC_DESCRIPTION, write_dicom_series


def texts_below(folder: Path) -> str:
    """All that the files of a folder hold and are called, as text."""
    found = []
    for path in sorted(folder.rglob("*")):
        found.append(str(path.relative_to(folder)))
        if path.is_file():
            data = path.read_bytes()
            found.append((gzip.decompress(data) if path.suffix == ".gz" else data).decode("latin-1"))
    return "\n".join(found)


def test_an_anonymized_plan_says_nowhere_whose_it_is(
    tmp_path: Path,
    small_ct: CT,
    small_truth: dict[Structure, Mask],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    series = tmp_path / "Doering_Janine" / "dcm"
    for file in write_dicom_series(
        series, small_ct.array_zyx.astype(np.int16), small_ct.geometry, "MRN 4711", SYNTHETIC_DESCRIPTION
    ):
        slice_ = pydicom.dcmread(file)
        slice_.PatientName, slice_.StudyDate, slice_.PatientBirthDate = "Doering^Janine", "20260401", "19560203"
        slice_.PatientSize, slice_.PatientWeight = "1.7", "80"
        slice_.save_as(file)
    (series / "Janine.lost").write_bytes(b"")
    # six letters at least: shorter ones occur by chance in the pictures, which are base64
    secrets = [
        "Doering",
        "Janine",
        "MRN 4711",
        "20260401",
        "2026-04-01",
        "19560203",
        str(tmp_path),
        "Janine.lost",
        slice_.StudyInstanceUID,
    ]
    command = ["plan", str(series), "--out", str(tmp_path / "out"), "--device", "cpu", "--anonymize"]
    for structure in (Structure.LIVER, Structure.CRLM):  # fewer predictions, less time
        mask = str(tmp_path / f"Doering_{structure}.nii.gz")
        sitk.WriteImage(small_ct.geometry.image(small_truth[structure]), mask)
        command += [f"--{structure}", mask]
    segments = str(tmp_path / "Doering_segments.nii.gz")
    halves = np.where(small_truth[Structure.FLR], 2, 7) * small_truth[Structure.LIVER]
    sitk.WriteImage(small_ct.geometry.image(halves.astype(np.uint8)), segments)
    command += ["--liver-segments", segments]
    assert main(command) == 0
    said = "".join(capsys.readouterr())
    folder, = (tmp_path / "out").iterdir()  # fmt: skip
    assert re.fullmatch(r"case-[0-9a-f]{8}", folder.name)
    report = json.loads((folder / "plan.json").read_text())
    assert (report["case"], report["anonymized"], report["source"], report["date"]) == (folder.name, True, None, None)
    assert report["patient"] == {
        "id": None,
        "scan_date": None,
        "height_cm": 170.0,
        "weight_kg": 80.0,
        "height_and_weight": "DICOM header",
    }
    assert "1 files of the folder are not used (empty): [removed]; is a slice among them?" in report["warnings"]
    written = texts_below(tmp_path / "out")
    for secret in secrets:
        assert secret not in written
        assert secret not in said + caplog.text
    assert main(command) == 0
    assert "already planned, kept" in capsys.readouterr().err
    assert main([*command, "--raw"]) == 1
    again = capsys.readouterr().err
    assert "the plan there was made of something else" in again
    assert str(tmp_path) not in again
    logging.getLogger("flrplan").warning("%s is not there", series)  # the filter is gone after the command
    assert str(series) in caplog.text


def test_errors_of_an_anonymized_plan_name_no_patient_of_a_mixed_folder_or_a_prior(
    tmp_path: Path, small_ct: CT, capsys: pytest.CaptureFixture[str]
) -> None:
    series, hu = tmp_path / "dcm", small_ct.array_zyx.astype(np.int16)
    files = write_dicom_series(series, hu, small_ct.geometry, "MRN 4711", SYNTHETIC_DESCRIPTION)
    prior = tmp_path / "before.json"
    content = {"volumes": {"flr_functional_ml": 300.0}, "patient": {"id": "MRN 815", "scan_date": "2019-05-06"}}
    prior.write_text(json.dumps(content))
    command = ["plan", str(series), "--out", str(tmp_path / "out"), "--device", "cpu", "--anonymize"]
    assert main([*command, "--prior", str(prior)]) == 1
    said = capsys.readouterr().err
    assert "is of patient [removed], this CT of [removed]" in said
    assert "815" not in said
    last = pydicom.dcmread(files[-1])
    last.PatientID = "MRN 0815"
    last.save_as(files[-1])
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "holds slices of 2 patients (PatientID '[removed]', '[removed]')" in said
    assert "0815" not in said


def test_errors_of_an_anonymized_plan_do_not_describe_the_series(
    tmp_path: Path, small_ct: CT, capsys: pytest.CaptureFixture[str]
) -> None:
    hu, secret = small_ct.array_zyx[:4].astype(np.int16), "Liver of Mrs Doe"
    thin = replace(small_ct.geometry, size_xyz=(*small_ct.geometry.size_xyz[:2], 4))
    for folder in ("one", "two"):
        write_dicom_series(tmp_path / "dcm" / folder, hu, thin, "MRN 4711", secret)
    assert (
        main(
            ["plan", str(tmp_path / "dcm"), "--out", str(tmp_path / "out"), "--device", "cpu", "--anonymize", "--series", "1.2"]
        )
        == 1
    )
    said = capsys.readouterr().err
    assert "CT slices" in said
    assert "Doe" not in said


def test_warnings_of_an_anonymized_plan_show_no_value_of_a_header(
    tmp_path: Path, small_ct: CT, recwarn: pytest.WarningsRecorder
) -> None:
    thin = replace(small_ct.geometry, size_xyz=(*small_ct.geometry.size_xyz[:2], 4))
    for file in write_dicom_series(tmp_path / "ct", small_ct.array_zyx[:4].astype(np.int16), thin, "MRN 4711", "CT"):
        uid = pydicom.dcmread(file).StudyInstanceUID.encode()
        file.write_bytes(file.read_bytes().replace(uid, b"DOE.JOHN".ljust(len(uid), b".")))
    command = [
        "plan",
        str(tmp_path / "ct"),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--liver",
        str(tmp_path / "no.nii"),
    ]
    assert main(command) == 1
    assert any("DOE.JOHN" in str(w.message) for w in recwarn.list), "pydicom warns of it"
    recwarn.clear()
    assert main([*command, "--anonymize"]) == 1
    assert not [w for w in recwarn.list if "DOE" in str(w.message)]


def test_an_anonymous_request_is_the_same_where_a_version_knows_more_options() -> None:
    asked = {"ct": ["ct.nii.gz", 1, 2], "options": {"raw": False, "weeks": None}}
    more = {**asked, "options": {**asked["options"], "what_is_new": None}}
    assert anonymous_request(asked) == anonymous_request(more)
    assert anonymous_request(asked) != anonymous_request({**asked, "options": {"raw": True}})


def test_errors_of_an_anonymized_plan_name_no_file(tmp_path: Path, ct_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = ct_file.with_name("Jane Doe.nii.gz")
    bad.write_bytes(b"this is no image")
    assert main(["plan", str(bad), str(tmp_path / "Doe.nrrd"), "--out", str(tmp_path / "out"), "--anonymize"]) == 1
    said = capsys.readouterr().err
    assert "2 of 2 cases failed" in said
    assert "Doe" not in said
    assert str(tmp_path) not in said


def test_where_something_failed_is_logged_without_the_names_of_the_input(tmp_path: Path) -> None:
    clean = AnonymousLog(Anonymizer([tmp_path / "Jane Doe.nii.gz"]))
    try:
        raise ValueError(f"{tmp_path / 'Jane Doe.nii.gz'} is odd")
    except ValueError:
        record = logging.LogRecord("flrplan", logging.DEBUG, "", 0, "unexpected", None, sys.exc_info())
    assert clean.filter(record)
    said = logging.Formatter().format(record)
    assert "ValueError: [removed] is odd" in said
    assert "Doe" not in said
