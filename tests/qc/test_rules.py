"""Every rule finds its fault, where it is and how large, by hand; and says nothing about a label without faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flrplan.anatomy import Structure
from flrplan.errors import GridError, SettingsError
from flrplan.image import CT, Geometry
from flrplan.qc import RULES, Finding, QcCase, Severity, check_case
from flrplan.qc.registry import Checked, check_settings
from flrplan.qc.rule import MANY
from flrplan.qc.rules.rough import roughness_mm
from flrplan.qc.rules.shell import capsule_shell

VOXEL_ML = 0.08
Anatomy = Any


def one(case: QcCase, rule: str) -> Finding:
    findings = check_case(case, rules=[rule]).findings
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize("image", [True, False])
def test_a_label_without_faults_has_no_findings(anatomy: Anatomy, image: bool) -> None:
    checked = check_case(anatomy.case(image))
    assert checked.findings == ()
    assert set(checked.not_checked) == {"partition"} | (set() if image else {"missed", "oversegmented", "contrast_phase"})
    assert checked.not_checked["partition"] == "lrs"
    assert checked.score == 0.0


def test_a_void_is_found_at_its_place_in_the_labels_own_axes(anatomy: Anatomy) -> None:
    anatomy.liver[18:20, 22:24, 24:27] = False
    for direction in ((1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)):
        found = one(anatomy.case(False, direction), "voids")
        assert found.box_zyx == ((18, 22, 24), (19, 23, 26))
        assert found.size == pytest.approx(12 * VOXEL_ML)
        x, y = (4.0 * direction[0] * 25, 4.0 * direction[4] * 22.5)
        assert found.centre_mm == pytest.approx((x, y, 5.0 * 18.5))
    assert one(anatomy.case(), "voids").severity is Severity.WARNING


def test_a_void_on_other_tissue_is_a_note(anatomy: Anatomy) -> None:
    anatomy.liver[17:21, 21:25, 24:28] = False
    anatomy.hu[16:22, 20:26, 23:29] = 0
    found = one(anatomy.case(), "voids")
    assert found.severity is Severity.NOTE
    assert "vessel, gallbladder" in found.message


def test_a_large_hole_without_a_ct_may_be_the_gallbladder(anatomy: Anatomy) -> None:
    anatomy.liver[17:22, 20:26, 22:28] = False  # 180 voxels, 14 ml
    assert one(anatomy.case(False), "voids").severity is Severity.NOTE
    anatomy.liver[17:22, 20:26, 22:28] = True
    anatomy.liver[18:21, 21:24, 24:28] = False  # 36 voxels, 2.9 ml
    assert one(anatomy.case(False), "voids").severity is Severity.WARNING


def test_islands_do_not_make_a_liver_ragged(anatomy: Anatomy) -> None:
    anatomy.liver[10:28:2, 40:46, 44:54:2] = True
    assert one_or_none(anatomy.case(False), "rough_liver") is None


def test_the_border_of_a_comb_is_rough_and_that_of_a_ball_is_not(anatomy: Anatomy) -> None:
    assert one_or_none(anatomy.case(False), "rough_liver") is None
    for x in range(8, 40, 2):  # teeth of 4 mm beside gaps of 4 mm, 8 mm deep, on the front of every slice
        column = anatomy.liver[:, :, x]
        for z in range(column.shape[0]):
            rows = np.flatnonzero(column[z])
            column[z, rows[:4]] = False
    found = one(anatomy.case(False), "rough_liver")
    assert found.structure is Structure.LIVER
    assert "slices deviate" in found.message


def test_roughness_is_the_mean_distance_to_the_smooth_border() -> None:
    flat = np.zeros((20, 60, 60), bool)
    flat[:, :30] = True
    per_slice, solid = roughness_mm(flat, None, (2.0, 2.0, 2.0))
    assert np.nanmax(per_slice) == 0.0
    assert solid == 0.0
    comb = flat.copy()
    comb[:, 30:33, ::2] = True  # teeth of one voxel and 6 mm: their mean height is 3 mm
    per_slice, _ = roughness_mm(comb, None, (2.0, 2.0, 2.0))
    # Every second column deviates by 6 - s, the others by s, from a smooth border at s mm: 3 mm on average, less where that border waves.
    assert 2.0 < np.nanmedian(per_slice) < 4.0
    assert np.isnan(roughness_mm(np.zeros((4, 8, 8), bool), None, (2.0, 2.0, 2.0))[1])


def one_or_none(case: QcCase, rule: str) -> Finding | None:
    findings = check_case(case, rules=[rule]).findings
    return findings[0] if findings else None


def test_a_ragged_cut_is_found_and_not_taken_for_a_ragged_liver(anatomy: Anatomy) -> None:
    rng = np.random.default_rng(1)
    jag = rng.integers(-3, 4, (36, 48, 1))
    anatomy.flr = anatomy.liver & (np.arange(56) >= 18 + jag)
    assert one(anatomy.case(False), "rough_flr").structure is Structure.FLR
    assert one_or_none(anatomy.case(False), "rough_liver") is None


def test_a_cut_too_short_to_be_measured_is_not_called_ragged(anatomy: Anatomy) -> None:
    anatomy.flr[:] = anatomy.liver
    anatomy.flr[14:26, 24:26, 20:23] = False  # 8 by 12 mm; the smooth border around it is 24 mm long
    assert one_or_none(anatomy.case(False), "rough_flr") is None


def test_a_metastasis_in_the_lung_is_an_error_and_a_border_is_none(anatomy: Anatomy) -> None:
    stray = anatomy.ball((30, 20, 45), 9.0) & ~anatomy.liver
    anatomy.crlm |= stray
    found = one(anatomy.case(), "crlm_outside")
    assert found.severity is Severity.ERROR
    assert found.size == pytest.approx(stray.sum() * VOXEL_ML)
    anatomy.crlm &= ~stray
    anatomy.crlm[tuple(np.argwhere(~anatomy.liver & np.roll(anatomy.liver, 1, 2))[0])] = True  # one voxel, 0.08 ml
    assert one_or_none(anatomy.case(), "crlm_outside") is None


def test_punctate_foci_are_told_one_by_one_up_to_a_number(anatomy: Anatomy) -> None:
    spots = [(z, 20, x) for z in (17, 19, 21, 23) for x in (22, 24, 26)][: MANY + 3]
    for spot in spots:
        anatomy.crlm[spot] = True
    settings = {"punctate": {"largest_ml": 0.1}}
    checked = check_case(anatomy.case(), settings, rules=["punctate"])
    assert len(checked.findings) == MANY + 1
    assert checked.findings[-1].message == "3 more of this kind, 0.24 ml together"
    assert check_case(anatomy.case(), rules=["punctate"]).findings == ()  # a voxel is 0.08 ml, over 0.065


def test_a_huge_number_of_pieces_is_one_row_more(anatomy: Anatomy) -> None:
    anatomy.liver[::2, ::2, 40::2] = True
    checked = check_case(anatomy.case(False), {"islands": {"least_ml": 0.01}}, rules=["islands"])
    assert len(checked.findings) == MANY + 1


def test_an_island_is_an_error_where_it_is_large(anatomy: Anatomy) -> None:
    anatomy.liver |= anatomy.ball((15, 30, 45), 12.0)
    assert one(anatomy.case(), "islands").severity is Severity.WARNING
    anatomy.liver |= anatomy.ball((15, 30, 45), 22.0)
    assert one(anatomy.case(), "islands").severity is Severity.ERROR


def test_a_small_piece_at_the_border_is_an_island_and_a_large_one_a_cut_liver(anatomy: Anatomy) -> None:
    anatomy.liver[15:20, 20:25, :3] = True  # 75 voxels, 5 x 5 of them (5 cm2) on the outermost plane
    assert one(anatomy.case(False), "islands").size == pytest.approx(75 * VOXEL_ML)
    assert one_or_none(anatomy.case(False), "in_view") is None
    anatomy.liver[5:32, 8:40, 50:] = True
    assert "cut by the field of view (left)" in one(anatomy.case(False), "in_view").message
    assert len(check_case(anatomy.case(False), rules=["islands"]).findings) == 1


def test_flr_outside_the_liver(anatomy: Anatomy) -> None:
    beyond = anatomy.ball((20, 10, 30), 20.0) & ~anatomy.liver
    anatomy.flr |= beyond
    found = one(anatomy.case(), "flr_outside")
    assert found.size == pytest.approx(beyond.sum() * VOXEL_ML)


def test_the_resection_must_be_what_the_flr_leaves(anatomy: Anatomy) -> None:
    right = anatomy.liver & ~anatomy.flr
    assert one_or_none(anatomy.case(lrs=right), "partition") is None
    gap = right & (np.arange(56) < 16)
    findings = check_case(anatomy.case(lrs=gap), rules=["partition"]).findings
    assert [f.message.split(" ml ")[1] for f in findings] == ["of the liver are neither FLR nor LRS"]
    assert findings[0].size == pytest.approx((right & ~gap).sum() * VOXEL_ML)


def test_a_small_piece_of_remnant_is_a_warning_and_a_second_side_a_note(anatomy: Anatomy) -> None:
    anatomy.flr |= anatomy.ball((20, 20, 12), 9.0) & anatomy.liver
    assert one(anatomy.case(), "flr_pieces").severity is Severity.WARNING
    anatomy.flr = anatomy.liver & ((np.arange(56) >= 22) | (np.arange(56) < 14))
    assert one(anatomy.case(), "flr_pieces").severity is Severity.NOTE


def test_a_shell_is_found_and_a_wedge_at_the_capsule_is_not() -> None:
    spacing = (2.0, 2.0, 2.0)
    liver = np.zeros((30, 40, 40), bool)
    liver[5:25, 5:35, 5:35] = True
    half = liver & (np.arange(40) >= 20)
    assert not capsule_shell(liver, half, spacing, 4.0).any()
    peeled = half.copy()
    peeled[:, :, 34] = False  # the outermost 2 mm on the far side: a plate of 20 x 30 voxels
    shell = capsule_shell(liver, peeled, spacing, 4.0)
    assert shell.sum() == 20 * 30
    assert shell[:, :, 34].sum() == 20 * 30
    for empty in (np.zeros_like(liver), liver):
        assert not capsule_shell(liver, empty, spacing, 4.0).any()
        assert not capsule_shell(np.zeros_like(liver), empty, spacing, 4.0).any()


def test_a_liver_in_padding_and_thick_slices(anatomy: Anatomy) -> None:
    anatomy.hu[20, 20:30, 10:20] = -2048
    assert "8 ml of the liver mask lie in padding" in one(anatomy.case(), "in_view").message
    thick = replace(anatomy.case(False), geometry=Geometry((56, 48, 36), (4.0, 4.0, 7.5)))
    assert one(thick, "thick_slices").message == "slices of 7.5 mm (over 5 mm): volumes and small tumours are uncertain"


def test_volumes_and_structures_without_a_voxel(anatomy: Anatomy) -> None:
    anatomy.flr = anatomy.liver & (np.arange(56) >= 33)
    assert "nobody resects so much" in one(anatomy.case(), "volumes").message
    anatomy.flr = np.zeros_like(anatomy.flr)
    assert one(anatomy.case(), "volumes").message == "the FLR has no voxels: nothing would remain"
    anatomy.liver = np.zeros_like(anatomy.liver)
    checked = check_case(anatomy.case())
    assert "the liver has no voxels" in [f.message for f in checked.findings]
    small = replace(anatomy.case(False), masks={Structure.LIVER: anatomy.ball((20, 24, 20), 30.0)})
    assert "is outside 500 to 5000 ml" in one(small, "volumes").message


def test_vessels_and_a_heart_are_no_liver(anatomy: Anatomy) -> None:
    vessels = np.zeros_like(anatomy.liver)
    vessels[5:30, 20:23, 14:17] = vessels[15:18, 20:23, 5:40] = True
    anatomy.liver = vessels
    assert "nowhere thicker than" in " ".join(f.message for f in check_case(anatomy.case(), rules=["not_liver"]).findings)
    anatomy.liver = anatomy.ball((18, 24, 29), 44.0)
    anatomy.hu[:] = np.where(anatomy.liver, 150, -850)
    said = " ".join(f.message for f in check_case(anatomy.case(), rules=["not_liver"]).findings)
    assert "of what surrounds it is lung" in said


@pytest.mark.parametrize(("axis", "said"), [(2, "left and right"), (0, "up and down")])
def test_a_mirrored_label_lies_on_other_tissue(anatomy: Anatomy, axis: int, said: str) -> None:
    anatomy.liver, anatomy.crlm, anatomy.flr = (np.flip(m, axis) for m in (anatomy.liver, anatomy.crlm, anatomy.flr))
    assert one(anatomy.case(), "swapped").message.startswith(f"{said} of the label are swapped")


def test_upside_down_is_told_even_where_most_of_the_mask_lies_on_liver(anatomy: Anatomy) -> None:
    core = anatomy.ball((17, 24, 22), 30.0)  # the image's middle: it stays where it is
    tip = anatomy.liver & (np.arange(36)[:, None, None] >= 24)
    anatomy.hu[anatomy.liver & ~core] = -90
    anatomy.hu[core | tip] = 110
    anatomy.liver = np.flip(core | tip, 0)
    anatomy.crlm = anatomy.flr = np.zeros_like(core)
    assert one(anatomy.case(), "swapped").message.startswith("up and down of the label are swapped")


def test_image_and_label_mirrored_together_are_told_by_the_liver_alone(anatomy: Anatomy) -> None:
    anatomy.liver, anatomy.hu = np.flip(anatomy.liver, 2), np.flip(anatomy.hu, 2)
    assert "to the left of the midline" in one(anatomy.case(), "swapped").message
    assert "to the left of the midline" in one(anatomy.case(False), "swapped").message


def test_a_missed_lesion_is_found_with_its_volume(anatomy: Anatomy) -> None:
    lesion = anatomy.ball((20, 24, 26), 14.0)
    anatomy.hu[lesion] = 40
    found = one(anatomy.case(), "missed")
    assert found.size == pytest.approx(lesion.sum() * VOXEL_ML, rel=0.35)
    assert np.array(found.centre_mm) == pytest.approx((26 * 4.0, 24 * 4.0, 20 * 5.0), abs=4.0)
    anatomy.crlm |= lesion
    assert one_or_none(anatomy.case(), "missed") is None


def test_a_dark_vein_is_no_missed_lesion(anatomy: Anatomy) -> None:
    tube = np.zeros_like(anatomy.liver)
    tube[22:25, 16:19, 6:36] = tube[22:25, 19:34, 33:36] = True
    anatomy.hu[tube & anatomy.liver] = 40
    grid = Geometry((56, 48, 36), (3.0, 3.0, 4.0))  # 12 by 9 mm, 135 mm long
    case = replace(anatomy.case(False), geometry=grid, ct=CT(anatomy.hu, grid, "case", "test"))
    assert one_or_none(case, "missed") is None


def test_an_oversegmented_lesion_is_told_in_mm(anatomy: Anatomy) -> None:
    anatomy.crlm = anatomy.ball((20, 26, 15), 22.0) & anatomy.liver
    found = one(anatomy.case(), "oversegmented")
    assert found.size == pytest.approx(8.0, abs=2.0)  # 22 mm were drawn around 14


def test_a_file_on_another_grid_is_named(anatomy: Anatomy) -> None:
    other = Geometry((56, 48, 35), (4.0, 4.0, 5.0))
    found = one(replace(anatomy.case(False), off_grid={"ct.nii.gz": other}), "grids")
    assert "ct.nii.gz lies on another grid than the label (56x48x35 voxels for 56x48x36)" in found.message
    moved = Geometry((56, 48, 36), (4.0, 4.0, 5.0), (0.0, 3.0, 4.0))
    assert one(replace(anatomy.case(False), off_grid={"ct": moved}), "grids").size == pytest.approx(5.0)


def test_absent_structures_are_not_checked_and_empty_ones_are(anatomy: Anatomy) -> None:
    case = replace(anatomy.case(False), masks={Structure.LIVER: anatomy.liver})
    checked = check_case(case)
    assert checked.not_checked["crlm_outside"] == "crlm"
    assert checked.not_checked["missed"] == "crlm and a CT on its grid"
    assert checked.not_checked["shell"] == "flr"
    empty = replace(case, masks={Structure.LIVER: anatomy.liver, Structure.CRLM: np.zeros_like(anatomy.liver)})
    assert "crlm_outside" not in check_case(empty).not_checked
    assert check_case(replace(case, masks={})).findings == ()


def test_every_mask_may_be_empty(anatomy: Anatomy) -> None:
    nothing = np.zeros_like(anatomy.liver)
    anatomy.liver, anatomy.crlm, anatomy.flr = nothing, nothing, nothing
    for image in (True, False):
        assert {f.rule for f in check_case(anatomy.case(image, lrs=nothing)).findings} == {"volumes"}


def test_a_mask_of_another_shape_is_refused(anatomy: Anatomy) -> None:
    with pytest.raises(GridError, match="case case: the liver has shape"):
        QcCase("case", Geometry((5, 5, 5), (1.0, 1.0, 1.0)), {Structure.LIVER: anatomy.liver})


def test_thresholds_are_settings(anatomy: Anatomy) -> None:
    assert check_settings({"shell": {"least_ml": 2}})["shell"] == {"thickness_mm": 4.0, "least_ml": 2.0}
    with pytest.raises(SettingsError, match="unknown rules nonsense; known are grids"):
        check_settings({"nonsense": {}})
    with pytest.raises(SettingsError, match="rule shell: unknown threshold least; known are thickness_mm, least_ml"):
        check_settings({"shell": {"least": 1}})
    with pytest.raises(SettingsError, match="rule shell: least_ml must be a finite number"):
        check_settings({"shell": {"least_ml": "much"}})  # type: ignore[dict-item]
    with pytest.raises(SettingsError, match="must be a finite number, got nan"):
        check_settings({"shell": {"least_ml": float("nan")}})
    with pytest.raises(SettingsError, match="unknown rules 1"):
        check_settings({1: {}})  # type: ignore[dict-item]


def test_a_finding_is_data(anatomy: Anatomy, found: Callable[[QcCase], list[str]]) -> None:
    anatomy.flr |= anatomy.ball((20, 10, 30), 20.0)
    record = one(anatomy.case(), "flr_outside").as_dict()
    assert record["schema"] == 1
    assert (record["case"], record["rule"], record["severity"], record["structure"]) == ("case", "flr_outside", "error", "flr")
    assert record["source"] == RULES["flr_outside"].source
    assert found(anatomy.case()) == ["flr_outside"]


def test_the_score_sorts_by_the_worst_severity_then_by_number() -> None:
    def score(*severities: Severity) -> float:
        return Checked("case", tuple(Finding("case", "rule", s, "") for s in severities), {}).score

    error, warning, note = Severity
    ordered = [
        score(),
        score(note),
        score(note, note),
        score(*[warning]),
        score(*[warning] * 9),
        score(error),
        score(error, error),
    ]
    assert ordered == sorted(ordered)
    assert (score(note), score(warning), score(error), score(error, error)) == (1.0, 2.0, 3.0, 3.5)


def test_every_rule_says_why_and_has_thresholds_with_sources() -> None:
    for name, rule in RULES.items():
        assert rule.source, name
        assert rule.title, name
        assert all(t.source and t.unit for t in rule.thresholds), name
        assert (rule.repair is None) == (rule.repaired == ""), name
