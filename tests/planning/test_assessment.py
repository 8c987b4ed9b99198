"""Formulas and thresholds against worked examples, each over its own denominator; bad input by message."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from flrplan.errors import SettingsError
from flrplan.image import Geometry
from flrplan.planning import Assessment, Clinical, LiverState, Volumes, measure_volumes
from flrplan.planning.criteria import THRESHOLDS, BsaFormula, Denominator
from flrplan.planning.patient import Patient, Prior, patient_of_header, read_prior
from flrplan.planning.volumetry import partial_volume_ml

PATIENT = Patient(170.0, 80.0)
PRIOR = Prior(1.0, None, None, "x")


def volumes(remnant_ml: float = 500.0, resected_ml: float = 1000.0) -> Volumes:
    """A liver of 1 ml voxels, with 20 ml of tumour in the remnant."""
    label = np.repeat(np.array([1, 2, 4], np.uint8), [round(remnant_ml), round(resected_ml), 20])[None, None]
    return measure_volumes(label, 1.0)


def test_body_surface_and_standardised_liver_by_hand() -> None:
    # sqrt(170 * 80 / 3600) = sqrt(3.7778); 0.007184 * 80^0.425 * 170^0.725 = 0.007184 * 6.4392 * 41.404
    assert BsaFormula.MOSTELLER.m2(170, 80) == pytest.approx(1.9437, abs=1e-4)
    assert BsaFormula.DUBOIS.m2(170, 80) == pytest.approx(1.9153, abs=1e-3)
    assert Denominator.VAUTHEY.stlv_ml(1.9437) == pytest.approx(-794.41 + 2463.21, abs=0.1)
    assert Denominator.URATA.stlv_ml(1.9437) == pytest.approx(1375.04, abs=0.1)
    with pytest.raises(ValueError, match="no formula"):
        Denominator.MEASURED.stlv_ml(2.0)


def test_the_remnant_that_functions_is_measured() -> None:
    assessment = Assessment(volumes(), Clinical(PATIENT))
    assert assessment.sflr_percent == pytest.approx(100 * 500 / 1668.8, abs=0.01), (
        "500, not the 520 ml with the metastases in it"
    )
    assert assessment.flr_percent(Denominator.MEASURED) == pytest.approx(100 / 3)
    assert assessment.flr_to_weight_percent == pytest.approx(0.625), "500 g of 80 kg"
    report = json.loads(json.dumps(assessment.to_json(), allow_nan=False))
    assert [(s["formula"], s["bsa_formula"]) for s in report["standardised"]] == [
        ("sTLV by Vauthey 2002", "Mosteller"),
        ("sTLV by Vauthey 2002", "DuBois"),
        ("sTLV by Urata 1995", "Mosteller"),
        ("sTLV by Urata 1995", "DuBois"),
    ]
    assert report["standardised"][2]["sflr_percent"] == pytest.approx(36.36, abs=0.01)


@pytest.mark.parametrize(
    ("state", "remnant_ml", "verdicts"),
    [
        # over 1668.8 ml by Vauthey, 1375 ml by Urata, 1500 ml measured
        (LiverState.NORMAL, 390, {"Kishi 2009": "met", "Vauthey 2000": "met", "Shoup 2003": "met", "Schindl 2005": "not met"}),
        (
            LiverState.NORMAL,
            335,
            {"Kishi 2009": "met", "Vauthey 2000": "not met", "Shoup 2003": "not met", "Schindl 2005": "not met"},
        ),
        (LiverState.CHEMOTHERAPY, 500, {"Shindoh 2013": "not met"}),
        (LiverState.CHEMOTHERAPY, 510, {"Shindoh 2013": "met"}),
        (LiverState.INJURED, 600, {"Azoulay 2000": "met", "Kubota 1997": "met"}),
    ],
)
def test_each_threshold_is_over_its_own_denominator(state: LiverState, remnant_ml: int, verdicts: dict[str, str]) -> None:
    measured = volumes(remnant_ml, 1500 - remnant_ml)
    found = {t.source.split(",")[0]: verdict for t, _, verdict in Assessment(measured, Clinical(PATIENT, state)).judged()}
    assert found == verdicts


def test_without_height_and_weight_nothing_is_guessed() -> None:
    assessment = Assessment(volumes(300, 1200), Clinical(liver_state=LiverState.NORMAL))
    found = {threshold.over: verdict for threshold, _, verdict in assessment.judged()}
    assert found == {
        Denominator.VAUTHEY: "not applicable",
        Denominator.URATA: "not applicable",
        Denominator.MEASURED: "not met",
    }
    assert assessment.to_json()["standardised"] == "not computable"
    assert assessment.to_json()["sflr_percent"] is None
    assert assessment.describe()[0] == "sFLR not computable: height and weight are not known"
    assert "  not applicable: 20 % over sTLV by Vauthey 2002 (Kishi 2009), here not computable" in assessment.describe()
    assert assessment.findings()[0] == ("the remnant is below 25 % over measured liver without tumours (Shoup 2003): 20.0 %")
    weight_alone = Assessment(volumes(300, 1200), Clinical(Patient(weight_kg=80.0)))
    assert math.isnan(weight_alone.sflr_percent)
    assert weight_alone.findings() == [
        "the remnant is 0.38 % of the body weight, below 0.5 % (Truant 2007, J Am Coll Surg 204:22)"
    ]


def test_no_stated_liver_lists_all_and_judges_none() -> None:
    judged = Assessment(volumes(10, 1490), Clinical(PATIENT)).judged()
    assert len(judged) == len(THRESHOLDS)
    assert {verdict for _, _, verdict in judged} == {"not judged"}
    nothing = Assessment(measure_volumes(np.zeros((1, 1, 1), np.uint8), 1.0), Clinical(liver_state=LiverState.INJURED))
    assert {verdict for _, _, verdict in nothing.judged()} == {"not applicable"}


def test_growth_since_a_prior_volumetry() -> None:
    prior = Prior(300.0, date(2026, 3, 1), "A", "before/plan.json")
    now = Patient(170.0, 80.0, patient_id="A", scan_date=date(2026, 4, 1))
    assessment = Assessment(volumes(), Clinical(now, prior=prior, weeks=4.0))
    assert assessment.hypertrophy_points == pytest.approx(100 * 200 / 1668.8, abs=0.01)
    assert assessment.growth_points_per_week == pytest.approx(100 * 200 / 1668.8 / 4, abs=0.01)
    assert assessment.findings() == []
    without_weeks = Assessment(volumes(), Clinical(now, prior=prior))
    assert math.isnan(without_weeks.growth_points_per_week)
    assert "degree of hypertrophy 12.0 points, kinetic growth rate not computable" in without_weeks.describe()
    unknown = Assessment(volumes(), Clinical(PATIENT, prior=prior)).findings()
    assert unknown == [
        "the files do not say that the prior volumetry is of the same patient and earlier than this CT; check it"
    ]


@pytest.mark.parametrize(
    ("weeks", "scanned", "said"),
    [
        (4.0, date(2026, 3, 5), None),  # 27 days before; weeks are often said rounded
        (10.0, date(2026, 3, 1), "the embolisation, 10 weeks before this CT, would lie before the prior volumetry, which was scanned 31 days"),
        (1.5, date(2026, 4, 1), "the embolisation, 1.5 weeks before this CT, would lie before the prior volumetry, which was scanned 0 days"),
        (None, date(2026, 4, 1), "the prior volumetry is of the same day as this CT"),
        (10.0, None, None),
    ],
)  # fmt: skip
def test_weeks_and_days_that_contradict_each_other_are_told(
    weeks: float | None, scanned: date | None, said: str | None
) -> None:
    now = Patient(170.0, 80.0, patient_id="A", scan_date=date(2026, 4, 1))
    found = Assessment(volumes(), Clinical(now, prior=Prior(300.0, scanned, "A", "x"), weeks=weeks)).findings()
    assert [f for f in found if "prior volumetry is of the same day" in f or "would lie before" in f] == (found if said else [])
    assert all(f.startswith(said or "") for f in found)
    assert bool(found) == (said is not None or scanned is None)


def test_numbers_of_numpy_are_plain_ones() -> None:
    known = Clinical(Patient(np.float32(170), np.int64(80)), prior=PRIOR, weeks=np.int64(4))  # type: ignore[arg-type]
    assert json.loads(json.dumps(Assessment(volumes(), known).to_json()))["patient"]["weight_kg"] == 80.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patient(1.75, 80.0), r"height_cm \(given\): expected 100 to 250 cm, got 1.75, which looks like metres: 175 cm\?"),
        (lambda: Patient(170.0, 0.0), r"weight_kg \(given\): expected 25 to 350 kg, got 0"),
        (lambda: Patient(170.0, math.nan), r"weight_kg .* got nan"),
        (lambda: Clinical(weeks=4.0), "say nothing without the volumetry before"),
        (lambda: Patient(weight_kg=10**400), "weight_kg: expected a number, got 1000"),
        (lambda: Clinical(prior=PRIOR, weeks=0.0), r"expected a day \(0.14\) to 520, got 0"),
        (lambda: Clinical(prior=PRIOR, weeks=1e-320), r"expected a day \(0.14\) to 520"),
        (lambda: Clinical(prior=PRIOR, weeks=math.nan), "to 520, got nan"),
        (
            lambda: Clinical(Patient(patient_id="B"), prior=Prior(1.0, None, "A", "before.json")),
            "before.json is of patient A, this CT of B",
        ),
        (
            lambda: Clinical(Patient(scan_date=date(2026, 1, 1)), prior=Prior(1.0, date(2026, 2, 1), None, "before.json")),
            r"before.json was scanned on 2026-02-01, after this CT \(2026-01-01\)",
        ),
        (
            lambda: Clinical(Patient(), prior=Prior(1.0, date(9999, 1, 1), None, "before.json")),
            "before.json was scanned on 9999-01-01, after today",
        ),
    ],
    ids=[
        "metres", "no weight", "nan", "beyond all floats", "weeks alone", "no weeks", "hardly any weeks", "weeks nan", "another patient",
        "a prior of the future", "of a day to come",
    ],
)  # fmt: skip
def test_bad_input_is_told(make: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make()  # type: ignore[operator]


def test_a_prior_is_read_from_its_report(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"volumes": {"flr_functional_ml": 320.5}, "patient": {"id": "A", "scan_date": "2026-03-01"}}')
    assert read_prior(path) == Prior(320.5, date(2026, 3, 1), "A", str(path))
    path.write_text('{"volumes": {"flr_functional_ml": 320.5}}')
    assert read_prior(path).scan_date is None
    path.write_text('{"schema": 2, "volumes": {"flr_functional_ml": 320.5}}')
    with pytest.raises(SettingsError, match="expected a plan of form 1, found 2: another version of flrplan wrote it"):
        read_prior(path)
    huge = f'{{"volumes": {{"flr_functional_ml": {10**400}}}}}'
    for text in (huge, '{"volumes": {}}', "[]", '{"volumes": {"flr_functional_ml": null}}', "no json"):
        path.write_text(text)
        with pytest.raises(SettingsError, match=r"plan\.json: expected the plan\.json of an earlier plan"):
            read_prior(path)


def test_the_patient_of_a_dicom_header() -> None:
    header = {"PatientSize": "1.7", "PatientWeight": 80, "PatientID": " A ", "StudyDate": "20260401"}
    assert patient_of_header(header) == (Patient(170.0, 80.0, "DICOM header", "A", date(2026, 4, 1)), [])
    assert patient_of_header({"PatientSize": 0, "PatientWeight": "", "StudyDate": "2026"})[0] == Patient(source="DICOM header")
    patient, notes = patient_of_header({"PatientSize": 170, "PatientWeight": 80.0})
    assert (patient.height_cm, patient.weight_kg) == (None, 80.0)
    assert notes == ["PatientSize of the DICOM header (170) is implausible and was not used"]


def test_partial_volume_is_half_a_voxel_at_both_ends_of_a_column() -> None:
    label = np.zeros((6, 4, 5), np.uint8)
    label[1:4, 1:3, 1:4] = 1  # 6 columns through the slices
    label[2, 1, 1] = 4  # one of them is broken: two ends more
    assert partial_volume_ml(label, Geometry((5, 4, 6), (1.0, 2.0, 5.0))) == pytest.approx(14 * 0.01 / 2)
    assert partial_volume_ml(label * 0, Geometry((5, 4, 6), (1.0, 2.0, 5.0))) == 0.0


def test_a_prior_that_is_none_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ct\.nii\.gz: expected the plan\.json of an earlier plan"):
        read_prior(tmp_path / "ct.nii.gz")
    path = tmp_path / "plan.json"
    for volume in ("-3.0", "NaN"):
        path.write_text(f'{{"volumes": {{"flr_functional_ml": {volume}}}}}')
        with pytest.raises(SettingsError, match=r"with volumes and flr_functional_ml in it"):
            read_prior(path)
