from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from flrplan.cohort import SyntheticCase
from flrplan.engine import MODEL_ROOT
from flrplan.errors import FlrError, ModelError
from flrplan.learning import AnnotatedImage, read_annotations
from flrplan.learning.comparison import decide, score_current, score_model
from flrplan.method import CRLM, LIVER
from flrplan.metrics.overlap import dice
from flrplan.nnunet.model import ModelFolder, load_checkpoint, write_checkpoint

CPU = torch.device("cpu")
DEMO = MODEL_ROOT / "demo"


@pytest.mark.parametrize(
    ("new", "current", "publish"),
    [
        ({"a": 0.8, "b": 0.6}, {"a": 0.7, "b": 0.7}, True),
        ({"a": 0.69}, {"a": 0.7}, True),  # lower by exactly the margin, but for rounding
        ({"a": 0.68}, {"a": 0.7}, False),
        ({"a": 1.0, "b": 0.3}, {"a": 0.7, "b": 0.7}, False),  # the mean decides: 0.65 against 0.7
        ({"a": 0.0}, None, True),
    ],
)
def test_not_worse_by_more_than_the_margin(new: dict[str, float], current: dict[str, float] | None, publish: bool) -> None:
    assert decide(new, current, 0.0100001, "there is none").publish is publish


def test_the_verdict_is_the_comparison_in_a_few_words() -> None:
    assert decide({"a": 0.876}, {"a": 0.959}, 0.01).verdict == "NOT published: 0.876 < 0.959"
    assert decide({"a": 0.955}, {"a": 0.959}, 0.01).verdict == "published: 0.955, before 0.959"
    assert decide({"a": 0.9}, None, 0.01, "none").verdict == "published: 0.900"
    only_shown = decide({"empty": 1.0, "shows": 0.0}, {"empty": 0.0, "shows": 0.7}, 0.01, showing={"shows"})
    assert (only_shown.verdict, only_shown.score) == ("NOT published: 0.000 < 0.700", 0.0)


def test_the_reason_names_both_means() -> None:
    assert decide({"a": 0.5, "b": 0.7}, {"a": 0.5, "b": 0.5}, 0.02).reason == (
        "mean Dice on 2 hold-out cases: new 0.600, current 0.500, margin 0.02"
    )
    assert decide({"a": 0.5}, None, 0.02, "there is none").reason.endswith("nothing to compare with: there is none")


def test_a_model_that_finds_nothing_does_not_win_on_cases_without_target() -> None:
    nothing, current = {"empty": 1.0, "shows": 0.0}, {"empty": 0.0, "shows": 0.7}
    refused = decide(nothing, current, 0.01, showing={"shows", "trains"})
    assert not refused.publish  # although its mean, 0.5, is above 0.35
    assert refused.reason == (
        "mean Dice on 2 hold-out cases: new 0.500, current 0.350; on the 1 that show the target: new 0.000, current 0.700, margin 0.01"
    )
    assert decide({"empty": 1.0, "shows": 0.7}, current, 0.01, showing={"shows"}).publish
    assert not decide({"empty": 0.0, "shows": 0.8}, {"empty": 1.0, "shows": 0.7}, 0.01, showing={"shows"}).publish


def test_without_a_kept_case_that_shows_the_target_the_current_model_stays() -> None:
    refused = decide({"empty": 1.0}, {"empty": 0.0}, 0.01, showing={"trains"})
    assert not refused.publish
    assert refused.reason == (
        "the target is empty in all 1 hold-out cases (empty), so a model that never finds it would count as right; label more images "
        "that show it"
    )
    first = decide({"empty": 1.0}, None, 0.01, "there is none", showing={"trains"})
    assert first.publish
    assert "there is none; the target is empty in all 1 hold-out cases (empty)" in first.reason


def test_without_a_kept_case_nothing_is_published() -> None:
    with pytest.raises(FlrError, match="no hold-out case was scored"):
        decide({}, None, 0.01)


def test_the_score_is_the_dice_of_the_prediction(
    synthetic: list[SyntheticCase], annotate: Callable[..., AnnotatedImage], tmp_path: Path
) -> None:
    case = read_annotations([annotate(synthetic[0])], tmp_path / "masks").for_stage(LIVER).cases[0].case
    score = score_model(ModelFolder.open(DEMO / "liver" / "nnunet"), [case], CPU)
    assert set(score) == {synthetic[0].case_id}
    assert 0.8 < score[synthetic[0].case_id] < 1


def test_nothing_predicted_where_nothing_is_counts_as_right(
    synthetic: list[SyntheticCase], annotate: Callable[..., AnnotatedImage], tmp_path: Path
) -> None:
    folder = _with_bias(tmp_path, -100.0)
    liver = (synthetic[0].planning_zyx > 0).astype(np.uint8)
    images = [annotate(synthetic[0], {"liver": 1, "crlm": 2}, liver, "no_metastasis"), annotate(synthetic[0])]
    cases = [a.case for a in read_annotations(images, tmp_path / "masks").for_stage(CRLM).cases]
    assert score_model(folder, cases, CPU) == {"no_metastasis": 1.0, synthetic[0].case_id: 0.0}
    assert np.isnan(dice(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool)))


def test_a_model_that_is_not_finite_is_an_error_as_new_and_none_as_current(
    synthetic: list[SyntheticCase], annotate: Callable[..., AnnotatedImage], tmp_path: Path
) -> None:
    folder = _with_bias(tmp_path, float("nan"))
    cases = [a.case for a in read_annotations([annotate(synthetic[0])], tmp_path / "masks").for_stage(CRLM).cases]
    with pytest.raises(ModelError, match="NaN or infinite"):
        score_model(folder, cases, CPU)
    scores, reason = score_current(folder, cases, CPU)
    assert scores is None
    assert "NaN or infinite" in reason


def _with_bias(folder: Path, value: float) -> ModelFolder:
    """The demo model of stage crlm, answering nothing but ``value`` everywhere."""
    target = folder / "crlm" / "nnunet"
    shutil.copytree(DEMO / "crlm" / "nnunet", target, ignore=shutil.ignore_patterns("training_cohort.json"))
    shutil.rmtree(target / "fold_1")
    path = target / "fold_0" / "checkpoint_final.pth"
    content = load_checkpoint(path)
    heads = [n for n in content["network_weights"] if "seg_layers" in n and n.endswith("bias")]
    for name in heads:
        content["network_weights"][name] = torch.full_like(content["network_weights"][name].float(), value)
    write_checkpoint(path, content)
    return ModelFolder.open(target)
