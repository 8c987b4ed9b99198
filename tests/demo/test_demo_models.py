"""Rebuilding, measuring and describing the demo models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flrplan.anatomy import Mask, Structure, structure_mask
from flrplan.cli import main
from flrplan.cohort import CaseSize, SyntheticCase, make_case
from flrplan.cohort.settings import case_name
from flrplan.demo import build, failures
from flrplan.demo.card import write_card
from flrplan.demo.failures import worst_cases
from flrplan.demo.goals import GOALS
from flrplan.demo.held_out import MEASURE_SEED, measured_case
from flrplan.demo.measure import (
    COLUMNS,
    MeasuredCase,
    as_json,
    demo_cascade,
    dice,
    measure_case,
    measure_synthetic,
    paired_difference,
    summary,
)
from flrplan.demo.real_ct import RealScore
from flrplan.engine import DEMO_NAME, MODEL_ROOT
from flrplan.errors import ModelError
from flrplan.files import sha256_of_file
from flrplan.method import LIVER
from flrplan.nnunet.model import ModelFolder

RECIPE = """
common:
  plan: {batch_size: 2, features: [4, 8], spacing_zyx_mm: [8, 6, 6], patch_size_zyx: [16, 24, 24], resampling: torch}
  training: {epochs: 1, iterations_per_epoch: 1, validation_iterations: 1}
"""


def test_rebuilding_replaces_the_models_that_are_there_and_may_go_on_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "TRAIN_CASES", 4)
    old = tmp_path / "demo" / "liver" / "nnunet" / "fold_0" / "of_before"
    old.parent.mkdir(parents=True)
    old.write_text("")
    (tmp_path / "demo" / "recipe.yaml").write_text(RECIPE)
    build.build_demo_models(tmp_path / "work", tmp_path / "demo", ("liver",), workers=1)
    model = ModelFolder.open(tmp_path / "demo" / "liver" / "nnunet")
    assert (model.stage, model.folds) == (LIVER, (0, 1))
    assert not old.exists()
    assert len(model.training_cases(0)) == 2
    before = [sha256_of_file(build.demo_weights(tmp_path / "demo", "liver", fold)) for fold in (0, 1)]
    shutil.rmtree(tmp_path / "work" / "models")
    shutil.rmtree(tmp_path / "work" / "liver" / "results")
    build.build_demo_models(tmp_path / "work", tmp_path / "demo", ("liver",), workers=1, go_on=True)
    runs = [
        json.loads((path / "run.json").read_text()) for path in sorted((tmp_path / "demo" / "liver" / "nnunet").glob("fold_*"))
    ]
    assert [run["pretrained"]["sha256"] for run in runs] == before, (
        "each fold goes on from its own: another has learned its validation"
    )


def measured(number: int, **scores: float) -> MeasuredCase:
    return MeasuredCase(
        number, f"c{number}", "arterial" if number % 2 else "portal venous", 2.0 + number, dict.fromkeys(COLUMNS, 0.5) | scores
    )


def test_figures_by_hand() -> None:
    cases = [
        measured(i, flr_pipelined=0.5 + d, crlm_cascaded=float("nan") if i else 0.2) for i, d in enumerate((0.1, 0.2, 0.3))
    ]
    mean, low, high = paired_difference(cases, "flr_pipelined", "flr_liver_minus_tumour")
    assert mean == pytest.approx(0.2)
    assert 0.0999 < low < mean < high < 0.3001
    figures = summary(cases)
    assert figures["flr_pipelined"] == pytest.approx({"mean": 0.7, "std": 0.1, "min": 0.6, "n": 3})
    assert figures["crlm_cascaded"]["n"] == 1
    mask = np.zeros((2, 2, 2), bool)
    full = ~mask
    half = full.copy()
    half[0] = False
    assert dice(full, half) == pytest.approx(2 * 4 / 12)
    assert dice(full, mask) == 0.0
    assert np.isnan(dice(mask, mask))


def test_the_card_states_what_was_measured(tmp_path: Path) -> None:
    cases = [measured(i, liver=0.9 + 0.01 * i) for i in range(4)]
    write_card(tmp_path, cases, [RealScore("some-ct", 0.876, 1000, 100, 150, 12, 75, 133, ("a warning",))], as_json(cases))
    card = (tmp_path / "README.md").read_text()
    assert "not for patients" in card
    assert "| liver | 0.915 |" in card
    assert "- some-ct: Dice 0.876 on 75 of 133 slices; 12 ml predicted beyond the reference are not judged. Of 1000 ml" in card
    assert "100 were missed, 150 ml were added (a warning)." in card
    assert 'make demo-models REAL="lidc-idri-0001=' in card
    assert (
        "references are another model's output, not an expert's, and cover 75 of 133 slices of some-ct."
        in card.partition("### What")[0]
    )
    assert "| Liver, unseen synthetic cases | at least 0.95 | 0.915 | **missed** by 0.035 |" in card
    assert "- **Liver, unseen synthetic cases.** 4 of 4 cases lie below 0.95. By contrast phase the lowest is" in card
    assert "an earlier version of the liver model failed on example_ct (Dice 0.545)" in card
    assert "### By slice spacing, mean Dice" in card
    goals = {goal["goal"]: goal for goal in json.loads((tmp_path / "scores.json").read_text())["goals"]}
    assert goals["Liver, unseen synthetic cases"]["margin"] == pytest.approx(-0.035)
    assert goals[GOALS[0].what]["met"] is None


def test_the_card_names_every_goal_without_a_real_ct(tmp_path: Path) -> None:
    cases = [measured(i) for i in range(3)]
    write_card(tmp_path, cases, [], as_json(cases))
    card = (tmp_path / "README.md").read_text()
    assert all(f"| {goal.what} | " in card and f"- **{goal.what}.** " in card for goal in GOALS)
    assert "None was given when this card was written." in card


def test_the_card_sums_all_folds(tmp_path: Path) -> None:
    model = tmp_path / "liver" / "nnunet"
    recipe = {"training": {"epochs": 4, "iterations_per_epoch": 25}}
    ids = {"train_ids": ["a", "b"], "validation_ids": ["c"]}
    threshold = {"chosen": 0.3, "cases": 38, "dice": {"0.3": 0.6, "0.5": 0.55}}
    # The second was stopped and went on: its last process took 300 s, its epochs 5400 s.
    for fold, (seconds, start) in enumerate(
        (
            (
                {"seconds": 1800.0, "trained_seconds": 1700.0},
                {"pretrained": {"sha256": "4c5d2bf728c7fc34"}, "threshold": threshold},
            ),
            ({"seconds": 300.0, "trained_seconds": 5400.0}, {"pretrained": None}),
        )
    ):
        (model / f"fold_{fold}").mkdir(parents=True)
        (model / f"fold_{fold}" / "run.json").write_text(json.dumps({"recipe": recipe, **ids, **seconds, **start}))
    (model / "training_cohort.json").write_text('{"version": 3, "wide": 0.25}')
    cases = [measured(i) for i in range(3)]
    write_card(tmp_path, cases, [], as_json(cases))
    card = (tmp_path / "README.md").read_text()
    assert "| liver | 3 | 3 | 25% | 4c5d2bf7, random weights | 100 | 30 + 90 |" in card
    assert "Together 2.0 hours of training" in card
    assert "Threshold of liver: 0.3, moved" in card
    assert "mean Dice there 0.600, 0.550 before" in card


def test_the_worst_cases_come_first() -> None:
    cases = [measured(i, liver=value) for i, value in enumerate((0.9, float("nan"), 0.2, 0.5, 0.2))]
    assert [c.index for c in worst_cases(cases, "liver", 3)] == [2, 4, 3]


def test_held_out_cases_are_measured_in_processes(tmp_path: Path) -> None:
    """The same case scores the same in a worker and here; a folder without models ends it with their error."""
    models, kept = MODEL_ROOT / DEMO_NAME, tmp_path / "measured.json"
    cases = measure_synthetic(models, cases=2, workers=2, size=CaseSize.SMALL, kept=kept)
    assert [c.case_id for c in cases] == [case_name(MEASURE_SEED, 0), case_name(MEASURE_SEED, 1)]
    alone = measure_case(measured_case(1, CaseSize.SMALL), 1, demo_cascade(MODEL_ROOT / DEMO_NAME))
    assert cases[1].dice == pytest.approx(alone.dice, abs=1e-3)
    content = json.loads(kept.read_text())
    content["cases"]["1"]["dice"] |= {"liver": 0.125, "crlm_pipelined": None}
    kept.write_text(json.dumps(content))
    again = measure_synthetic(models, cases=2, size=CaseSize.SMALL, kept=kept)
    assert again[0] == cases[0]
    assert again[1].dice["liver"] == 0.125, "what is kept is not measured again"
    assert np.isnan(again[1].dice["crlm_pipelined"]), "JSON has null for an undefined Dice"
    with pytest.raises(ModelError):
        measure_synthetic(tmp_path, cases=1, size=CaseSize.SMALL, kept=kept)


@pytest.mark.parametrize("option", ["--cases", "--workers"])
def test_numbers_out_of_range_are_told_before_anything_is_trained(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo-models", "--work", str(tmp_path / "w"), "--models", str(tmp_path / "m"), option, "0"]) == 1
    assert f"{option} must be at least 1, got 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_worst_cases_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(MEASURE_SEED, 0, CaseSize.SMALL)
    liver = structure_mask(case.planning_zyx, Structure.LIVER)
    asked: list[tuple[str, ...]] = []

    def answer(case: SyntheticCase, cascade: object, columns: tuple[str, ...]) -> dict[str, tuple[Mask, Mask]]:
        asked.append(columns)
        return dict.fromkeys(columns, (liver, np.roll(liver, 5, axis=2)))

    monkeypatch.setattr(failures, "measured_case", lambda *_: case)
    monkeypatch.setattr(failures, "predictions", answer)
    failures.write_failures(tmp_path / "failures.png", [measured(i) for i in range(2)], demo_cascade(tmp_path))
    assert asked == [(column,) for column in failures.SHOWN for _ in range(2)]
    colors = Image.open(tmp_path / "failures.png").convert("RGB").getcolors(10_000)
    assert colors is not None
    vivid = {max(range(3), key=color.__getitem__) for _, color in colors if max(color) - min(color) > 80}
    assert vivid == {0, 1}, "pink and green"
