"""A cohort on disk: whole or absent files, the same with any number of workers, continued but never mixed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Structure, structure_mask
from flrplan.cohort import CohortSettings, FaultKind, FaultyLabel, SyntheticCase, case_name, make_case, write_cohort
from flrplan.cohort.write import image_path, label_path, truth_path
from flrplan.errors import CohortError, SettingsError
from flrplan.image import Geometry, read_label_map
from flrplan.qc import check_case
from flrplan.qc.reading import find_labels, read_case, with_images
from flrplan.workfolder import find_labelled_cases

SETTINGS = CohortSettings(cases=3, seed=11)


def digest(folder: Path) -> dict[str, str]:
    """Hashes of the voxels, not of the compressed files, whose headers may hold a time."""
    out = {}
    for path in sorted(folder.rglob("*.nii.gz")):
        image = sitk.ReadImage(str(path))
        out[str(path.relative_to(folder))] = hashlib.sha256(sitk.GetArrayFromImage(image).tobytes()).hexdigest()
    return out


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "a"
    write_cohort(SETTINGS, folder, progress=False)
    return folder


def test_files_hold_the_case(cohort: Path) -> None:
    case = make_case(11, 1, "small")
    image = sitk.ReadImage(str(image_path(cohort, case.case_id)))
    label = sitk.ReadImage(str(label_path(cohort, case.case_id)))
    assert image.GetPixelID() == sitk.sitkInt16
    assert label.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(image), case.hu_zyx)
    assert np.array_equal(sitk.GetArrayFromImage(label), case.planning_zyx)
    assert Geometry.of(image).is_same_grid(case.geometry)
    assert Geometry.of(label).is_same_grid(case.geometry)


def test_table_holds_settings_and_facts(cohort: Path) -> None:
    table = json.loads((cohort / "cohort.json").read_text())
    assert table["complete"] is True
    assert table["settings"] == SETTINGS.as_dict()
    assert [c["case_id"] for c in table["cases"]] == ["synth-11-0000", "synth-11-0001", "synth-11-0002"]
    assert all(0 < c["flr_fraction"] < 1 and c["lesion_count"] == len(c["lesions"]) for c in table["cases"])
    assert not list(cohort.rglob(".part-*"))


def test_two_workers_write_the_same_voxels(cohort: Path, tmp_path: Path) -> None:
    write_cohort(SETTINGS, tmp_path / "b", workers=2, progress=False)
    assert digest(tmp_path / "b") == digest(cohort)
    assert (tmp_path / "b" / "cohort.json").read_text() == (cohort / "cohort.json").read_text()


def test_a_broken_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def breaks_at_one(seed: int, index: int, size: str, wide: bool) -> SyntheticCase:
        if index == 1 and not made.count(1):
            made.append(1)
            raise RuntimeError("power cut")
        made.append(index)
        return make_case(seed, index, size, wide)

    monkeypatch.setattr("flrplan.cohort.write.make_case", breaks_at_one)
    settings = CohortSettings(cases=2, seed=11)
    with pytest.raises(RuntimeError, match="power cut"):
        write_cohort(settings, tmp_path, progress=False)
    assert json.loads((tmp_path / "cohort.json").read_text())["complete"] is False
    first = image_path(tmp_path, "synth-11-0000").stat().st_mtime_ns
    write_cohort(settings, tmp_path, progress=False)
    assert made == [0, 1, 1]
    assert image_path(tmp_path, "synth-11-0000").stat().st_mtime_ns == first
    assert json.loads((tmp_path / "cohort.json").read_text())["complete"] is True


def test_other_settings_are_an_error_unless_forced(tmp_path: Path) -> None:
    write_cohort(CohortSettings(cases=2, seed=11), tmp_path, progress=False)
    other = CohortSettings(cases=1, seed=12)
    with pytest.raises(CohortError, match=r"settings\.seed was 11, is 12.*--force"):
        write_cohort(other, tmp_path, progress=False)
    write_cohort(other, tmp_path, force=True, progress=False)
    assert [p.name for p in (tmp_path / "images").iterdir()] == ["synth-12-0000.nii.gz"]
    assert json.loads((tmp_path / "cohort.json").read_text())["settings"]["seed"] == 12


def test_a_table_from_before_wide_cases_is_continued(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort, tmp_path / "c")
    table = json.loads((cohort / "cohort.json").read_text())
    del table["settings"]["wide"]
    (tmp_path / "c" / "cohort.json").write_text(json.dumps(table))
    write_cohort(SETTINGS, tmp_path / "c", progress=False)
    assert (tmp_path / "c" / "cohort.json").read_text() == (cohort / "cohort.json").read_text()
    with pytest.raises(CohortError, match=r"settings\.wide was 0\.0, is 0\.5"):
        write_cohort(replace(SETTINGS, wide=0.5), tmp_path / "c", progress=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_files_is_left_alone(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CohortError, match=r"not empty and holds no cohort.json \(found thesis.txt\)"):
        write_cohort(SETTINGS, tmp_path, force=force, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "cohort.json").write_text("{}")
    with pytest.raises(CohortError, match="not a table of a synthetic cohort"):
        write_cohort(SETTINGS, tmp_path, progress=False)


def test_workers_are_checked(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="workers must be at least 1, got 0"):
        write_cohort(SETTINGS, tmp_path, workers=0)


def outside(case: SyntheticCase, seed: int, index: int, share: float) -> FaultyLabel:
    """One CRLM voxel in the air."""
    liver, crlm, flr = (structure_mask(case.planning_zyx, s) for s in (Structure.LIVER, Structure.CRLM, Structure.FLR))
    label = FaultyLabel(liver, crlm.copy(), flr, case.geometry)
    if index == 0:
        label.crlm[1, 2, 3] = True
        label.record(FaultKind.OUTSIDE, Structure.CRLM, (0, 0, 0), crlm, label.crlm)
    return label


def test_faults_are_written_beside_the_truth(
    small_cases: list[SyntheticCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flrplan.cohort.write.make_case", lambda seed, index, *_: small_cases[index])
    monkeypatch.setattr("flrplan.cohort.write.plant_faults", outside)
    settings = CohortSettings(cases=2, seed=3, faults=0.5)
    write_cohort(settings, tmp_path, progress=False)
    listed = json.loads((tmp_path / "faults.json").read_text())
    assert listed["share"] == 0.5
    assert [len(case["faults"]) for case in listed["cases"]] == [1, 0]
    fault = listed["cases"][0]["faults"][0]
    assert (fault["kind"], fault["structure"]) == ("CRLM outside the liver", "crlm")
    assert fault["box_zyx"] == [[1, 2, 3], [1, 2, 3]]
    assert (fault["voxels_added"], fault["voxels_removed"]) == (1, 0)
    faulty, right = find_labelled_cases(tmp_path)
    assert set(faulty.truth.masks) == {Structure.LIVER, Structure.CRLM, Structure.FLR}
    assert not right.truth.masks
    _, masks = faulty.load([Structure.CRLM])
    assert masks[Structure.CRLM][1, 2, 3]
    for index, case in enumerate(small_cases[:2]):
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(truth_path(tmp_path, case.case_id))))
        assert np.array_equal(truth, small_cases[index].planning_zyx)

    write_cohort(CohortSettings(cases=1, seed=3), tmp_path, force=True, progress=False)
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["cohort.json", "facts/synth-3-0000.json", "images/synth-3-0000.nii.gz", "labels/synth-3-0000.nii.gz"]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flrplan.cohort.write.map_cases", lambda *_, **__: ())
    write_cohort(SETTINGS, tmp_path, progress=False)
    (tmp_path / "images").mkdir()
    half = tmp_path / "images" / ".part-1a2b3c4d-synth-11-0000.nii.gz"
    half.write_bytes(b"half")
    write_cohort(SETTINGS, tmp_path, progress=False)
    assert not half.exists()


@pytest.mark.parametrize("damaged", ["facts/synth-3-0000.json", "images/synth-3-0000.nii.gz"])
def test_a_file_damaged_from_outside_is_made_again(tmp_path: Path, damaged: str) -> None:
    settings = CohortSettings(cases=1, seed=3)
    write_cohort(settings, tmp_path, progress=False)
    whole = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(whole[: len(whole) // 2] if damaged.endswith("json") else b"")
    table = json.loads(write_cohort(settings, tmp_path, progress=False).read_text())
    assert table["complete"] is True
    assert len(table["cases"]) == 1
    assert (tmp_path / damaged).stat().st_size == pytest.approx(len(whole), abs=20)


def test_faults_that_were_asked_for_are_written_with_their_image(tmp_path: Path) -> None:
    kinds = ("cut_off", "spacing", "unlike", "other_grid")
    write_cohort(CohortSettings(cases=4, seed=3, faults=1.0, fault_kinds=kinds), tmp_path, progress=False)
    found = {f.case: read_case(f) for f in with_images(find_labels(tmp_path), tmp_path / "images")[0]}
    cases = [found[case_name(3, i)] for i in range(4)]
    assert [case.ct is not None for case in cases] == [True, True, True, False]
    assert Structure.LRS in cases[2].masks
    said = [{f.rule for f in check_case(case, rules=["in_view", "volumes", "partition", "grids"]).findings} for case in cases]
    assert all(rule in rules for rule, rules in zip(("in_view", "volumes", "partition", "grids"), said, strict=True))
    truth, _ = read_label_map(tmp_path / "truth" / f"{case_name(3, 0)}.nii.gz")
    assert truth.shape == cases[0].geometry.shape_zyx
    with pytest.raises(SettingsError, match="unknown kinds of fault x"):
        write_cohort(CohortSettings(cases=1, fault_kinds=("x",)), tmp_path / "other", progress=False)
