"""benchmark/how_sure.py: coverage, width and Brier score of held-out cases, from known cases with known errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import how_sure
from flrplan.errors import ModelError
from flrplan.planning.calibration import Calibration, KnownCase, settings_of_run
from flrplan.planning.evidence import Evidence

EVIDENCE = Evidence("given", 0.5, 0.5, (0.49, 0.51), 0.5, 0.4, 1000.0, 50.0, 2.5, 100.0)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Sixty plans of 20 to 80 %, errors evenly from -20 to 20 points, folds that differ by 2: the naive interval is far too narrow."""
    rng = np.random.default_rng(4)
    cases = {}
    for number, (error, predicted) in enumerate(zip(np.linspace(-0.2, 0.2, 60), rng.uniform(0.2, 0.8, 60), strict=True)):
        own = replace(EVIDENCE, flr_fraction=predicted, fold_fractions=(predicted - 0.01, predicted + 0.01))
        cases[f"case-{number:02d}"] = {"given": KnownCase(own, 1000 * (predicted + error), predicted + error)}
    return Calibration({}, settings_of_run(False, True), "cases", cases)


def test_the_plans_interval_covers_and_the_naive_one_does_not(calibration: Calibration) -> None:
    found, without = how_sure.judged(calibration, "given", splits=10)
    assert len(found) + without == 120  # a fifth of sixty, ten times
    assert how_sure.judged(calibration, "predicted") == ([], 0)
    inside = {m: np.mean([j.ends[m][0] <= j.true <= j.ends[m][1] for j in found]) for m in how_sure.METHODS}
    width = {m: np.mean([j.ends[m][1] - j.ends[m][0] for j in found]) for m in how_sure.METHODS}
    assert inside["spread of the folds"] < 0.25
    assert width["spread of the folds"] == pytest.approx(2 * 1.645 * 0.01 * 2**0.5, rel=0.01)
    for method in ("one width", "signed errors", "plan"):
        assert 0.8 <= inside[method] <= 0.98
        assert 0.3 < width[method] < 0.45


def test_tables_and_figure_are_written(
    calibration: Calibration, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration.write(tmp_path / "calibration.json", "nnunet")
    monkeypatch.setattr("sys.argv", ["how_sure.py", str(tmp_path / "calibration.json"), "--figure", str(tmp_path / "x.png")])
    assert how_sure.main() == 0
    said = capsys.readouterr().out
    assert "| given (60) | plan | " in said
    assert "| given | share of the known cases | " in said
    assert (tmp_path / "x.png").stat().st_size > 5000
    calibration.write(tmp_path / "calibration.json", "stunet")
    monkeypatch.setattr("sys.argv", ["how_sure.py", str(tmp_path / "calibration.json"), "--architecture", "swinunetr"])
    with pytest.raises(ModelError, match="expected a calibration of swinunetr, found none"):
        how_sure.main()


def test_a_calibration_with_second_opinions_is_shown_beside_itself_without_them(calibration: Calibration) -> None:
    """A second opinion that is off by half as much: what it says narrows the interval."""
    cases = {}
    for case, kinds in calibration.cases.items():
        known = kinds["given"]
        own = known.evidence.flr_fraction
        fractions = {"nnunet": own, "stunet": own + 0.5 * (known.true_flr_fraction - own)}
        cases[case] = {"given": replace(known, evidence=replace(known.evidence, architecture_fractions=fractions))}
    both = replace(calibration, cases=cases)
    found, _ = how_sure.judged(both, "given", splits=2)
    width = {m: np.mean([j.ends[m][1] - j.ends[m][0] for j in found]) for m in ("plan", how_sure.WITHOUT_OPINIONS)}
    alone, _ = how_sure.judged(calibration, "given", splits=2)
    assert width[how_sure.WITHOUT_OPINIONS] == pytest.approx(np.mean([j.ends["plan"][1] - j.ends["plan"][0] for j in alone]))
    assert width["plan"] < 0.5 * width[how_sure.WITHOUT_OPINIONS]
    lines = "\n".join(how_sure.tables({"given": (found, 0)}, both))
    assert lines.count("| plan, without second opinions |") == 2, "width, and Brier score"


def test_a_reliability_bin_is_the_mean_chance_and_the_share_that_came_true() -> None:
    below = {"plan": {20.0: 0.1, 30.0: 0.1, 40.0: 0.7}}
    found = [how_sure.Judged(true, {}, below, True, 0.0) for true in (0.15, 0.35)]
    mean, came, size = how_sure.reliability(found, "plan")
    assert mean == pytest.approx([0.1, 0.7])
    assert came == pytest.approx([2 / 4, 1.0])  # 0.15 lies below 20 and 30 %, 0.35 below neither; both lie below 40 %
    assert size.tolist() == [4, 2]
