"""How sure a plan is, from the models to its files: calibrated on cases with truth, shown by a plan, the folds' disagreement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Structure, structure_mask, to_compartments
from flrplan.api import calibrate as module
from flrplan.api.calibrate import calibrate
from flrplan.api.plan import plan
from flrplan.api.run_plan import run_plan
from flrplan.cli import main
from flrplan.demo.held_out import CALIBRATION_SEED
from flrplan.engine import MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.errors import LabelError, SettingsError
from flrplan.image import CT, Geometry, write_label_map, write_volume
from flrplan.method import CASCADE
from flrplan.planning import Plan
from flrplan.planning.calibration import CALIBRATION_NAME, LEAST_CASES, Calibration, KnownCase, settings_of_run
from flrplan.workfolder import Case

Masks = dict[Structure, np.ndarray]


@pytest.fixture(scope="module")
def truth(small_truth: Masks) -> Masks:
    return small_truth


@pytest.fixture(scope="module")
def ct(small_ct: CT) -> CT:
    return replace(small_ct, name="case-1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models without models: the demo models serve, and a calibration of its own lies here."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def cascade(root: Path) -> Cascade:
    return Cascade(ModelStore(root, demo=MODEL_ROOT / "demo"), CascadeSettings(device="cpu"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, ct: CT, truth: Masks) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    write_volume(folder / "images" / "case-1.nii.gz", ct.array_zyx, ct.geometry)
    label, _ = to_compartments(truth[Structure.LIVER], truth[Structure.CRLM], truth[Structure.FLR])
    write_label_map(folder / "labels" / "case-1.nii.gz", label, ct.geometry)
    return folder


@pytest.fixture(scope="module")
def calibrated(root: Path, cases: Path, cascade: Cascade) -> Calibration:
    """One case, planned for real."""
    return calibrate(cases, root / "calibration.json", cascade)


@pytest.fixture(scope="module")
def planned(ct: CT, truth: Masks, cascade: Cascade, calibrated: Calibration) -> Plan:
    given = {s: truth[s] for s in (Structure.LIVER, Structure.CRLM)}
    return run_plan(cascade, ct, given, disagreement=True)


def test_a_case_is_planned_from_its_true_masks_and_from_the_ct_alone(
    calibrated: Calibration, planned: Plan, truth: Masks
) -> None:
    kinds = calibrated.cases["case-1"]
    assert set(kinds) == {"given", "predicted"}
    assert {kinds[inputs].evidence.inputs for inputs in kinds} == {"given", "predicted"}
    liver = truth[Structure.LIVER] & ~truth[Structure.CRLM]
    for known in kinds.values():
        assert known.true_flr_fraction == pytest.approx((truth[Structure.FLR] & liver).sum() / liver.sum())
        assert len(known.evidence.fold_fractions) == 2
    assert kinds["given"].evidence.flr_fraction == pytest.approx(planned.volumes.flr_fraction)
    assert set(calibrated.models) == {"liver", "crlm", "flr"}
    assert calibrated.calibrated_on == "cases"


def test_what_is_in_the_file_is_not_planned_again(
    cases: Path, root: Path, cascade: Cascade, calibrated: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "coherent_plan", None)
    assert calibrate(cases, root / "calibration.json", cascade).cases.keys() == calibrated.cases.keys()
    (root / "another.json").unlink(missing_ok=True)
    replace(calibrated, models={"flr": {"0": "of others"}}).write(root / "another.json", "nnunet")
    with pytest.raises(
        SettingsError, match=r"another\.json: the calibration there was made of something else .*delete it, or give another"
    ):
        calibrate(cases, root / "another.json", cascade)


def test_two_processes_find_the_same(tmp_path: Path, cases: Path, cascade: Cascade, calibrated: Calibration) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            (tmp_path / folder / f"{name}.nii.gz").symlink_to(cases / folder / "case-1.nii.gz")
    found = calibrate(tmp_path, tmp_path / "calibration.json", cascade, workers=2).cases
    assert [*found] == ["a", "b"]
    for kinds in found.values():
        for inputs, known in calibrated.cases["case-1"].items():  # other numbers of threads round otherwise
            assert kinds[inputs].evidence.flr_fraction == pytest.approx(known.evidence.flr_fraction, abs=1e-3)
            assert kinds[inputs].true_flr_ml == known.true_flr_ml
    with pytest.raises(SettingsError, match="workers must be at least 1, got 0"):
        calibrate(tmp_path, tmp_path / "another.json", cascade, workers=0)


def test_cases_that_a_model_has_learned_from_are_refused(tmp_path: Path, cases: Path, cascade: Cascade) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "synth-1-0003.nii.gz").write_bytes((cases / folder / "case-1.nii.gz").read_bytes())
    with pytest.raises(SettingsError, match=r"has learned from 1 of these cases \(synth-1-0003\)"):
        calibrate(tmp_path, tmp_path / "calibration.json", cascade)
    with pytest.raises(LabelError, match="found no image"):
        calibrate(tmp_path / "images", tmp_path / "calibration.json", cascade)
    assert not (tmp_path / "calibration.json").exists()


def test_a_plan_of_uncalibrated_models_says_so_and_one_of_calibrated_ones_has_an_interval(
    planned: Plan, ct: CT, truth: Masks, root: Path, cascade: Cascade, calibrated: Calibration
) -> None:
    assert planned.interval is not None
    assert "not calibrated: the models met 1 cases with these inputs (given), at least 30" in planned.interval.describe()
    own = calibrated.cases["case-1"]["given"]
    like = {}
    for n in range(40):  # a little larger and smaller livers and lesions
        share = 0.9 + 0.2 * n / 39
        evidence = replace(own.evidence, parenchyma_ml=own.evidence.parenchyma_ml * share, crlm_ml=own.evidence.crlm_ml * share)
        like[f"like-{n:02d}"] = {"given": KnownCase(evidence, own.true_flr_ml, own.true_flr_fraction - n / 200)}
    replace(calibrated, cases=like).write(root / "calibration.json", "nnunet")
    given = {s: truth[s] for s in (Structure.LIVER, Structure.CRLM)}
    try:
        sure = plan(ct, cascade=cascade, liver=given[Structure.LIVER], crlm=given[Structure.CRLM])
        raw = run_plan(cascade, ct, given, raw=True, disagreement=True)
    finally:
        calibrated.write(root / "calibration.json", "nnunet")
    assert sure.interval is not None
    assert sure.interval.valid
    assert sure.interval.flr_fraction is not None
    # Of forty errors, the third and the last but two: 41 x 0.05 = 2.05.
    assert sure.interval.flr_fraction == pytest.approx(
        (own.true_flr_fraction - 38 / 200, own.true_flr_fraction - 1 / 200), abs=1e-3
    )
    assert raw.interval is None
    assert np.array_equal(raw.disagreement_zyx, planned.disagreement_zyx)  # type: ignore[arg-type]
    assert sure.disagreement_zyx is None


def test_the_files_of_a_plan_say_how_sure_it_is(planned: Plan, ct: CT, tmp_path: Path) -> None:
    planned.save(tmp_path)
    content = json.loads((tmp_path / "plan.json").read_text())["interval"]
    assert content["calibrated"] is content["valid"] is False
    assert content["flr_fraction"] is None
    assert len(content["fold_flr_fractions"]) == 2
    image = sitk.ReadImage(str(tmp_path / "disagreement.nii.gz"))
    assert ct.geometry.is_same_grid(Geometry.of(image))
    found = sitk.GetArrayFromImage(image)
    assert 5 < found.max() <= 50
    assert not found[structure_mask(planned.label_zyx, Structure.LIVER) == 0].any()
    replace(planned, disagreement_zyx=None).save(tmp_path)
    assert not (tmp_path / "disagreement.nii.gz").exists(), "of the plan before"


def test_the_command_counts_the_cases_of_each_kind(
    cases: Path, root: Path, calibrated: Calibration, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--cases", str(cases), "--models", str(root), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    used = len(calibrated.of_kind("given"))
    assert (
        f"inputs given: {used} cases, {1 - used} more with a liver that is cut or no liver; not calibrated, at least 30" in said
    )
    assert f"calibration: {root / 'calibration.json'}" in said


def test_the_demo_models_ship_with_a_calibration_that_is_of_them(demo_store: ModelStore) -> None:
    found = Calibration.read(MODEL_ROOT / "demo" / CALIBRATION_NAME, "nnunet")
    assert found is not None
    cascade = Cascade(demo_store, CascadeSettings(device="cpu"))
    assert found.is_of({stage.name: cascade.identity(stage) for stage in CASCADE}, settings_of_run(False, True))
    assert all(len(found.of_kind(inputs)) >= LEAST_CASES for inputs in ("given", "predicted"))
    assert {case.rsplit("-", 1)[0] for case in found.cases} == {f"synth-{CALIBRATION_SEED}"}


def test_two_calibrations_at_once_lose_no_case_and_a_kept_one_is_told(
    tmp_path: Path,
    cases: Path,
    cascade: Cascade,
    calibrated: Calibration,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, known = tmp_path / "calibration.json", calibrated.cases["case-1"]

    def by_another(cascade: Cascade, missing: list[Case], workers: int) -> Iterator[Mapping[str, KnownCase]]:
        replace(calibrated, cases={"of another process": known}).write(out, "nnunet")
        yield known

    monkeypatch.setattr(module, "_planned", by_another)
    assert calibrate(cases, out, cascade).cases.keys() == {"case-1", "of another process"}
    found = Calibration.read(out, "nnunet")
    assert found is not None
    assert found.cases.keys() == {"case-1", "of another process"}
    monkeypatch.setattr(module, "_planned", lambda *_: iter(()))
    with caplog.at_level("INFO"):
        calibrate(cases, out, cascade)
    assert f"1 of the 1 cases are in {out} by their ids, so they are not planned again" in caplog.text

    def of_others(*_: object) -> Iterator[Mapping[str, KnownCase]]:
        replace(calibrated, models={"flr": {"0": "of others"}}).write(out, "nnunet")
        yield known

    out.unlink()
    monkeypatch.setattr(module, "_planned", of_others)
    with pytest.raises(SettingsError, match="the calibration there was made of something else"):
        calibrate(cases, out, cascade)


def test_an_flr_that_is_not_in_the_liver_is_no_truth(
    tmp_path: Path, ct: CT, truth: Masks, cascade: Cascade, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_volume(tmp_path / "images" / "a.nii.gz", ct.array_zyx, ct.geometry)
    liver = truth[Structure.LIVER]
    outside, partly = ~liver, ~liver
    partly = partly.copy()
    partly[tuple(np.argwhere(liver)[0])] = True
    monkeypatch.setattr(module, "coherent_plan", lambda *_: (None, None))
    for flr in (outside, liver & False, partly):
        for structure, mask in ((Structure.LIVER, liver), (Structure.CRLM, truth[Structure.CRLM]), (Structure.FLR, flr)):
            write_volume(tmp_path / "masks" / "a" / f"{structure}.nii.gz", mask.astype(np.uint8), ct.geometry)
        if flr is not partly:
            with pytest.raises(
                LabelError, match="case a: no FLR lies in its liver, so its remnant is not known; draw it, or take"
            ):
                calibrate(tmp_path, tmp_path / "calibration.json", cascade)
    calibrate(tmp_path, tmp_path / "calibration.json", cascade)
    assert f"case a: {np.count_nonzero(~liver)} FLR voxels lie outside the liver and are not in the planning map" in caplog.text
