"""SEG and SR of a plan: on the grid of their CT for every kind of series, coded, referring to it, valid, and read by others bit for bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Mask, Structure, structure_mask
from flrplan.demo.ohif.direct import ask
from flrplan.demo.ohif.orthanc import find_orthanc, running_orthanc
from flrplan.errors import OutputError, ServiceError
from flrplan.image import CT, Geometry, read_ct
from flrplan.image.dicom_seg import first_voxel
from flrplan.planning import Clinical, Plan
from flrplan.planning.objects import write_dicom
from flrplan.planning.patient import Patient

KINDS = ["axial", "upside down", "oblique", "enhanced in 1", "enhanced in 2"]
TITLES = {"Liver": Structure.LIVER, "Future liver remnant": Structure.FLR, "Liver resection": Structure.LRS}
Make = Callable[..., Plan]


def expected_masks(plan: Plan) -> dict[str, Mask]:
    masks = {title: structure_mask(plan.label_zyx, structure) for title, structure in TITLES.items()}
    crlm = plan.masks[Structure.CRLM]
    for number, z in ((1, slice(2, 4)), (2, slice(6, 7)), (3, slice(7, 8))):
        masks[f"CRLM {number}"] = crlm & np.isin(np.arange(len(crlm)), np.arange(z.start, z.stop))[:, None, None]
    return masks


def read_back(seg: Any, geometry: Geometry) -> dict[str, Mask]:
    names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in seg.SegmentSequence}
    masks = {name: np.zeros(geometry.shape_zyx, bool) for name in names.values()}
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        x, y, z = first_voxel(groups, shared, frame.shape, geometry, "SEG")
        assert (x, y) == (0, 0)
        masks[names[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber]][z] |= frame > 0
    return masks


def written(plan: Plan, folder: Path, **options: Any) -> tuple[Any, Any]:
    folder.mkdir(exist_ok=True)
    write_dicom(plan, folder, **options)
    return pydicom.dcmread(folder / "planning.seg.dcm"), pydicom.dcmread(folder / "plan.sr.dcm")


@pytest.mark.parametrize("kind", KINDS)
def test_segments_lie_on_the_grid_of_the_series_and_each_frame_names_its_slice(
    tmp_path: Path, make_plan: Make, kind: str
) -> None:
    plan = make_plan(kind)
    seg, _ = written(plan, tmp_path / "out")
    found, expected = read_back(seg, plan.ct.geometry), expected_masks(plan)
    assert list(found) == list(expected)
    for name, mask in expected.items():
        assert np.array_equal(found[name], mask), name
    assert (seg.SegmentationType, seg.SegmentsOverlap, seg.Rows, seg.Columns) == ("BINARY", "YES", 16, 20)
    assert seg.NumberOfFrames == sum(np.count_nonzero(m.any(axis=(1, 2))) for m in expected.values()), "no empty frames"
    files = [pydicom.dcmread(f) for f in plan.ct.slices[0].path.parent.iterdir()]
    instances = {str(f.SOPInstanceUID): f for f in files}
    shared = seg.SharedFunctionalGroupsSequence[0]
    for groups in seg.PerFrameFunctionalGroupsSequence:
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        file = instances[source.ReferencedSOPInstanceUID]
        assert source.ReferencedSOPClassUID == file.SOPClassUID
        if "PerFrameFunctionalGroupsSequence" in file:
            frame = file.PerFrameFunctionalGroupsSequence[source.ReferencedFrameNumber - 1]
            position = frame.PlanePositionSequence[0].ImagePositionPatient
        else:
            position = file.ImagePositionPatient
        assert np.allclose(position, groups.PlanePositionSequence[0].ImagePositionPatient, atol=1e-5)
    assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == pytest.approx(2.5)
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == files[0].SeriesInstanceUID
    assert {r.ReferencedSOPInstanceUID for r in series.ReferencedInstanceSequence} <= set(instances)
    assert len(series.ReferencedInstanceSequence) == (int(kind[-1]) if "enhanced" in kind else 8)
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (files[0].StudyInstanceUID, files[0].FrameOfReferenceUID)
    assert (str(seg.PatientName), seg.PatientID) == ("Case^One", "Case^One")


@pytest.mark.parametrize("kind", ["axial", "upside down", "oblique"])
def test_dcmqi_reads_the_same_voxels(tmp_path: Path, make_plan: Make, kind: str) -> None:
    plan = make_plan(kind)
    written(plan, tmp_path / "out")
    program = shutil.which("segimage2itkimage") or str(Path(sys.executable).with_name("segimage2itkimage"))
    command = [
        program,
        "--inputDICOM",
        str(tmp_path / "out" / "planning.seg.dcm"),
        "--outputDirectory",
        str(tmp_path),
        "-t",
        "nrrd",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    meta = json.loads((tmp_path / "meta.json").read_text())
    names = [item["SegmentLabel"] for group in meta["segmentAttributes"] for item in group]
    assert names == list(expected_masks(plan))
    reference = plan.ct.geometry.image(plan.label_zyx)
    for number, mask in enumerate(expected_masks(plan).values(), 1):
        image = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        assert np.count_nonzero(sitk.GetArrayViewFromImage(image)) == mask.sum()
        on_grid = sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
        assert np.array_equal(on_grid, mask), names[number - 1]


def dciodvfy(path: Path) -> list[str]:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy (Debian's dicom3tools)")
    done = subprocess.run([program, str(path)], check=False, capture_output=True, text=True, timeout=60)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("kind", ["oblique", "enhanced in 2"])
@pytest.mark.parametrize("anonymize", [False, True])
def test_dciodvfy_finds_no_errors(tmp_path: Path, make_plan: Make, kind: str, anonymize: bool) -> None:
    written(make_plan(kind), tmp_path / "out", anonymize=anonymize)
    for name in ("planning.seg.dcm", "plan.sr.dcm"):
        assert dciodvfy(tmp_path / "out" / name) == [], name


def test_segments_are_coded_and_say_what_made_them(tmp_path: Path, make_plan: Make) -> None:
    seg, _ = written(make_plan(), tmp_path / "out")
    liver, flr, lrs, resected, cut_through, left = seg.SegmentSequence
    code = liver.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("10200004", "SCT")
    modifiers = [
        [m.CodeMeaning for m in s.SegmentedPropertyTypeCodeSequence[0].get("SegmentedPropertyTypeModifierCodeSequence", [])]
        for s in seg.SegmentSequence
    ]
    remnant, resection = ["Future liver remnant"], ["Planned liver resection"]
    assert modifiers == [[], remnant, resection, resection, [], remnant]
    assert resected.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    assert [s.SegmentAlgorithmType for s in seg.SegmentSequence] == ["AUTOMATIC"] * 3 + ["MANUAL"] * 3, (
        "the metastases were given"
    )
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == liver.SegmentAlgorithmName == "flrplan liver/nnunet"
    assert algorithm.AlgorithmVersion.endswith("weights a1b2c3d4 99aabbcc")
    assert "demo model=true" in algorithm.AlgorithmParameters
    assert "remnant=raw" in flr.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert lrs.SegmentAlgorithmName == flr.SegmentAlgorithmName
    assert (cut_through.SegmentLabel, left.SegmentLabel) == ("CRLM 2", "CRLM 3")
    lightness = 100 * liver.RecommendedDisplayCIELabValue[0] / 0xFFFF
    assert lightness == pytest.approx(63.6, abs=0.1), "of sRGB (221, 130, 101): Y = 0.3227, 116 Y^(1/3) - 16"
    assert "99FLRPLAN" in {s.CodingSchemeDesignator for s in seg.CodingSchemeIdentificationSequence}


def test_a_given_remnant_was_made_by_a_person(tmp_path: Path, make_plan: Make) -> None:
    seg, _ = written(make_plan(flr_given=True), tmp_path / "out")
    assert [s.SegmentAlgorithmType for s in seg.SegmentSequence[:3]] == ["AUTOMATIC", "MANUAL", "AUTOMATIC"]


def measured(sr: Any) -> dict[str, dict[str, tuple[float, str]]]:
    """Value and unit by tracking identifier and name."""
    content = highdicom.sr.srread(sr.filename).content
    out = {}
    for group in [
        *content.get_image_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
    ]:
        out[group.tracking_identifier] = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    return out


def test_the_report_holds_the_volumetry_and_points_at_the_segments(tmp_path: Path, make_plan: Make) -> None:
    plan = make_plan()
    seg, sr = written(plan, tmp_path / "out")
    ml = 0.8 * 0.9 * 2.5 / 1000
    values = measured(sr)
    remnant = 8 * 12 * 9 - 2 - 2  # without a metastasis of two voxels, and two voxels of the one that is cut through
    assert values["Liver"] == {"Volume": (pytest.approx(8 * 12 * 16 * ml, abs=1e-3), "mL")}
    assert values["Future liver remnant"]["Volume"][0] == pytest.approx(8 * 12 * 9 * ml, abs=1e-3)
    of_plan = "Future liver remnant without metastases", "Future liver remnant over liver, both without metastases"
    assert values[of_plan[0]] == {of_plan[0]: (pytest.approx(remnant * ml, abs=1e-3), "mL")}
    assert values[of_plan[1]][of_plan[1]] == (pytest.approx(100 * remnant / (8 * 12 * 16 - 16), abs=1e-3), "%")
    assert not [name for name in values if "standardised" in name], "height and weight are not known"
    assert values["CRLM 1"]["Volume"] == (pytest.approx(8 * ml, abs=1e-3), "mL")
    assert values["CRLM 1"]["Diameter"][0] == pytest.approx(np.sqrt(0.8**2 + 0.9**2 + 2.5**2), abs=1e-3)
    assert values["CRLM 1"]["Distance from metastasis to planned cut"] == (pytest.approx(3 * 0.8, abs=1e-3), "mm")
    assert "Distance from metastasis to planned cut" not in values["CRLM 3"], "left in the remnant: no margin"
    content = highdicom.sr.srread(sr.filename).content
    groups = content.get_volumetric_roi_measurement_groups()
    assert [g.tracking_identifier for g in groups] == [str(s.SegmentLabel) for s in seg.SegmentSequence]
    pointed = [item.ReferencedSOPSequence[0] for g in groups for item in g[0].ContentSequence if item.ValueType == "IMAGE"]
    assert [(p.ReferencedSOPInstanceUID, p.ReferencedSegmentNumber) for p in pointed] == [
        (seg.SOPInstanceUID, n) for n in range(1, 7)
    ]
    assert [g.tracking_uid for g in groups] == [str(s.TrackingUID) for s in seg.SegmentSequence]
    evidence = sr.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == seg.StudyInstanceUID == sr.StudyInstanceUID
    referenced = {i.ReferencedSOPInstanceUID for s in evidence.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
    assert seg.SOPInstanceUID in referenced
    assert (sr.CompletionFlag, sr.VerificationFlag) == ("COMPLETE", "UNVERIFIED")


def test_with_height_and_weight_the_report_holds_the_standardised_remnant(tmp_path: Path, make_plan: Make) -> None:
    plan = replace(make_plan(), clinical=Clinical(Patient(172.0, 80.0)))
    _, sr = written(plan, tmp_path / "out")
    values = measured(sr)
    remnant_ml = (8 * 12 * 9 - 2 - 2) * 0.8 * 0.9 * 2.5 / 1000
    stlv_ml = -794.41 + 1267.28 * np.sqrt(172 * 80 / 3600)  # Vauthey 2002 over Mosteller's body surface
    standardised, to_weight = (
        next(values[name] for name in values if word in name) for word in ("standardised", "body weight")
    )
    assert next(iter(standardised.values())) == (pytest.approx(100 * remnant_ml / stlv_ml, abs=1e-3), "%")
    assert next(iter(to_weight.values())) == (pytest.approx(100 * remnant_ml / 80_000, abs=1e-4), "%")


def retag(folder: Path, **tags: Any) -> CT:
    for n, file in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(file)
        for keyword, value in tags.items():
            setattr(data, keyword, value(n) if callable(value) else value)
        data.save_as(file)
    return read_ct(folder)


PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jürgen", "PatientID": "ID-77", "PatientBirthDate": "19610203",
    "PatientSex": "M", "StudyDate": "20240506", "AccessionNumber": "ACC-9", "ReferringPhysicianName": "Wren^Ann", "PatientAge": "063Y",
    "StudyDescription": "Abdomen of M", "InstitutionName": "St. Elsewhere",
}  # fmt: skip


def test_patient_and_study_follow_the_series_or_stay_empty(tmp_path: Path, make_ct: Callable[..., CT], make_plan: Make) -> None:
    make_ct()
    plan = make_plan(retag(tmp_path / "ct", **PATIENT))
    for content in written(plan, tmp_path / "named"):
        assert (str(content.PatientName), content.PatientID) == ("Müller^Jürgen", "ID-77")
        assert (content.StudyDate, content.AccessionNumber, content.PatientSex) == ("20240506", "ACC-9", "M")
    for content in written(plan, tmp_path / "anonymous", anonymize=True):
        assert (content.PatientName, content.PatientID, content.PatientBirthDate, content.StudyDate) == ("", "", "", "")
        assert content.PatientIdentityRemoved == "YES"
    for file in (tmp_path / "anonymous").iterdir():
        held = file.read_bytes()
        words = [word for keyword, word in PATIENT.items() if keyword not in ("SpecificCharacterSet", "PatientSex")]
        assert not [w for w in (*words, "rgen", "Case^One") if w.encode() in held or w.encode("latin-1") in held]


@pytest.mark.parametrize(("charset", "name"), [("ISO_IR 100", "Müller^Jürgen"), ("ISO_IR 192", "王^小东=Иванов^Иван")])
def test_a_name_beyond_ascii_is_written_with_its_character_set(
    tmp_path: Path, make_ct: Callable[..., CT], make_plan: Make, charset: str, name: str
) -> None:
    make_ct()
    plan = make_plan(retag(tmp_path / "ct", SpecificCharacterSet=charset, PatientName=name))
    for content in written(plan, tmp_path / "out"):
        assert (content.SpecificCharacterSet, str(content.PatientName)) == ("ISO_IR 192", name)
    assert all(name.encode() in file.read_bytes() for file in (tmp_path / "out").iterdir()), "UTF-8"


def test_values_that_dicom_does_not_allow_are_left_out(tmp_path: Path, make_ct: Callable[..., CT], make_plan: Make) -> None:
    make_ct()
    tags = {
        "StudyDate": "yesterday",
        "StudyTime": "noon",
        "PatientSex": "male",
        "PatientBirthDate": "1961",
        "PatientWeight": "",
        "PatientName": ["Doe", "John"],
    }
    for content in written(make_plan(retag(tmp_path / "ct", **tags)), tmp_path / "out"):
        assert content.PatientName == ""
        assert (content.StudyDate, content.StudyTime, content.PatientSex, content.PatientBirthDate) == ("", "", "", "")


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"SOPInstanceUID": "", "StudyInstanceUID": None}, "the slices state no StudyInstanceUID"),
        ({"StudyInstanceUID": "study one"}, "the slices state a StudyInstanceUID that is no UID ('study one')"),
        ({"StudyInstanceUID": lambda n: f"1.2.{1 + n // 5}"}, "the slices state several StudyInstanceUID (1.2.1, 1.2.2)"),
        ({"SOPInstanceUID": "1.2.3"}, "9 slices state the SOPInstanceUID of another one"),
    ],
)
def test_a_series_that_cannot_be_referred_to_is_planned_without_dicom(
    tmp_path: Path, make_ct: Callable[..., CT], make_plan: Make, tags: dict[str, Any], why: str
) -> None:
    make_ct()
    plan = make_plan(retag(tmp_path / "ct", **tags))
    assert [w for w in plan.ct.warnings if w == f"{why}, and no DICOM SEG or SR of this CT can be written without it"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.sr.dcm").touch()  # of an earlier plan
    plan.save(out)
    assert {"meshes", "plan.json", "planning.nii.gz"} <= {p.name for p in out.iterdir()}, "the rest is written"
    assert not list(out.glob("*.dcm"))
    assert json.loads((out / "plan.json").read_text())["dicom"] == {"not_written": why}
    with pytest.raises(OutputError, match="no DICOM SEG or SR can be written"):
        write_dicom(plan, out)


@pytest.mark.parametrize("stated", ["", "no uid"])
def test_a_series_without_a_frame_of_reference_gets_one(
    tmp_path: Path, make_ct: Callable[..., CT], make_plan: Make, stated: str
) -> None:
    make_ct()
    seg, _ = written(make_plan(retag(tmp_path / "ct", FrameOfReferenceUID=stated)), tmp_path / "out")
    assert seg.FrameOfReferenceUID.startswith("2.25.")


def test_a_plan_saves_its_objects_and_names_them(tmp_path: Path, make_plan: Make) -> None:
    make_plan().save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["dicom"] == {"seg": "planning.seg.dcm", "sr": "plan.sr.dcm"}
    assert (tmp_path / "out" / "planning.seg.dcm").is_file()
    assert (tmp_path / "out" / "plan.sr.dcm").is_file()


@pytest.mark.parametrize("resected", [False, True])
def test_what_has_no_voxels_has_no_segment(tmp_path: Path, make_plan: Make, resected: bool) -> None:
    plan = make_plan()
    masks = dict(plan.masks)
    masks[Structure.CRLM] = np.zeros_like(masks[Structure.LIVER])
    masks[Structure.FLR] = masks[Structure.CRLM] if resected else masks[Structure.LIVER]
    seg, sr = written(Plan(replace(plan.result, masks=masks)), tmp_path / "out")
    names = ["Liver", "Liver resection" if resected else "Future liver remnant"]
    assert [s.SegmentLabel for s in seg.SegmentSequence] == names
    assert list(measured(sr))[-2:] == names
    share = "Future liver remnant over liver, both without metastases"
    assert measured(sr)[share][share] == (0 if resected else 100, "%")


def test_orthanc_files_them_in_the_study_of_the_ct_and_gives_back_every_byte(tmp_path: Path, make_plan: Make) -> None:
    try:
        find_orthanc()
    except ServiceError as error:
        pytest.skip(str(error))
    plan = make_plan("oblique")
    written(plan, tmp_path / "out")
    sent = [tmp_path / "out" / name for name in ("planning.seg.dcm", "plan.sr.dcm")]
    with running_orthanc(tmp_path / "orthanc", print) as orthanc:
        study = orthanc.load([file.path for file in plan.ct.slices]).study_uid
        assert [orthanc.load([file]).study_uid for file in sent] == [study, study]
        url = f"{orthanc.dicomweb}/studies/{study}/series"
        listed = ask("GET", url, 30.0).json()
        assert sorted(series["00080060"]["Value"][0] for series in listed) == ["CT", "SEG", "SR"]
        held = [
            ask("GET", f"{orthanc.url}/instances/{i}/file", 30.0).content
            for i in ask("GET", f"{orthanc.url}/instances", 30.0).json()
        ]
    assert {file.read_bytes() for file in sent} <= set(held)
