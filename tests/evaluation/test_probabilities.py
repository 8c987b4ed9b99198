"""Saved probabilities in an evaluation: curves by hand, what lacks, and files that are another prediction's."""

from __future__ import annotations

import csv
import json
from shutil import rmtree

import numpy as np
import pytest

from flrplan.evaluation import EvaluationSettings
from flrplan.evaluation.probabilities import sensitivity_intervals, summarise_probabilities
from flrplan.evaluation.run import find
from flrplan.evaluation.scoring import score_case
from flrplan.metrics.froc import Candidates


def save(bench, column, case, values, **kwargs):
    return bench.write(bench.root / "probabilities/nnunet" / column / f"{case}.nii.gz", values, **kwargs)


def crlm_bytes(bench):
    """Lesion A with p = 0.8, B with 0.4 (below 0.5, so not predicted), a candidate of 0.2 in the liver; elsewhere 0."""
    values = np.zeros(bench.CRLM.shape, np.uint8)
    values[bench.LESION_A], values[bench.LESION_B] = 204, 102
    values[2, 3:5, 3:5] = 51
    return values


@pytest.fixture
def saved(bench):
    """t1 and t2 with liver and CRLM, pipelined and cascaded; each with its probabilities."""
    for case in ("t1", "t2"):
        bench.label(case)
        bench.predict("nnunet", "pipelined_liver", case, bench.LIVER)
        save(bench, "pipelined_liver", case, bench.LIVER.astype(np.uint8) * 230)
        for column in ("pipelined_crlm", "cascaded_crlm"):
            bench.predict("nnunet", column, case, bench.LESION_A)
            save(bench, column, case, crlm_bytes(bench))
    bench.split([], ["t1", "t2"])
    return bench


def arguments(bench, *more):
    return bench.arguments("--probabilities", str(bench.root / "probabilities"), *more)


def summary(bench):
    return json.loads((bench.out / "summary.json").read_text())


def test_froc_calibration_and_sweep_by_hand(saved, command):
    assert command(arguments(saved)) == 0
    scored = "nnunet/cascaded_crlm, nnunet/pipelined_crlm, nnunet/pipelined_liver"
    said = f"| calibration | Brier score, ECE and reliability of the saved probabilities: {scored} |"
    assert said in (saved.out / "checklist.md").read_text()
    cell = summary(saved)["probabilities"]["test"]["nnunet"]["pipelined_crlm"]
    # Per case two lesions, and candidates of 0.8 (A), 0.4 (B) and 0.2 (nothing).
    froc = cell["froc"]
    points = [(p["threshold"], p["false_positives_per_case"], p["sensitivity"]) for p in froc["points"]]
    assert points == [(0.8, 0.0, 0.5), (0.4, 0.0, 1.0), (0.2, 1.0, 1.0)]
    assert (froc["cases"], froc["lesions"], froc["candidates"]) == (2, 4, 6)
    assert froc["sensitivity_at"] == {"0.5": 1.0, "1": 1.0, "2": 1.0, "4": 1.0, "8": 1.0}
    # Inside the liver of 2560 voxels: 32 of 0.8 and 4 of 0.4, all true; 4 of 0.2, none of them.
    assert cell["brier"]["mean"] == pytest.approx((32 * 0.2**2 + 4 * 0.6**2 + 4 * 0.2**2) / 2560)
    assert cell["ece"]["mean"] == pytest.approx((32 * 0.2 + 4 * 0.6 + 4 * 0.2) / 2560)
    bins = [(b["from"], b["voxels"], round(b["mean_probability"], 6), b["observed"]) for b in cell["reliability"]]
    assert bins == [(0.0, 2 * 2520, 0.0, 0.0), (0.2, 8, 0.2, 0.0), (0.4, 8, 0.4, 1.0), (0.8, 64, 0.8, 1.0)]
    # Dice of 36 true voxels: at 0.1 all 40 candidates' voxels, at 0.3 those of A and B, at 0.5 A alone, at 0.8 nothing.
    sweep = dict(zip(cell["sweep"]["thresholds"], cell["sweep"]["dice"], strict=True))
    assert [sweep[t] for t in (0.1, 0.3, 0.5, 0.8)] == pytest.approx([72 / 76, 1.0, 64 / 68, 0.0])
    assert cell["sweep"]["best_dice"] == 1.0
    assert cell["sweep"]["best_threshold"] == 0.2
    assert cell["sweep"]["dice_at_half"] == pytest.approx(summary(saved)["test"]["nnunet"]["pipelined_crlm"]["dice"]["mean"])
    liver = summary(saved)["probabilities"]["test"]["nnunet"]["pipelined_liver"]
    assert "froc" not in liver
    # The whole CT of 4800 voxels counts where the network saw it.
    assert liver["brier"]["mean"] == pytest.approx(2560 * (25 / 255) ** 2 / 4800)
    report = (saved.out / "report.html").read_text()
    for text in (
        "Probabilities: FROC, calibration, thresholds",
        "lesions found",
        "share of true voxels",
        "mean Dice",
        "at 4 FP",
    ):
        assert text in report


def score(bench):
    """The cells of the held-out CRLM columns, and the gaps, without tables and report."""
    folders = {"labels": bench.labels, "predictions": bench.predictions, "splits": bench.splits, "out": bench.out}
    found, _, _ = find(EvaluationSettings(**folders, probabilities=bench.root / "probabilities"))
    results = [score_case(case) for case in found.cases]
    tree = summarise_probabilities([row for result in results for row in result.probabilities])
    return tree["test"]["nnunet"], [str(gap) for result in results for gap in result.gaps]


def test_a_cascade_is_calibrated_inside_its_own_liver(saved):
    half = saved.LIVER.copy()
    half[:, :, :10] = False  # still holds both lesions, not the false candidate
    for case in ("t1", "t2"):
        saved.predict("nnunet", "pipelined_liver", case, half)
        save(saved, "pipelined_liver", case, half.astype(np.uint8) * 255)
    cells, gaps = score(saved)
    assert gaps == []
    assert cells["cascaded_crlm"]["brier"]["mean"] == pytest.approx((32 * 0.2**2 + 4 * 0.6**2) / half.sum())
    assert cells["pipelined_crlm"]["brier"]["mean"] == pytest.approx((32 * 0.2**2 + 4 * 0.6**2 + 4 * 0.2**2) / 2560)
    rmtree(saved.predictions / "nnunet/pipelined_liver")
    cascaded = score(saved)[0]["cascaded_crlm"]
    assert (cascaded["brier"]["mean"], cascaded["brier"]["n_undefined"], cascaded["reliability"]) == (None, 2, [])
    assert cascaded["froc"]["lesions"] == 4  # needs no region


def test_what_lacks_and_what_belongs_to_nothing_is_named(saved, command, caplog):
    (saved.root / "probabilities/nnunet/pipelined_crlm/t2.nii.gz").unlink()
    for path in (saved.root / "probabilities/nnunet/cascaded_crlm").iterdir():
        path.unlink()
    save(saved, "pipelined_flr", "t1", crlm_bytes(saved))
    assert command(arguments(saved)) == 0
    lines = [
        "nnunet/cascaded_crlm: no probabilities of any case",
        "nnunet/pipelined_crlm: no probabilities of t2",
        "nnunet/pipelined_flr: probabilities without a prediction, not used: t1",
    ]
    assert summary(saved)["unscored_probabilities"] == lines
    report = (saved.out / "report.html").read_text()
    for line in lines:
        assert line in caplog.messages
        assert line in report
    assert summary(saved)["probabilities"]["test"]["nnunet"]["pipelined_crlm"]["n"] == 1


def shifted(bench):
    values = crlm_bytes(bench)
    values[bench.LESION_A] = 0
    values[3:5, 4:8, 13:17] = 204  # one column aside: 8 voxels of A differ on each side
    return values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (shifted, "p > 0.5 (values from 128) holds 32 voxels, the binary prediction 32, and 16 of 40 differ"),
        (lambda b: b.LESION_A.astype(np.uint8), "holds 0 voxels, the binary prediction 32"),
        (lambda b: crlm_bytes(b).astype(np.int16), "probabilities are stored as uint8, round(255 p); found int16"),
        (lambda b: crlm_bytes(b)[:-1], "is not on the grid of"),
    ],
)
def test_probabilities_of_something_else_are_refused_by_name(saved, make, message):
    path = save(saved, "pipelined_crlm", "t2", make(saved))
    cells, gaps = score(saved)
    (said,) = gaps
    assert said.startswith("broken probabilities: t2 (nnunet/pipelined_crlm")
    assert str(path) in said
    assert message in said
    assert cells["pipelined_crlm"]["n"] == 1


def test_broken_probabilities_stop_the_evaluation_or_are_left_out(saved, command, capsys):
    save(saved, "pipelined_crlm", "t2", saved.EMPTY.astype(np.uint8))
    assert command(arguments(saved)) == 1
    assert "broken probabilities: t2 (nnunet/pipelined_crlm" in capsys.readouterr().err
    assert command(arguments(saved, "--allow-missing")) == 0
    gap = next(r for r in csv.DictReader((saved.out / "cases.csv").open()) if r["status"] == "broken probabilities")
    assert (gap["case"], gap["architecture"], gap["column"]) == ("t2", "nnunet", "pipelined_crlm")
    assert summary(saved)["test"]["nnunet"]["pipelined_crlm"]["dice"]["n"] == 2  # the masks themselves are fine


def test_a_few_voxels_at_one_half_are_no_other_mask(saved):
    values = crlm_bytes(saved)
    values[3, 4, 14:18] = 127
    save(saved, "pipelined_crlm", "t2", values)
    assert score(saved)[1] == []


def test_cases_without_tumours_count_in_froc_and_not_in_the_sweep(saved):
    without = np.where(saved.FLR, 1, 2 * saved.LIVER).astype(np.uint8)
    saved.label("t2", without)
    cell = score(saved)[0]["pipelined_crlm"]
    assert cell["sweep"]["n"] == 1
    points = [(p["threshold"], p["false_positives_per_case"], p["sensitivity"]) for p in cell["froc"]["points"]]
    assert points == [(0.8, 0.5, 0.5), (0.4, 1.0, 1.0), (0.2, 2.0, 1.0)]
    saved.label("t1", without)
    cell = score(saved)[0]["pipelined_crlm"]
    assert (cell["froc"], cell["sweep"]) == (None, None)


def test_the_interval_of_a_sensitivity_is_that_of_drawn_cases():
    # Every other case finds its one lesion, none has a false positive: the mean of 40 draws of 0 and 1.
    cases = [Candidates(1, ((0.9, True),) if k % 2 else ()) for k in range(40)]
    low, high = sensitivity_intervals(cases, np.zeros(40, int))["1"]
    half = 1.96 * (0.25 / 40) ** 0.5
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.03)
    # A false positive of higher score in each case: with 0.5 a case allowed, nothing is found.
    cases = [Candidates(1, ((0.95, False), (0.9, True))) for _ in range(40)]
    found = sensitivity_intervals(cases, np.zeros(40, int))
    assert (found["0.5"], found["1"]) == ([0.0, 0.0], [1.0, 1.0])
    assert set(sensitivity_intervals(cases[:2], np.zeros(2, int)).values()) == {None}
    nothing = sensitivity_intervals([Candidates(1, ())] * 3, np.zeros(3, int))
    assert nothing["8"] == [0.0, 0.0]


def test_folders_without_probabilities(saved, command, capsys):
    assert command(saved.arguments("--probabilities", str(saved.root / "none"))) == 1
    assert "none: no such folder of probabilities" in capsys.readouterr().err
    (saved.root / "none/nnunet/pipelined_lung").mkdir(parents=True)
    assert command(saved.arguments("--probabilities", str(saved.root / "none"))) == 1
    assert "unknown column 'pipelined_lung'" in capsys.readouterr().err
    (saved.root / "none/nnunet/pipelined_lung").rmdir()
    assert command(saved.arguments("--probabilities", str(saved.root / "none"))) == 1
    assert "no probabilities; expected <architecture>/<column>/<case>.nii.gz" in capsys.readouterr().err
