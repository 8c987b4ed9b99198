"""Which case each strategy takes next."""

from __future__ import annotations

import pytest

from flrplan.active_learning import STRATEGIES, Known, choose


def by(disagreement: dict[str, float] | None = None, fractions: list[float] | None = None) -> Known:
    return Known(models={"disagreement": disagreement or {}, "flr_fractions": fractions or []})


def test_first_is_by_name_and_random_is_any_of_them() -> None:
    cases = {"b": Known(), "a": Known(), "c": Known()}
    assert choose(STRATEGIES["first"], cases, {}).case == "a"
    assert {choose(STRATEGIES["random"], cases, {}).case for _ in range(100)} == {"a", "b", "c"}


def test_label_faults_takes_the_worst_label_and_counts_those_that_are_scored() -> None:
    cases = {"a": Known(label={"qc": 1.0}), "b": Known(label={"qc": 3.5}), "c": Known()}
    choice = choose(STRATEGIES["label_faults"], cases, {})
    assert (choice.case, choice.score, choice.scored) == ("b", 3.5, 2)


def test_disagreement_is_the_mean_over_the_structures() -> None:
    cases = {"a": by({"liver": 0.1, "flr": 0.3}), "b": by({"liver": 0.05, "crlm": 0.5, "flr": 0.2}), "one model": by()}
    choice = choose(STRATEGIES["disagreement"], cases, {})
    assert (choice.case, choice.scored) == ("b", 2)
    assert choice.score == pytest.approx(0.25)


def test_decision_takes_spreads_over_20_30_40_percent_first_then_the_nearest_to_one() -> None:
    cases = {
        "wide, no threshold": by(fractions=[0.45, 0.75]),  # 5 points from 40 %
        "narrow, near": by(fractions=[0.41, 0.42]),  # 1 point
        "straddles a little": by(fractions=[0.295, 0.305]),
        "straddles far": by(fractions=[0.18, 0.35]),
        "ends at the threshold": by(fractions=[0.2, 0.21]),
        "one voter": by(fractions=[0.3]),
    }
    order = []
    while (case := choose(STRATEGIES["decision"], cases, {}).case) is not None:
        order.append(case)
        del cases[case]
    expected = ["straddles far", "straddles a little", "ends at the threshold", "narrow, near", "wide, no threshold"]
    assert order == expected
    assert list(cases) == ["one voter"]


def image(hu: float, slice_mm: float = 5.0) -> Known:
    return Known(image={"soft_hu_50": hu, "slice_mm": slice_mm})


def test_diverse_is_far_from_the_nearest_that_is_taken() -> None:
    cases = {"between": image(50), "beside": image(98), "far": image(10)}
    taken = {"x": image(100), "y": image(0)}  # 50 is 50 from both; 10 is 10 from y
    assert choose(STRATEGIES["diverse"], cases, taken).case == "between"


def test_diverse_begins_with_the_middle_and_does_not_weigh_units() -> None:
    assert choose(STRATEGIES["diverse"], {"a": image(0), "b": image(40), "c": image(100)}, {}).case == "b"
    spread = {"hu": image(1000, 5.0), "mm": image(0, 5.4)}  # each twice the others' spread away in its own unit
    near = {"x": image(0, 5.0), "y": image(500, 5.0), "z": image(0, 5.1)}
    scores = STRATEGIES["diverse"].score(spread, near)
    assert scores["mm"] > scores["hu"]


def test_diverse_compares_what_both_cases_have_and_leaves_out_what_nobody_measured() -> None:
    predicted = Known(image={"soft_hu_50": 50.0}, models={"prediction": {"crlm_ml": 200.0}})
    cases = {"a": predicted, "b": Known(image={"soft_hu_50": 60.0}), "unmeasured": Known()}
    scores = STRATEGIES["diverse"].score(cases, {"x": Known(image={"soft_hu_50": 50.0})})
    assert scores == {"a": 0.0, "b": pytest.approx(10 / 4.714, abs=1e-3)}  # the spread of 50, 60, 50


@pytest.mark.parametrize("name", STRATEGIES)
def test_without_any_score_there_is_no_choice(name: str) -> None:
    found = choose(STRATEGIES[name], {"a": Known()}, {})
    assert found.case == ("a" if STRATEGIES[name].needs is None else None)
    assert len(STRATEGIES[name].description) < 100
    assert "\n" not in STRATEGIES[name].description
