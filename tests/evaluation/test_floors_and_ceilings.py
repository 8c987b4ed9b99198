"""Harder trivial answers, the best that a given liver allows, and the original labels as a rater."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from flrplan.evaluation.fixed_plane import LiverSample, directions, fit_plane, fit_planes, sample_liver
from flrplan.evaluation.trivial_plans import Plane, beyond_plane, farthest_part, without_tumour, without_tumour_side
from flrplan.image import Geometry
from flrplan.metrics import Region

SPACING = (5.0, 1.0, 1.25)
SHAPE = (12, 20, 20)
SLICES, ROWS = slice(1, 11), slice(2, 18)


def geometry(direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1)) -> Geometry:
    return Geometry(SHAPE[::-1], SPACING[::-1], (7.0, -3.0, 11.0), direction)


def box(z=SLICES, y=ROWS, x=ROWS) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[z, y, x] = True
    return mask


def region(mask) -> Region:
    return Region.of(mask, SPACING)


def array(found: Region) -> np.ndarray:
    return found.on_crop_of(region(np.ones(SHAPE, bool)))


LIVER, EMPTY = box(), np.zeros(SHAPE, bool)
MIRRORED = (-1.0, 0, 0, 0, 1, 0, 0, 0, 1)  # the patient's left is at the first column


@pytest.mark.parametrize("at_border", [False, True])
def test_margin_around_tumours_is_in_millimetres(at_border):
    crlm = EMPTY.copy()
    crlm[1 if at_border else 5, 8, 10] = crlm[6, 3:5, 15:17] = True
    crlm[0, 0, 0] = at_border  # outside the liver, at a corner of the image
    liver = np.ones(SHAPE, bool) if at_border else LIVER
    apart = cdist(np.argwhere(liver) * SPACING, np.argwhere(crlm) * SPACING).min(axis=1)
    expected = liver.copy()
    expected[liver] = apart > 10.0
    np.testing.assert_array_equal(array(without_tumour(region(liver), region(crlm), 10.0)), expected)
    # From slice 5, two slices of 5 mm are exactly 10 mm.
    assert at_border or not expected[7, 8, 10]
    np.testing.assert_array_equal(array(without_tumour(region(liver), region(crlm))), liver & ~crlm)


@pytest.mark.parametrize("direction", [(1.0, 0, 0, 0, 1, 0, 0, 0, 1), MIRRORED], ids=["LPS", "mirrored"])
def test_side_with_more_tumour_goes(direction):
    on = geometry(direction)
    left = box(x=slice(12, 18)) if direction != MIRRORED else box(x=slice(2, 8))  # 5.6 of 16 columns: the sixth whole
    right = LIVER & ~left
    big, small = (np.zeros(SHAPE, bool) for _ in range(2))
    big[np.unravel_index(np.flatnonzero(left)[:20], SHAPE)] = True
    small[np.unravel_index(np.flatnonzero(right)[:10], SHAPE)] = True
    outside = np.zeros(SHAPE, bool)
    outside[0] = True
    liver = region(LIVER)
    np.testing.assert_array_equal(array(without_tumour_side(liver, region(big | small), on)), right)
    np.testing.assert_array_equal(array(without_tumour_side(liver, region(small), on)), left)
    assert without_tumour_side(liver, region(EMPTY), on) is liver
    assert without_tumour_side(liver, region(outside), on) is liver, "tumour that is in no side"


def test_parts_of_an_empty_liver_and_of_none_of_it():
    assert farthest_part(region(EMPTY), geometry(), (1.0, 0.0, 0.0), 0.5).is_empty
    assert farthest_part(region(LIVER), geometry(), (1.0, 0.0, 0.0), 0.0).is_empty
    assert farthest_part(region(LIVER), geometry(), (1.0, 0.0, 0.0), 1.0).voxels == LIVER.sum()
    assert without_tumour(region(EMPTY), region(LIVER), 10.0).is_empty


def test_part_beyond_a_plane_is_the_same_patient_whatever_the_axes():
    normal = (0.48, 0.6, 0.64)
    plane = Plane(normal, 0.3, 1, 1.0)
    ours = beyond_plane(region(LIVER), geometry(), plane)
    assert ours.voxels == round(0.3 * LIVER.sum())
    # The same voxels in a file whose x runs the other way.
    turned = Geometry(SHAPE[::-1], SPACING[::-1], (7.0 + 19 * 1.25, -3.0, 11.0), MIRRORED)
    theirs = beyond_plane(region(LIVER[..., ::-1]), turned, plane)
    np.testing.assert_array_equal(array(theirs)[..., ::-1], array(ours))


def sample(flr: np.ndarray, fold: int, on: Geometry | None = None) -> LiverSample:
    return LiverSample("case", fold, *sample_liver(region(LIVER), region(flr), on or geometry()))


def test_the_plane_is_that_of_the_training_cases():
    to_right, to_left = box(x=slice(2, 10)), box(x=slice(12, 18))
    plane = fit_plane([sample(to_right, 0), sample(to_right, 1)])
    tried = directions()
    # The direction nearest to the patient's right, as all others tilt the cut more; half of the liver.
    assert plane.normal_lps == tuple(tried[(tried @ [-1, 0, 0]).argmax()])
    assert (plane.flr_fraction, plane.cases) == (0.5, 2)
    assert 0.9 < plane.dice < 1.0
    # Mean of 8 and 6 of 16 columns.
    assert fit_plane([sample(to_right, 0), sample(to_left, 1)]).flr_fraction == 7 / 16
    assert fit_plane([]) is None


def test_a_fold_does_not_choose_its_own_plane():
    right, left = box(x=slice(2, 10)), box(x=slice(10, 18))
    planes = fit_planes([sample(right, 0), sample(right, 0), sample(left, 1)])
    assert planes[0].normal_lps[0] > 0.9, "of fold 1, whose remnant is the left"
    assert planes[1].normal_lps[0] < -0.9
    assert planes[None].cases == 3
    assert set(fit_planes([sample(right, 0)])) == {None}, "a split of one fold has no other"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, command):
    """Folds whose FLR is on opposite sides; livers that lack a part of the FLR; the original labels of some cases."""
    from .conftest import Bench, planning_map

    bench = Bench(tmp_path_factory.mktemp("floors"))
    bench.split([["a1", "a2"], ["b1", "b2"]], ["t1", "t2", "t3"])
    short = box(x=slice(4, 18))
    for case in ("a1", "a2", "b1", "b2", "t1", "t2"):
        flr = bench.FLR if case[0] != "b" else bench.FLR[..., ::-1]
        bench.label(case, planning_map(flr=flr))
    for name, mask in (("liver", short), ("flr", bench.FLR), ("crlm", bench.CRLM)):
        bench.write(bench.labels / "t3" / f"{name}.nii.gz", mask)
    for case in ("a1", "a2", "b1", "b2", "t1", "t2", "t3"):
        for column, mask in (("pipelined_liver", short), ("pipelined_flr", bench.FLR), ("e2e_flr", bench.FLR)):
            bench.predict("nnunet", column, case, mask)
    for case in ("t1", "t2", "t3"):
        bench.predict("nnunet", "cascaded_crlm", case, bench.CRLM)
        bench.predict("nnunet", "cascaded_flr", case, bench.FLR)
        bench.predict("own", "cascaded_flr", case, bench.FLR)
    for case in ("a1", "a2", "b1", "t1", "elsewhere"):
        label = planning_map(crlm=bench.LESION_A, flr=np.roll(bench.FLR, 1, axis=2))
        bench.write(bench.root / "original" / f"{case}.nii.gz", label)
    assert command(bench.arguments("--original", str(bench.root / "original"))) == 0
    rows = [r for name in ("cases.csv", "baselines.csv") for r in csv.DictReader((bench.out / name).open())]
    return (
        bench,
        {(r["case"], r["architecture"], r["column"]): r for r in rows},
        json.loads((bench.out / "summary.json").read_text()),
    )


CEILING = 2 * 1280 / (1600 + 1280)  # 8 of 10 columns inside


def test_ceiling_of_a_case_is_that_of_the_liver_it_was_given(evaluated):
    bench, rows, summary = evaluated
    ceiling = {key: row["dice_ceiling"] for key, row in rows.items()}
    assert float(ceiling["t1", "nnunet", "pipelined_flr"]) == 1.0
    assert float(ceiling["t3", "nnunet", "pipelined_flr"]) == pytest.approx(CEILING), "the true liver itself lacks two columns"
    assert float(ceiling["t1", "nnunet", "cascaded_flr"]) == pytest.approx(CEILING), "its own liver does"
    assert float(ceiling["t1", "nnunet", "cascaded_crlm"]) == float(ceiling["t3", "nnunet", "e2e_flr"]) == 1.0
    assert ceiling["t1", "own", "cascaded_flr"] == "nan"
    assert "dice_ceiling: the liver of this cascade was not predicted" in rows["t1", "own", "cascaded_flr"]["undefined"]
    assert ceiling["t1", "nnunet", "pipelined_liver"] == "", "no liver is given for the liver"
    assert float(ceiling["t1", "predicted_fixed_plane:nnunet", "e2e_flr"]) == pytest.approx(CEILING)
    one, two, page = bench.tables()
    pipelined = (2 + CEILING) / 3
    cells = [f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in ((pipelined, CEILING, 1), (1, 1, 1), (CEILING,) * 3)]
    assert f"| ceiling: nnU-Net | D | - | - | {' | '.join(cells)} | - |" in two
    assert "| ceiling: own" not in two
    assert "any prediction inside the given liver" in one
    assert "highest Dice inside the given liver" in page
    assert summary["test"]["nnunet"]["cascaded_flr"]["dice_ceiling"]["mean"] == pytest.approx(CEILING)


def test_planes_of_the_run(evaluated):
    _, rows, summary = evaluated
    planes = summary["fixed_planes"]
    assert {name: plane["training_cases"] for name, plane in planes.items()} == {"fold_0": 2, "fold_1": 2, "test": 4}
    assert planes["fold_0"]["normal_lps"][0] > 0.9
    assert planes["fold_1"]["normal_lps"][0] < -0.9
    assert float(rows["a1", "fixed_plane", "pipelined_flr"]["dice"]) < 0.5, "chosen on the other fold"
    assert float(rows["a1", "fixed_plane", "pipelined_flr"]["volume_prediction_ml"]) == pytest.approx(10.0)
    assert float(rows["a1", "predicted_fixed_plane:nnunet", "e2e_flr"]["volume_prediction_ml"]) == pytest.approx(10.0 * 14 / 16)


def test_original_labels_are_a_row_that_is_never_ranked(evaluated):
    bench, rows, summary = evaluated
    shifted = rows["t1", "original_labels", "pipelined_flr"]
    assert float(shifted["dice"]) == pytest.approx(0.9)
    assert float(shifted["flr_percent_own_prediction"]) == pytest.approx(100 * 1600 / (2560 - 32)), (
        "of its own liver and tumour"
    )
    assert float(rows["t1", "original_labels", "pipelined_crlm"]["dice"]) == pytest.approx(64 / 68)
    assert float(rows["t1", "original_labels", "pipelined_liver"]["dice"]) == 1.0
    assert ("t2", "original_labels", "pipelined_flr") not in rows
    assert ("elsewhere", "original_labels", "pipelined_flr") not in rows
    original = summary["original_labels"]
    assert original["missing"] == ["b2", "t2", "t3"]
    assert original["test"]["cascaded_flr"]["dice"]["n"] == 1
    assert original["cv"]["pipelined_crlm"]["dice"]["n"] == 3
    one, two, page = bench.tables()
    for text in (one, two, page):
        assert "3 cases have none: b2, t2, t3." in text
    row = next(line for line in two.splitlines() if line.startswith("| pseudo-rater: original labels | D"))
    flr = "0.900 (1 of 3)"
    assert (
        row
        == f"| pseudo-rater: original labels | D | 1.000 (1 of 3) | 0.941 (1 of 3) | {flr} | 0.941 (1 of 3) | {flr} | {flr} |"
    )
    for compared in ("comparisons", "rankings", "baselines", "threshold_crossings"):
        assert "original" not in json.dumps(summary[compared])
    assert "original labels" in page[page.index('id="further"') :]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda b: b.write(b.root / "original" / "t1.nii.gz", b.FLR, spacing_zyx=(5, 1, 1)), "not on the grid of"),
        (lambda b: b.write(b.root / "original" / "t1.nii.gz", np.full(SHAPE, 7, np.uint8)), "found [7]"),
    ],
    ids=["grid", "values"],
)
def test_broken_original_labels_are_named(whole, command, capsys, spoil, said):
    spoil(whole)
    assert command(whole.arguments("--original", str(whole.root / "original"))) == 1
    assert "broken original label: t1" in (told := capsys.readouterr().err)
    assert said in told
    assert not whole.out.exists()


def test_original_labels_of_other_cases_are_refused(whole, command, capsys):
    whole.write(whole.root / "original" / "p7.nii.gz", whole.FLR)
    assert command(whole.arguments("--original", str(whole.root / "original"))) == 1
    assert "none of its 1 labels is of a case of the split, such as a1" in capsys.readouterr().err


def test_original_labels_that_are_the_labels_themselves_are_refused(whole, command, capsys):
    assert command(whole.arguments("--original", str(whole.labels))) == 1
    assert "is the label that predictions are scored against" in capsys.readouterr().err


def test_no_architecture_is_called_like_a_row_of_the_tables(whole, command, capsys):
    for name in ("original_labels", "predicted_fixed_plane:nnunet"):
        whole.predict(name, "pipelined_flr", "t1", whole.FLR)
        assert command(whole.arguments()) == 1
        assert "the tables have a row of this name" in capsys.readouterr().err
        (whole.predictions / name / "pipelined_flr" / "t1.nii.gz").unlink()
        (whole.predictions / name / "pipelined_flr").rmdir()
        (whole.predictions / name).rmdir()
