"""What lies where: the pelvis below the liver, fluid where the facts say so, mirrored patients, body shapes, native livers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flrplan.anatomy import Structure, structure_mask
from flrplan.cohort import CaseSize, Organ, SyntheticCase, make_case
from flrplan.cohort.ascites import Ascites, draw_ascites, fluid, recede
from flrplan.cohort.attenuation import attenuate
from flrplan.cohort.fields import Frame, make_frame
from flrplan.cohort.landmarks import descent
from flrplan.cohort.liver import LiverFields, draw_liver_shape, make_liver
from flrplan.cohort.organs import Stream, stream
from flrplan.cohort.patient import Patient, ScanRange, draw_patient
from flrplan.cohort.render import draw_intensities
from flrplan.cohort.scan import Phase, draw_scan
from flrplan.cohort.trunk import Cavity, make_cavity

SEED = 3
PUBIS_Z_MM = -300.0
"""Body coordinate of the symphysis, before scaling."""


def centre_mm(case: SyntheticCase, organ: Organ) -> tuple[float, float, float]:
    """Centroid (z, y, x) of an organ in mm from the first voxel."""
    dx, dy, dz = case.geometry.spacing_mm
    z, y, x = (float(np.mean(i)) for i in np.nonzero(case.organs_zyx == organ))
    return z * dz, y * dy, x * dx


@pytest.fixture(scope="module")
def pelvis_case() -> tuple[Patient, SyntheticCase]:
    index = next(i for i in range(100) if draw_patient(SEED, i).scan_range is ScanRange.ABDOMEN_PELVIS)
    return draw_patient(SEED, index), make_case(SEED, index, CaseSize.SMALL)


def test_the_bladder_lies_below_the_liver_between_two_femoral_heads(pelvis_case: tuple[Patient, SyntheticCase]) -> None:
    patient, case = pelvis_case
    dx, dy, dz = case.geometry.spacing_mm
    liver = structure_mask(case.planning_zyx, Structure.LIVER)
    bladder_z, _, bladder_x = centre_mm(case, Organ.BLADDER)
    assert bladder_z < np.nonzero(liver)[0].min() * dz - 50
    assert abs(bladder_x - centre_mm(case, Organ.SPINAL_CANAL)[2]) < 40
    bone = np.isin(case.organs_zyx, (Organ.BONE_CORTICAL, Organ.BONE_SPONGY))
    z, _, x = (i * s for i, s in zip(np.nonzero(bone), (dz, dy, dx), strict=True))
    at_hip = np.abs(z - bladder_z) < 45 * patient.scale_xyz[2]
    for side in (-1, 1):
        lateral = side * (x - bladder_x) / patient.scale_xyz[0]
        # A head of 24 mm radius holds 58 ml; the bending displaces and cuts some of it.
        head_ml = np.count_nonzero(at_hip & (lateral > 50) & (lateral < 125)) * case.geometry.voxel_volume_ml
        assert head_ml > 40 * np.prod(patient.scale_xyz)


def test_bowel_lies_between_liver_and_bladder(pelvis_case: tuple[Patient, SyntheticCase]) -> None:
    _, case = pelvis_case
    heights = [centre_mm(case, organ)[0] for organ in (Organ.BLADDER, Organ.BOWEL_WALL, Organ.LIVER)]
    assert heights == sorted(heights)


def test_planning_map_of_a_pelvis_case_is_the_liver_and_nothing_below(pelvis_case: tuple[Patient, SyntheticCase]) -> None:
    _, case = pelvis_case
    assert np.array_equal(case.planning_zyx > 0, np.isin(case.organs_zyx, (Organ.LIVER, Organ.TUMOUR)))


def test_more_than_a_third_of_the_scans_reach_below_the_pubis() -> None:
    patients = [draw_patient(SEED, index) for index in range(600)]
    pelvic = [p for p in patients if p.scan_range is ScanRange.ABDOMEN_PELVIS]
    assert 0.32 < len(pelvic) / len(patients) < 0.40
    assert all(p.z_low_mm < PUBIS_Z_MM * p.scale_xyz[2] for p in pelvic)
    cut = [p for p in patients if p.scan_range is ScanRange.DOME_CUT]
    assert all(p.z_high_mm < p.dome_right_mm * p.scale_xyz[2] for p in cut)
    to_the_hips = [p for p in cut if p.z_low_mm < -270 * p.scale_xyz[2]]
    assert 0.4 < len(to_the_hips) / len(cut) < 0.8


def test_bodies_range_from_thin_to_obese() -> None:
    patients = [draw_patient(SEED, index) for index in range(600)]
    fat, belly = np.array([(p.fat_mm, p.belly_mm) for p in patients]).T
    assert fat.min() < 6
    assert fat.max() > 45
    assert belly.min() < -10
    assert belly.max() > 35
    assert 0.5 < np.corrcoef(fat, belly)[0, 1] < 0.95
    assert all(p.front_mm >= p.body_radii_mm[1] * p.scale_xyz[1] for p in patients)


def flat_frame(mirrored: bool) -> Frame:
    return make_frame(
        np.random.default_rng(0), (-200.0, -40.0, -40.0), (200.0, 40.0, 40.0), (1.1, 1.0, 1.0), (0.0, 0.0), mirrored
    )


def test_a_mirrored_frame_exchanges_left_and_right_and_crops_there() -> None:
    plain, mirrored = flat_frame(False), flat_frame(True)
    assert np.array_equal(mirrored.x, -plain.x)
    assert np.array_equal(mirrored.y, plain.y)
    assert np.array_equal(mirrored.z, plain.z)
    left = mirrored.crop((50, -20, -20), (90, 20, 20), margin=0)
    assert left.mirrored
    assert left.x.min() == pytest.approx(50, abs=4)
    assert left.x.max() == pytest.approx(90, abs=4)
    assert left.axes_mm[2].max() < 0


def test_situs_inversus_puts_the_liver_left_and_keeps_the_truth() -> None:
    index = next(i for i in range(1000) if draw_patient(SEED, i).situs_inversus)
    case = make_case(SEED, index, CaseSize.SMALL)
    assert case.facts["situs_inversus"] is True
    spine = centre_mm(case, Organ.SPINAL_CANAL)[2]
    # LPS: x grows to the patient's left.
    assert centre_mm(case, Organ.LIVER)[2] > spine
    assert centre_mm(case, Organ.SPLEEN)[2] < spine
    assert centre_mm(case, Organ.CAVA)[2] > centre_mm(case, Organ.AORTA)[2]
    assert case.geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert np.array_equal(case.planning_zyx > 0, np.isin(case.organs_zyx, (Organ.LIVER, Organ.TUMOUR)))


def test_about_one_patient_in_a_hundred_is_mirrored_and_six_have_ascites() -> None:
    mirrored = [draw_patient(seed, index).situs_inversus for seed in (1, 2, 3) for index in range(1000)]
    wet = [draw_ascites(seed, index).gap_mm > 0 for seed in (1, 2, 3) for index in range(1000)]
    assert 0.005 < np.mean(mirrored) < 0.016
    assert 0.047 < np.mean(wet) < 0.073


def test_facts_tell_fluid_and_fat_in_the_liver(small_cases: list[SyntheticCase]) -> None:
    wet = [case for case in small_cases if case.facts["ascites"]]
    assert 0 < len(wet) < len(small_cases)
    for case in small_cases:
        fluid_ml = np.count_nonzero(case.organs_zyx == Organ.ASCITES) * case.geometry.voxel_volume_ml
        assert case.facts["ascites_ml"] == pytest.approx(fluid_ml, abs=0.1)
        assert case.facts["ascites"] == (fluid_ml > 0)
        assert case.facts["steatosis"] == (case.facts["liver_kind"] == "steatosis")
        assert case.facts["situs_inversus"] is False
    for case in wet:
        assert case.facts["ascites_ml"] > 50
        hu = float(np.median(case.hu_zyx[case.organs_zyx == Organ.ASCITES]))
        assert -25 < hu < 45


@pytest.fixture(scope="module")
def frame_and_liver() -> tuple[Frame, Cavity, LiverFields]:
    patient = draw_patient(SEED, 0)
    frame = make_frame(np.random.default_rng(0), (-170.0, -150.0, -300.0), (170.0, 150.0, 150.0), (1.0, 1.0, 1.0), (0.0, 0.0))
    cavity = make_cavity(frame, patient)
    return frame, cavity, make_liver(frame, cavity, patient, draw_liver_shape(stream(SEED, 0, Stream.LIVER)))


def test_fluid_lies_where_the_liver_gave_way(frame_and_liver: tuple[Frame, Cavity, LiverFields]) -> None:
    frame, cavity, liver = frame_and_liver
    ascites = Ascites(gap_mm=10.0, depth_mm=20.0)
    small = recede(liver, ascites)
    before, after = liver.liver.values > 0, small.liver.values > 0
    assert not (after & ~before).any()
    left_free = before & ~after
    beside = fluid(frame, cavity, liver, ascites)[-1][1].values > 0
    assert np.count_nonzero(left_free & beside) > 0.8 * np.count_nonzero(left_free)
    f = liver.frame
    at_hilum = np.sqrt((f.x + 22) ** 2 + (f.y - 8) ** 2 + (f.z - 15) ** 2) < 40
    assert np.array_equal(before[at_hilum], after[at_hilum])


def test_no_ascites_changes_nothing(frame_and_liver: tuple[Frame, Cavity, LiverFields]) -> None:
    frame, cavity, liver = frame_and_liver
    assert recede(liver, Ascites(0.0, 0.0)) is liver
    assert fluid(frame, cavity, liver, Ascites(0.0, 0.0)) == []


def test_native_livers_range_from_fat_to_the_brightness_of_their_neighbours() -> None:
    fatty, plain, near = [], [], 0
    for index in range(500):
        scan = draw_scan(SEED, index, draw_patient(SEED, index))
        if scan.phase is not Phase.NONE:
            continue
        look = attenuate(SEED, index, scan, draw_intensities(SEED, index, scan, []))
        assert look.organ_hu[Organ.LIVER] == pytest.approx(look.liver_hu)
        assert 25 < look.vessel_hu[0] < 60
        assert look.organ_hu[Organ.AORTA] == look.organ_hu[Organ.CAVA] == pytest.approx(look.vessel_hu[1])
        if look.liver_kind == "steatosis":
            fatty.append(look.liver_hu)
        elif look.liver_kind == "normal":
            plain.append(look.liver_hu)
            near += min(abs(look.liver_hu - look.organ_hu[o]) for o in (Organ.SPLEEN, Organ.MUSCLE, Organ.BOWEL_WALL)) < 6
    assert min(fatty) < 5
    assert min(fatty) >= -10
    assert max(fatty) <= 40
    assert 45 < np.median(plain) < 58
    assert near > 0.4 * len(plain)


def test_blood_is_brighter_than_a_fatty_liver_with_contrast() -> None:
    seen = 0
    for index in range(300):
        scan = draw_scan(SEED, index, draw_patient(SEED, index))
        look = attenuate(SEED, index, scan, draw_intensities(SEED, index, scan, []))
        if look.liver_kind == "steatosis" and scan.phase is Phase.PORTAL_VENOUS:
            seen += 1
            assert look.vessel_hu[0] > look.liver_hu
    assert seen > 5


def test_lesions_keep_their_contrast_but_stay_above_fluid() -> None:
    scan = draw_scan(SEED, 0, draw_patient(SEED, 0))
    index, look = next(
        (i, look)
        for i in range(200)
        if (look := draw_intensities(SEED, i, scan, [])).liver_kind == "steatosis"
        and attenuate(SEED, i, scan, look).liver_hu < look.liver_hu - 5
    )
    liver = look.liver_hu
    given = replace(look, lesion_hu=np.array([liver - 60, liver - 5, liver + 30, 9.0], np.float32))
    found = attenuate(SEED, index, scan, given)
    moved = found.liver_hu - liver
    assert found.lesion_hu[0] == pytest.approx(max(liver - 60 + moved, min(liver - 60, 8)), abs=1e-3)
    assert found.lesion_hu[1:3] == pytest.approx([liver - 5 + moved, max(liver + 30 + moved, 8)], abs=1e-3)
    assert found.lesion_hu[3] >= 8 or abs(9 - liver) <= 15


def test_urine_is_dark_but_for_late_scans() -> None:
    dark, bright = 0, 0
    for index in range(300):
        scan = draw_scan(SEED, index, draw_patient(SEED, index))
        urine = float(attenuate(SEED, index, scan, draw_intensities(SEED, index, scan, [])).organ_hu[Organ.BLADDER])
        dark += 0 <= urine <= 20
        bright += urine >= 60
        assert scan.phase not in (Phase.NONE, Phase.ARTERIAL) or urine <= 20
    assert dark + bright == 300
    assert 0.05 < bright / 300 < 0.25


def test_descent_runs_from_zero_to_one() -> None:
    z = np.array([10.0, 0.0, -5.0, -10.0, -20.0], np.float32)
    assert descent(z, 0.0, -10.0) == pytest.approx([0, 0, 0.5, 1, 1])
