"""``benchmark/active_learning.py``: the rounds, what is kept, and what is said of the result; with an annotator that trains nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import active_learning as script
from active_learning import Learned, Round, draw, gain, markdown, simulate, summary
from flrplan.active_learning import Known

POOL = [f"c{i}" for i in range(8)]


class Annotator:
    """Dice grows with what is known of the labelled cases."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...], int, int]] = []

    def learn(self, place: Path, labelled: Sequence[str], seed: int, measured: Sequence[str]) -> Learned:
        self.asked.append((place.name, tuple(labelled), seed, len(measured)))
        known = {case: Known(models={"disagreement": {"flr": int(case[1]) / 10}}) for case in measured}
        return Learned({"t0": 0.1 * len(labelled), "t1": 0.05 * sum(int(c[1]) for c in labelled) / 4}, known)


def test_strategies_share_the_first_round_and_choose_from_what_is_left(tmp_path: Path) -> None:
    annotator = Annotator()
    done = simulate(tmp_path, ["random", "disagreement"], POOL, 0, 3, 2, 3, annotator.learn)
    first = done["random"][0]
    assert done["disagreement"][0] == first
    assert len(first.labelled) == 3
    assert [name for name, *_ in annotator.asked].count(script.FIRST_ROUND) == 1
    for rounds in done.values():
        assert [len(r.labelled) for r in rounds] == [3, 5, 7]
        assert all(set(a.labelled) < set(b.labelled) for a, b in pairwise(rounds))
    left = [case for case in reversed(POOL) if case not in first.labelled]
    assert list(done["disagreement"][1].labelled[3:]) == left[:2]  # the highest scores
    assert {n: measured for n, _, _, measured in annotator.asked} == {
        script.FIRST_ROUND: 8,
        "random_1": 0,  # it asks nothing of the models
        "random_2": 0,
        "disagreement_1": 8,
        "disagreement_2": 0,  # the last round chooses no more
    }


def test_what_was_learned_is_kept_and_another_seed_begins_with_other_cases(tmp_path: Path) -> None:
    annotator = Annotator()
    before = simulate(tmp_path, ["random", "diverse"], POOL, 0, 3, 2, 3, annotator.learn)
    count = len(annotator.asked)
    assert simulate(tmp_path, ["random", "diverse"], POOL, 0, 3, 2, 3, annotator.learn) == before
    assert len(annotator.asked) == count
    other = simulate(tmp_path, ["random"], POOL, 1, 3, 2, 3, annotator.learn)
    assert other["random"][0].labelled != before["random"][0].labelled


def rounds(*dice: float) -> list[Round]:
    return [Round(tuple(POOL[: 3 + 2 * k]), {"t0": d, "t1": d}) for k, d in enumerate(dice)]


def test_the_gain_is_paired_with_random_after_the_first_round(tmp_path: Path) -> None:
    assert gain(rounds(0.5, 0.6, 0.9), rounds(0.5, 0.5, 0.7)) == pytest.approx(0.15)
    few = {seed: {"random": rounds(0.5, 0.5, 0.5), "decision": rounds(0.5, 0.6, 0.6)} for seed in range(4)}
    found = summary(few)["gain_over_random"]["decision"]
    assert found["mean"] == pytest.approx(0.1)
    assert found["interval_95"] is None  # of four seeds there is none
    assert markdown(few, summary(few)).endswith("None is shown to be better than random.")
    better = {s: {"random": rounds(0.5, 0.5), "decision": rounds(0.5, 0.6 + s / 100)} for s in range(5)}
    # gains 0.10 to 0.14: mean 0.12, standard error 0.0158 / sqrt(5) = 0.00707, t(4) = 2.776
    assert summary(better)["gain_over_random"]["decision"]["interval_95"] == [0.1004, 0.1396]
    assert markdown(better, summary(better)).endswith("Better than random: decision.")
    draw(better, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_wrong_words_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert script.main(["--work", str(tmp_path), "--strategies", "best"]) == 1
    assert "unknown are best; known are random, first" in capsys.readouterr().err
    assert script.main(["--work", str(tmp_path), "--cases", "5"]) == 1
    assert "--cases enough for all rounds" in capsys.readouterr().err
