"""``flrplan plan`` as a user runs it: files out, given masks, one bad case among good ones, nothing half written."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Mask, Structure, structure_mask
from flrplan.api import plan as api_plan
from flrplan.api.plan import patient_of_ct
from flrplan.cli import main
from flrplan.cohort import SyntheticCase
from flrplan.engine import DEMO_NOTE, MODEL_ROOT
from flrplan.image import CT, Geometry
from flrplan.image.dicom_write import SYNTHETIC_DESCRIPTION, write_dicom_series
from flrplan.planning import Plan, measure_volumes
from flrplan.planning.patient import Patient


def write_mask(path: Path, mask: Mask, geometry: Geometry) -> Path:
    sitk.WriteImage(geometry.image(mask), str(path))
    return path


@dataclass(frozen=True)
class Planned:
    """A case that was planned by a command, and what it said; nobody writes into ``out``."""

    ct: Path
    out: Path
    stdout: str
    stderr: str

    def again(self, out: Path, *options: str) -> list[str]:
        return ["plan", str(self.ct), "--out", str(out), "--device", "cpu", *options]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, small_ct: CT) -> Planned:
    """Planned between a file that is no image and one that is not there: neither stops the rest."""
    folder = tmp_path_factory.mktemp("planned")
    broken, ct = folder / "broken.nii.gz", folder / "patient.one.nii.gz"
    broken.write_bytes(b"this is no image")
    sitk.WriteImage(small_ct.geometry.image(small_ct.array_zyx), str(ct))
    command = ["plan", str(broken), str(folder / "nobody.nii.gz"), str(ct), "--out", str(folder / "out"), "--device", "cpu"]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        assert main(command) == 1
    return Planned(ct, folder / "out", out.getvalue(), err.getvalue())


def test_plan_writes_map_report_and_picture(planned: Planned, small_ct: CT) -> None:
    folder = planned.out / "patient.one"
    names = ["meshes", "plan.json", "plan.png", "planning.nii.gz", "report.html", "report.pdf"]
    assert sorted(p.name for p in folder.iterdir()) == names
    image = sitk.ReadImage(str(folder / "planning.nii.gz"))
    assert small_ct.geometry.is_same_grid(Geometry.of(image))
    report = json.loads((folder / "plan.json").read_text())
    volumes = measure_volumes(sitk.GetArrayFromImage(image), Geometry.of(image).voxel_volume_ml)
    assert report["volumes"] == pytest.approx(volumes.to_json(), rel=1e-5)
    assert report["inputs"] == {"liver": "predicted", "crlm": "predicted", "flr": "predicted"}
    assert report["demo_models"] is True
    assert DEMO_NOTE in report["warnings"]
    assert set(report["models"]) == {"liver", "crlm", "flr"}
    assert f"FLR {volumes.flr_functional_ml:.0f} ml" in planned.stdout
    assert "no DICOM SEG and SR: the CT is no DICOM series that they could refer to" in planned.stderr


def test_bad_and_missing_cases_do_not_stop_the_rest(planned: Planned) -> None:
    assert (planned.out / "patient.one" / "plan.json").is_file()
    assert "2 of 3 cases failed" in planned.stderr
    assert "broken.nii.gz" in planned.stderr
    assert "nobody.nii.gz: no such file" in planned.stderr


def test_a_planned_case_is_kept(planned: Planned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = planned.out / "patient.one" / "plan.json"
    before = report.read_bytes()
    assert main(planned.again(planned.out)) == 0
    assert report.read_bytes() == before
    assert "already planned, kept" in capsys.readouterr().err
    other = tmp_path / planned.ct.name  # another patient's file of the same name
    other.write_bytes(planned.ct.read_bytes())
    assert main(replace(planned, ct=other).again(planned.out)) == 1
    assert "the plan there was made of something else (ct" in capsys.readouterr().err
    assert report.read_bytes() == before


def test_a_plan_by_another_model_is_not_kept_in_silence_and_force_makes_it_again(
    planned: Planned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(planned.out, tmp_path / "out")
    report = out / "patient.one" / "plan.json"
    content = json.loads(report.read_text())
    content["models"]["liver"]["weights_sha256"] = {"0": "of before"}
    report.write_text(json.dumps(content))
    assert main(planned.again(out)) == 1
    assert "the plan there was made of something else (models.liver.0 was" in capsys.readouterr().err
    assert main(planned.again(out, "--force")) == 0
    assert json.loads(report.read_text())["models"]["liver"]["weights_sha256"]["0"] != "of before"


def test_given_masks_and_what_is_known_of_the_patient_are_used(
    tmp_path: Path, ct_file: Path, small_ct: CT, small_truth: dict[Structure, Mask], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        s: write_mask(tmp_path / f"{s}.nii.gz", small_truth[s], small_ct.geometry) for s in (Structure.LIVER, Structure.CRLM)
    }
    command = ["plan", str(ct_file), "--out", str(tmp_path / "out"), "--device", "cpu"]
    command += ["--liver", str(given[Structure.LIVER]), "--crlm", str(given[Structure.CRLM])]
    veins = np.zeros(small_ct.geometry.shape_zyx, bool)
    veins[tuple(np.argwhere(small_truth[Structure.LIVER]).mean(axis=0).astype(int))] = True
    command += ["--hepatic-veins", str(write_mask(tmp_path / "veins.nii.gz", veins, small_ct.geometry))]
    segments = np.where(small_truth[Structure.LIVER], np.where(small_truth[Structure.FLR], 2, 7), 0).astype(np.uint8)
    sitk.WriteImage(small_ct.geometry.image(segments), str(tmp_path / "segments.nii.gz"))
    command += ["--liver-segments", str(tmp_path / "segments.nii.gz")]
    command += ["--height-cm", "170", "--weight-kg", "80", "--liver-state", "chemotherapy"]
    assert main(command) == 0
    printed = capsys.readouterr()
    folder = tmp_path / "out" / "patient.one"
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "planning.nii.gz")))
    assert np.array_equal(structure_mask(label, Structure.LIVER), small_truth[Structure.LIVER])
    assert np.array_equal(structure_mask(label, Structure.CRLM), small_truth[Structure.CRLM])
    report = json.loads((folder / "plan.json").read_text())
    assert report["inputs"] == {"liver": "given", "crlm": "given", "flr": "predicted"}
    assert report["patient"] == {
        "id": None,
        "scan_date": None,
        "height_cm": 170.0,
        "weight_kg": 80.0,
        "height_and_weight": "given",
    }
    assert report["sflr_percent"] == pytest.approx(100 * report["volumes"]["flr_functional_ml"] / 1668.8, abs=0.01)
    assert [t["source"] for t in report["thresholds"]] == ["Shindoh 2013"]
    assert [v["name"] for v in report["veins"]] == ["hepatic veins"]
    assert {s["segment"] for s in report["segments"] if s["volume_ml"]} == {"II", "VII"}
    assert {s["segment"] for lesion in report["lesions"] for s in lesion["segments"]} <= {"II", "VII"}
    assert "the map of liver segments holds II, VII alone" in " ".join(report["warnings"])
    assert "  segments resected: " in printed.out
    assert sum(report["veins"][0][f"{side}_ml"] for side in ("remnant", "resection", "outside")) == pytest.approx(
        small_ct.geometry.voxel_volume_ml, abs=1e-3
    )
    assert f"sFLR {report['sflr_percent']:.1f} % (sTLV 1669 ml by Vauthey 2002, BSA 1.94 m2 by Mosteller)" in printed.out
    assert "30 % over sTLV by Vauthey 2002 (Shindoh 2013; chemotherapy for more than 3 months)" in printed.out
    assert main(command) == 0
    assert "already planned, kept" in capsys.readouterr().err
    assert main([*command, "--raw"]) == 1
    assert "the plan there was made of something else (options" in capsys.readouterr().err


def test_bad_masks_name_the_file(
    tmp_path: Path, ct_file: Path, small_ct: CT, small_truth: dict[Structure, Mask], capsys: pytest.CaptureFixture[str]
) -> None:
    geometry = small_ct.geometry
    moved = Geometry(geometry.size_xyz, geometry.spacing_mm, (5.0, 0.0, 0.0), geometry.direction)
    liver = small_truth[Structure.LIVER]
    bad = {
        "is not on the grid of": write_mask(tmp_path / "moved.nii.gz", liver, moved),
        "empty": write_mask(tmp_path / "empty.nii.gz", np.zeros_like(liver), geometry),
    }
    graded = tmp_path / "graded.nii.gz"
    sitk.WriteImage(geometry.image(liver.astype(np.uint8) + (small_truth[Structure.CRLM] * 2).astype(np.uint8)), str(graded))
    for message, path in {**bad, "binary": graded}.items():
        assert main(["plan", str(ct_file), "--out", str(tmp_path / "out"), "--liver", str(path)]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert path.name in error
    assert not (tmp_path / "out" / "patient.one" / "plan.json").exists()


@pytest.mark.parametrize("out", ["file", "file/out"])
def test_an_out_that_cannot_be_written_is_told_before_anything_is_predicted(
    tmp_path: Path, ct_file: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("a file")
    assert main(["plan", str(ct_file), "--out", str(tmp_path / out), "--device", "cpu"]) == 1
    printed = capsys.readouterr().err
    assert re.search(rf"{tmp_path / out}: cannot be made or written to \(.*\); give another --out", printed)
    assert "patient.one" not in printed


def test_a_plan_never_replaces_what_it_is_made_of(tmp_path: Path, ct_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cts = [tmp_path / case / "planning.nii.gz" for case in ("one", "two")]  # called after their folders, as their plans are
    for ct in cts:
        ct.parent.mkdir()
        shutil.copy(ct_file, ct)
    cut = tmp_path / "patient.one" / "meshes" / "cut_plane.mrk.json"  # of the plan before, corrected in 3D Slicer
    cut.parent.mkdir(parents=True)
    cut.write_text("{}")
    for command in ([*map(str, cts)], [str(ct_file), "--cut", str(cut), "--force"]):
        assert main(["plan", *command, "--out", str(tmp_path), "--device", "cpu"]) == 1
        assert (
            "the plan is made of this file and would replace it; write the plan into another folder" in capsys.readouterr().err
        )
    assert cut.is_file()
    assert all(ct.read_bytes() == ct_file.read_bytes() for ct in cts)


def test_a_part_without_a_case_says_so_and_leaves_nothing(
    tmp_path: Path, ct_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(ct_file), "--out", str(tmp_path / "out"), "--device", "cpu", "--part", "2/3"]) == 0
    assert "part 2 of 3 holds none of the 1 cases" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_of_a_patient_is_told_before_anything_is_predicted(
    tmp_path: Path, ct_file: Path, small_ct: CT, small_truth: dict[Structure, Mask], capsys: pytest.CaptureFixture[str]
) -> None:
    geometry = small_ct.geometry
    moved = Geometry(geometry.size_xyz, geometry.spacing_mm, (5.0, 0.0, 0.0), geometry.direction)
    elsewhere = write_mask(tmp_path / "moved.nii.gz", small_truth[Structure.LIVER], moved)
    (tmp_path / "prior.json").write_text("{}")
    for options, message in (
        (["--height-cm", "1.75"], "which looks like metres: 175 cm?"),
        (["--weight-kg", "0"], "expected 25 to 350 kg, got 0"),
        (["--weeks", "4"], "say nothing without the volumetry before"),
        (["--prior", str(tmp_path / "prior.json")], "prior.json: expected the plan.json of an earlier plan"),
        (["--portal-veins", str(elsewhere)], "is not on the grid of"),
        (["--liver-segments", str(elsewhere)], "moved.nii.gz is not on the grid of"),
    ):
        assert main(["plan", str(ct_file), "--out", str(tmp_path / "out"), "--device", "cpu", *options]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "patient.one").exists()


def test_height_and_weight_of_a_dicom_header(tmp_path: Path) -> None:
    geometry = Geometry((4, 4, 3), (1.0, 1.0, 2.0))
    hu = np.zeros(geometry.shape_zyx, np.int16)
    for file in write_dicom_series(tmp_path / "dcm", hu, geometry, "A", SYNTHETIC_DESCRIPTION):
        slice_ = pydicom.dcmread(file)
        slice_.PatientSize, slice_.PatientWeight, slice_.StudyDate = "1.7", "80", "20260401"
        slice_.save_as(file)
    found, notes = patient_of_ct(Patient(), tmp_path / "dcm", None)
    assert (found, notes) == (Patient(170.0, 80.0, "DICOM header", "A", date(2026, 4, 1)), [])
    assert patient_of_ct(Patient(), file, None)[0] == found, "one file of a series"
    stated, _ = patient_of_ct(Patient(weight_kg=70.0), tmp_path / "dcm", None)
    assert (stated.height_cm, stated.weight_kg, stated.source) == (170.0, 70.0, "given, the other from the DICOM header")
    assert patient_of_ct(Patient(), None, None)[0] == Patient(source="DICOM header")


def test_masks_fit_one_input_only(
    tmp_path: Path, ct_file: Path, small_case: SyntheticCase, capsys: pytest.CaptureFixture[str]
) -> None:
    second = ct_file.with_name("second.nii.gz")
    sitk.WriteImage(small_case.geometry.image(small_case.hu_zyx), str(second))
    assert main(["plan", str(ct_file), str(second), "--out", str(tmp_path), "--liver", "liver.nii.gz"]) == 1
    assert "fits one CT" in capsys.readouterr().err


def test_files_of_one_name_are_planned_under_that_of_their_folder(
    tmp_path: Path, ct_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, collecting = {}, []

    def plan(path: Path, *, name: str, **_: Any) -> SimpleNamespace:
        planned[path.parent.name] = name
        volumes = measure_volumes(np.ones((1, 1, 1), np.uint8), 1.0)
        return SimpleNamespace(
            ct=SimpleNamespace(slices=()), why_no_dicom="no series", volumes=volumes, warnings=(), compared={},
            assessment=SimpleNamespace(describe=list), interval=None, segments=None,
            save=lambda folder: collecting.append(gc.isenabled()),
        )  # fmt: skip

    monkeypatch.setattr("flrplan.api.plan.plan", plan)
    for name in ("s0001", "s0002"):  # as TotalSegmentator's data lie
        (tmp_path / name).mkdir()
        (tmp_path / name / "ct.nii.gz").write_bytes(ct_file.read_bytes())
    inputs = [str(tmp_path / name / "ct.nii.gz") for name in ("s0001", "s0002")]
    assert main(["plan", *inputs, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert planned == {"s0001": "s0001", "s0002": "s0002"}
    assert collecting == [False, True], "Python's garbage is looked for again after the first case, which imports everything"
    assert gc.isenabled()
    gc.unfreeze()


def test_a_dicom_case_is_called_after_the_patient_and_says_what_was_not_used(
    tmp_path: Path, small_ct: CT, small_truth: dict[Structure, Mask], capsys: pytest.CaptureFixture[str]
) -> None:
    series = tmp_path / "export" / "dcm"
    series.parent.mkdir()
    hu = small_ct.array_zyx.astype(np.int16)
    for file in write_dicom_series(series, hu, small_ct.geometry, "CRLM/CT 7", SYNTHETIC_DESCRIPTION):
        (series / f"._{file.name}").write_bytes(b"\0\5\26\7 Mac OS X")
    (series / "LOST").write_bytes(b"")
    command = ["plan", str(series), "--out", str(tmp_path / "out"), "--device", "cpu"]
    for structure in (Structure.LIVER, Structure.CRLM):  # fewer predictions, less time
        mask = write_mask(tmp_path / f"{structure}.nii.gz", small_truth[structure], small_ct.geometry)
        command += [f"--{structure}", str(mask)]
    assert main(command) == 0
    folder = tmp_path / "out" / "CRLM_CT_7"
    report = json.loads((folder / "plan.json").read_text())
    assert report["case"] == "CRLM_CT_7"
    assert {p.name for p in folder.glob("*.dcm")} == {*report["dicom"].values()} == {"planning.seg.dcm", "plan.sr.dcm"}
    text = "1 files of the folder are not used (empty): LOST; is a slice among them?"
    assert text in report["warnings"]
    assert f"warning: {text}" in capsys.readouterr().err
    (series / ".DS_Store").write_bytes(b"")  # what a system leaves there makes it no other CT
    assert main(command) == 0
    assert "already planned, kept" in capsys.readouterr().err


def test_a_missing_model_and_device_are_told(tmp_path: Path, ct_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(ct_file), "--out", str(tmp_path / "out"), "--device", "cuda:7"]) == 1
    assert "cuda:7 was asked for" in capsys.readouterr().err


def test_a_models_folder_that_is_none_is_told(tmp_path: Path, ct_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the demo models would answer in place of those that were asked for."""
    model = MODEL_ROOT / "demo" / "liver" / "nnunet"
    for folder, said in (
        (tmp_path / "typo", "typo is not there; expected a folder with"),
        (model, "is one model, .*models import"),
    ):
        assert main(["plan", str(ct_file), "--out", str(tmp_path / "out"), "--models", str(folder)]) == 1
        assert re.search(said, capsys.readouterr().err)


def test_what_nobody_thought_of_costs_its_case_alone(
    tmp_path: Path, ct_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out over the first case, a fault of a library while the second is written; the third is planned."""
    for name in ("a", "b"):
        ct_file.with_name(f"{name}.nii.gz").write_bytes(ct_file.read_bytes())
    real = api_plan.plan

    def plan(path: Path, **options: Any) -> Any:
        if path.name == "a.nii.gz":
            raise MemoryError(f"cannot allocate {path}")
        liver = np.zeros(options["read"]().geometry.shape_zyx, bool)
        liver[4:12, 20:40, 20:40] = True
        found = real(
            path, **{**options, "read": lambda *_: options["read"](), "liver": liver, "crlm": ~liver & False, "flr": liver}
        )
        if path.name == "b.nii.gz":
            monkeypatch.setattr(type(found), "save", save)
        return found

    def save(self: Plan, folder: Path) -> None:
        if folder.name == "b":
            raise ZeroDivisionError("division by zero")
        written.append(folder.name)

    written: list[str] = []
    monkeypatch.setattr(api_plan, "plan", plan)
    assert main(["plan", str(ct_file.parent), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert written == ["patient.one"]
    assert "2 of 3 cases failed" in said
    assert "unexpected MemoryError: cannot allocate" in said
    assert "[2/3] b: failed: unexpected ZeroDivisionError: division by zero (flrplan --verbose says where)" in said


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="file names of this system are Unicode")
def test_a_name_that_is_not_utf8_is_told_and_ends_nothing(
    tmp_path: Path, ct_file: Path, small_ct: CT, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/M\xfcller.nii.gz"))
    odd.write_bytes(ct_file.read_bytes())
    small = write_mask(tmp_path / "small.nii.gz", np.ones((2, 2, 2), bool), Geometry((2, 2, 2), (1.0, 1.0, 1.0)))
    assert main(["plan", str(odd), str(small), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "M\\udcfcller.nii.gz: the name of this file, or of a folder above it, is not UTF-8; rename it" in said
    assert "2 of 2 cases failed" in said, "the other one is looked at as well"
    assert main(["plan", str(odd), "--out", str(tmp_path / "out"), "--anonymize"]) == 1
    assert "ller" not in capsys.readouterr().err
    assert main(["plan", str(ct_file), "--out", os.fsdecode(bytes(tmp_path) + b"/\xfc")]) == 1
    assert "its name is not UTF-8, so nothing can be written there; give another --out" in capsys.readouterr().err
