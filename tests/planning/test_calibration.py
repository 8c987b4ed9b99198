"""calibration.json: kept and read, which models it is of, and when there is no interval."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flrplan.errors import ModelError
from flrplan.planning.calibration import LEAST_CASES, Calibration, KnownCase, features_of, settings_of_run, uncalibrated
from flrplan.planning.evidence import Evidence
from flrplan.planning.interval import Interval
from flrplan.workfolder import ModelIdentity

EVIDENCE = Evidence("given", 0.6, 0.55, (0.58, 0.63), 0.57, 0.4, 1000.0, 50.0, 2.5, 100.0)
MODELS = {"flr": {"0": "aa", "1": "bb"}}


def known(number: int, inputs: str = "given") -> KnownCase:
    """Slices of 2 to 5 mm, 80 to 120 HU, 800 to 1200 ml; errors from -0.1 to +0.1."""
    share = number / 40
    evidence = replace(EVIDENCE, inputs=inputs, flr_fraction=0.5, slice_mm=2 + 3 * share, liver_hu=80 + 40 * share)
    evidence = replace(evidence, parenchyma_ml=800 + 400 * share, crlm_ml=100 * share)
    true = 0.5 + 0.2 * ((7 * number) % 41 / 40 - 0.5)
    return KnownCase(evidence, true * evidence.parenchyma_ml, true)


def calibration_of(count: int, unlike: int = 0) -> Calibration:
    cases = {f"case-{n:03d}": {"given": known(n)} for n in range(count)}
    for n in range(unlike):
        cut = replace(known(n).evidence, unlike=("the liver is cut by the field of view",))
        cases[f"cut-{n:03d}"] = {"given": KnownCase(cut, 5000.0, 1.0)}
    return Calibration(MODELS, settings_of_run(False, True), "synthetic cases", cases)


def test_an_interval_has_bounds_chances_and_the_number_of_cases_that_are_like_it() -> None:
    interval = calibration_of(41, unlike=5).interval(EVIDENCE)
    assert interval.calibrated
    assert interval.valid
    assert interval.cases == 41
    assert interval.fold_fractions == (0.58, 0.63)
    assert interval.flr_fraction is not None
    assert interval.flr_ml is not None
    # 41 errors, 0.005 apart from -0.1 to 0.1: of 42 gaps 2 lie below the second, 2 above the last but one.
    assert interval.flr_fraction == pytest.approx((0.505, 0.695), abs=0.02)
    assert interval.flr_ml == pytest.approx((505, 695), abs=20)
    assert interval.below[20.0] == pytest.approx(0.5 / 42)
    assert list(interval.below.values()) == sorted(interval.below.values())


def test_an_aorta_beyond_those_of_the_known_cases_takes_the_interval_and_one_that_is_not_seen_does_not() -> None:
    def interval(*of_known: float | None, new: float | None) -> Interval:
        """The aortas of the known cases, in turn."""
        cases = {}
        for n, (case, kinds) in enumerate(calibration_of(42).cases.items()):
            evidence = replace(kinds["given"].evidence, aorta_hu=of_known[n % len(of_known)])
            cases[case] = {"given": replace(kinds["given"], evidence=evidence)}
        return replace(calibration_of(0), cases=cases).interval(replace(EVIDENCE, aorta_hu=new))

    assert interval(120.0, None, 200.0, new=400.0).not_valid == ("an aorta of 400 HU, theirs 120 to 200 HU",)
    assert interval(120.0, None, 200.0, new=40.0).not_valid == ("an aorta of 40 HU, theirs 120 to 200 HU",)
    assert interval(120.0, None, 200.0, new=207.0).valid  # a tenth of their range
    assert interval(120.0, 200.0, new=None).valid
    assert interval(None, new=400.0).valid  # a calibration that knows of no aorta


def test_below_the_least_number_it_says_not_calibrated_and_gives_no_bounds() -> None:
    few = calibration_of(LEAST_CASES - 1, unlike=20).interval(EVIDENCE)
    assert not few.calibrated
    assert not few.valid
    assert (
        f"not calibrated: the models met {LEAST_CASES - 1} synthetic cases with these inputs (given), at least 30"
        in few.describe()
    )
    assert calibration_of(LEAST_CASES).interval(EVIDENCE).valid
    for inputs in ("predicted", "liver given"):  # calibrated apart
        assert not calibration_of(41).interval(replace(EVIDENCE, inputs=inputs)).calibrated


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unlike": ("the liver is cut by the field of view (superior)",)}, "the liver is cut by the field of view (superior)"),
        ({"slice_mm": 7.5}, "slices of 7.5 mm, theirs 2.0 to 5.0 mm"),
        ({"liver_hu": 45.0}, "a liver of 45 HU, theirs 80 to 120 HU"),
        ({"liver_hu": 160.0}, "a liver of 160 HU, theirs 80 to 120 HU"),
        ({"parenchyma_ml": 400.0}, "a liver without metastases of 400 ml, theirs 800 to 1200 ml"),
        ({"crlm_ml": 900.0}, "metastases of 900 ml, theirs 0 to 100 ml"),
        ({"undecided": 0.8}, "networks that are undecided about 80 % of the liver, there about 40 to 40 %"),
    ],
)
def test_a_case_unlike_the_known_ones_has_no_bounds_but_a_reason(change: dict[str, object], reason: str) -> None:
    interval = calibration_of(41).interval(replace(EVIDENCE, **change))  # type: ignore[arg-type]
    assert interval.calibrated
    assert not interval.valid
    assert interval.not_valid == (reason,)


def test_thinner_slices_and_a_little_beyond_the_range_are_no_reason() -> None:
    assert calibration_of(41).interval(replace(EVIDENCE, slice_mm=0.8, liver_hu=77.0, parenchyma_ml=1230.0)).valid


def test_it_is_read_as_it_was_written_beside_that_of_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    assert Calibration.read(path, "nnunet") is None
    calibration_of(3, unlike=1).write(path, "nnunet")
    replace(calibration_of(2), models={}).write(path, "stunet")
    found = Calibration.read(path, "nnunet")
    assert found is not None
    assert list(found.cases) == ["case-000", "case-001", "case-002", "cut-000"]
    assert found.cases["case-002"]["given"].evidence == known(2).evidence
    assert found.cases["case-002"]["given"].true_flr_fraction == pytest.approx(known(2).true_flr_fraction, abs=1e-5)
    assert found.is_of({"flr": ModelIdentity("flr", "flr/nnunet", (0, 1), MODELS["flr"])}, settings_of_run(False, True))
    assert Calibration.read(path, "swinunetr") is None


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (ModelIdentity("flr", "flr/nnunet", (0, 1), {"0": "aa", "1": "cc"}), settings_of_run(False, True)),
        (ModelIdentity("flr", "flr/nnunet", (0,), {"0": "aa"}), settings_of_run(False, True)),
        (ModelIdentity("crlm", "crlm/nnunet", (0, 1), MODELS["flr"]), settings_of_run(False, True)),
        (ModelIdentity("flr", "flr/nnunet", (0, 1), MODELS["flr"]), settings_of_run(True, True)),
    ],
    ids=["other weights", "a fold less", "another stage", "mirrored"],
)
def test_it_is_of_these_models_run_in_this_way_alone(model: ModelIdentity, settings: dict[str, object]) -> None:
    assert not calibration_of(2).is_of({model.stage: model}, settings)


def with_opinions(known: KnownCase, **others: float) -> KnownCase:
    fractions = {"nnunet": known.evidence.flr_fraction, **others}
    return replace(known, evidence=replace(known.evidence, architecture_fractions=fractions))


def test_what_second_opinions_say_is_learned_from_where_all_known_cases_have_them() -> None:
    opinions = [features_of(with_opinions(known(3), stunet=0.6, swinunetr=0.7).evidence), features_of(known(3).evidence)]
    assert opinions[0] == pytest.approx([*opinions[1], 0.1, (2 / 3) ** 0.5 * 0.1])  # of 50, 60 and 70 %
    cases = {}
    for n in range(41):  # the second opinion is the truth
        cases[f"case-{n:03d}"] = {"given": with_opinions(known(n), stunet=known(n).true_flr_fraction)}
    calibration = replace(calibration_of(0), cases=cases)
    new = replace(EVIDENCE, flr_fraction=0.5, architecture_fractions={"nnunet": 0.5, "stunet": 0.42})
    learned, plain = (
        calibration.interval(new).flr_fraction,
        calibration_of(41).interval(replace(new, architecture_fractions={})),
    )
    assert learned is not None
    assert plain.flr_fraction is not None
    assert learned.lower < 0.42 < learned.upper < 0.5
    assert np.diff(learned)[0] < 0.6 * np.diff(plain.flr_fraction)[0]


def test_a_calibration_with_second_opinions_lies_beside_one_without_and_lacks_none(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    calibration_of(2).write(path, "nnunet")
    both = replace(calibration_of(0), cases={"case-000": {"given": with_opinions(known(0), stunet=0.6)}})
    both.write(path, "nnunet", "stunet")
    assert Calibration.read(path, "nnunet", "stunet") == both
    assert Calibration.read(path, "nnunet") is not None
    assert Calibration.read(path, "stunet") is None
    calibration_of(1).write(path, "nnunet", "stunet")
    with pytest.raises(
        ModelError, match=r"damaged \(case case-000 is not of the architectures nnunet, stunet\); copy it again"
    ):
        Calibration.read(path, "nnunet", "stunet")
    both.write(path, "nnunet")
    with pytest.raises(ModelError, match="case case-000 is not of the architectures nnunet"):
        Calibration.read(path, "nnunet")


def test_the_calibration_of_the_demo_models_is_written_as_it_was_read(tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "apps/flr_planning/model/demo" / "calibration.json"
    found = Calibration.read(shipped, "nnunet")
    assert found is not None
    found.write(tmp_path / "calibration.json", "nnunet")
    assert (tmp_path / "calibration.json").read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("content", ['{"nnunet": {"models": {}}}', '{"nnunet": {"cases": []}}', "{", '{"schema": 9}'])
def test_a_damaged_file_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"calibration\.json"):
        Calibration.read(path, "nnunet")


@pytest.mark.parametrize(
    ("name", "value"),
    [("flr_fraction", "abc"), ("undecided", None), ("fold_fractions", [-5]), ("parenchyma_ml", 0), ("true_flr_ml", -1)],
)
def test_a_known_case_of_impossible_numbers_is_damage_and_no_interval(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "calibration.json"
    calibration_of(40).write(path, "nnunet")
    content = json.loads(path.read_text())
    content["nnunet"]["cases"]["case-007"]["given"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"calibration\.json is damaged"):
        Calibration.read(path, "nnunet")


def test_without_a_calibration_the_reason_is_told() -> None:
    interval = uncalibrated(EVIDENCE, "there is none")
    assert interval.describe() == "how sure: no interval, not calibrated: there is none"
    assert np.ptp(interval.fold_fractions) == pytest.approx(0.05)
