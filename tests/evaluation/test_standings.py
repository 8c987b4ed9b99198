"""What is best in a column, what is a tie, what is undecided: from rows whose values are known, and once from files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from flrplan.errors import SettingsError
from flrplan.evaluation import COLUMNS, EvaluationSettings, Part
from flrplan.evaluation.comparisons import Kind, ranks_by_case
from flrplan.evaluation.rows import Row
from flrplan.evaluation.run import build_document
from flrplan.evaluation.summary import Results
from flrplan.evaluation.tables import markdown_table
from flrplan.metrics.catalogue import METRICS, metrics_of
from flrplan.metrics.empty import Undefined

MISS, SILENT = "miss", "silent"  # an empty prediction of a structure that is there, and of one that is not
DIAGONAL = math.sqrt((12 * 5) ** 2 + 20**2 + (20 * 1.25) ** 2)  # mm, of the images of conftest.py: 68.007


def row(
    case: str, architecture: str, value: float | str, column: str = "pipelined_crlm", fold: int | None = None, **metrics
) -> Row:
    """A row whose Dice, precision and recall are ``value``, 0 in what else is measured."""
    values = {m.name: 0.0 for m in metrics_of(COLUMNS[column].target)}
    values |= {"volume_reference_ml": 1.0, "volume_prediction_ml": 1.0}
    reasons = {}
    if value == MISS:
        values |= {"volume_prediction_ml": 0.0}
        reasons = dict.fromkeys(("precision", "hd95_mm", "assd_mm"), "prediction empty")
    elif value == SILENT:
        values |= {"volume_reference_ml": 0.0, "volume_prediction_ml": 0.0}
        reasons = dict.fromkeys(("dice", "precision", "recall", "nsd", "hd95_mm", "assd_mm"), "both empty")
    else:
        values |= dict.fromkeys(("dice", "precision", "recall"), float(value))
    values |= dict.fromkeys(reasons, math.nan) | metrics
    return Row(case, fold, architecture, column, 2.5, 1, DIAGONAL, values, reasons)


def results(cells: dict[str, list[float | str]], folds: list[int] | None = None, **more) -> Results:
    rows = [
        row(f"c{k:02d}", a, v, fold=folds[k] if folds else None) for a, values in cells.items() for k, v in enumerate(values)
    ]
    names = tuple(f"c{k:02d}" for k in range(max(len(v) for v in cells.values())))
    cases = {Part.CV: names if folds else (), Part.TEST: () if folds else names}
    return Results(tuple(rows), (), (), cases, **more)


def cells_of(document, metric="dice", part="test"):
    return {a: columns["pipelined_crlm"][metric] for a, columns in document[part].items()}


def standings(document, metric="dice", part="test"):
    return {a: stats["standing"] for a, stats in cells_of(document, metric, part).items()}


def test_a_model_that_finds_one_lesion_of_twelve_wins_nothing(one_of_twelve):
    document = json.loads((one_of_twelve.out / "summary.json").read_text())
    swin, nnunet = (document["test"][a]["pipelined_crlm"] for a in ("swinunetr", "nnunet"))
    # Over its one case it is perfect; over all twelve 1/12 of that, and the diagonal in eleven.
    assert (swin["precision"]["mean"], swin["precision"]["n"], swin["precision"]["n_missed"]) == (1.0, 1, 11)
    assert swin["precision"]["penalised_mean"] == pytest.approx(1 / 12)
    assert (swin["precision"]["median"], swin["hd95_mm"]["mean"]) == (0.0, 0.0)
    assert swin["hd95_mm"]["penalised_mean"] == pytest.approx(11 * DIAGONAL / 12)
    assert swin["hd95_mm"]["median"] == pytest.approx(DIAGONAL)
    assert nnunet["precision"]["mean"] == pytest.approx(36 / 164)
    # The one case weighs 0.78 against it in precision (0.22 elsewhere), which is not significant.
    for metric, standing in (("dice", "worse"), ("precision", "undecided"), ("recall", "worse")):
        assert (nnunet[metric]["standing"], swin[metric]["standing"]) == ("best", standing), metric
        assert nnunet[metric]["n_compared"] == 12
    for name, metric in METRICS.items():
        if name in nnunet and nnunet[name].get("mean_rank") is not None:
            # Second in eleven cases of twelve, first (or as good) in the other, whatever the metric.
            assert swin[name]["mean_rank"] >= (11 * 2 + 1) / 12, metric.title
            assert nnunet[name]["mean_rank"] <= (11 * 1 + 2) / 12, metric.title
    assert {"precision", "hd95_mm", "assd_mm", "nsd", "volume_abs_error_ml"} <= {n for n in nnunet if "mean_rank" in nnunet[n]}
    ranking = next(r for r in document["rankings"] if r["of"] == "pipelined_crlm" and r["part"] == "test")
    assert (ranking["ranks"], ranking["n"]) == ([1, 2], 12)
    assert ranking["mean_ranks"] == pytest.approx([13 / 12, 23 / 12])


def test_its_cells_say_so(one_of_twelve):
    _, table, page = one_of_twelve.tables()
    cells = [line.split(" | ")[3] for line in table.splitlines() if line.startswith("|  | P")]
    assert cells[0] == "**0.220** [0.220, 0.220] / 0.605 out / -0.385"
    assert cells[1] == "1.000 (undecided, 11u, 11m, pen. 0.083) / 0.635 / +0.365", "not bold"
    lines = table[table.index("## Medians") :].splitlines()
    assert any(line.startswith("|  | P | - | 0.000 / 0.083 / 1.92 |") for line in lines)
    assert any(line.startswith("|  | M | - | 11 |") for line in lines)
    assert f"0.00 - (n = 1, 11u), med. {DIAGONAL:.2f}, pen. {11 * DIAGONAL / 12:.2f}, rank 1.92" in page, "HD95"


def test_a_tie_needs_the_interval_within_the_margin():
    base = np.linspace(0.5, 0.8, 12)
    noise = 0.004 * np.cos(np.arange(12))
    document = build_document(results({"a": list(base), "b": list(base + noise - 0.002), "c": list(base - 0.3)}))
    assert standings(document) == {"a": "best", "b": "tie", "c": "worse"}
    tight = build_document(results({"a": list(base), "b": list(base + noise - 0.002)}, margin=0.001))
    assert standings(tight) == {"a": "best", "b": "undecided"}
    assert tight["settings"]["tie_margin"] == 0.001


def test_a_small_difference_that_is_significant_is_still_a_tie():
    base = np.linspace(0.5, 0.8, 12)
    document = build_document(results({"a": list(base), "b": list(base - 0.005)}))
    (comparison,) = (c for c in document["comparisons"] if c["metric"] == "dice")
    assert comparison["p_holm"] < 0.05
    assert (comparison["outcome"], standings(document)["b"]) == ("tie", "tie")


def test_not_significant_is_undecided_not_equal():
    base, spread = np.full(12, 0.6), 0.2 * np.cos(2.0 * np.arange(12))
    document = build_document(results({"a": list(base + spread), "b": list(base)}))
    assert sorted(standings(document).values()) == ["best", "undecided"]
    text = markdown_table(results({"a": list(base + spread), "b": list(base)}), document, document["baselines"], Part.TEST)
    assert "(undecided)" in text
    assert "lies within ±0.01" in text


def test_few_cases_are_undecided_even_where_all_are_equal():
    assert standings(build_document(results({"a": [0.5] * 5, "b": [0.5 - 1e-6] * 5}))) == {"a": "best", "b": "undecided"}
    assert standings(build_document(results({"a": [0.5] * 6, "b": [0.5 - 1e-6] * 6}))) == {"a": "best", "b": "tie"}


def test_means_are_compared_over_the_cases_of_all_and_their_number_is_said():
    # a is silent in two tumourless cases, where b has false alarms (Dice 0): 0.65 to 0.6 over ten cases, b's own mean is 0.542.
    found = results({"a": [0.6] * 10 + [SILENT] * 2, "b": [0.65] * 10 + [0.0] * 2})
    found = Results(
        tuple(
            r if r.architecture == "a" or r.case < "c10" else row(r.case, "b", 0.0, volume_reference_ml=0.0) for r in found.rows
        ),
        (),
        (),
        found.cases,
    )
    document = build_document(found)
    assert standings(document) == {"a": "worse", "b": "best"}
    assert {a: (s["n"], s["n_compared"]) for a, s in cells_of(document).items()} == {"a": (10, 10), "b": (12, 10)}
    assert {a: s["compared_mean"] for a, s in cells_of(document).items()} == pytest.approx({"a": 0.6, "b": 0.65})
    text = markdown_table(found, document, document["baselines"], Part.TEST)
    # Of twelve drawn, at most seven of the ten have 3.6 % of the draws, at most six 0.8 %: 7 / 12 of 0.65.
    assert "**0.542** [0.379, 0.650] (0.650 over 10)" in text
    # By ranks, in which a false alarm where there is nothing is last, b is first in ten cases and second in two.
    assert cells_of(document)["b"]["mean_rank"] == pytest.approx((10 * 1 + 2 * 2) / 12)
    assert cells_of(document)["b"]["n_ranked"] == 12


@pytest.mark.parametrize(
    "metric", [m.name for m in metrics_of(COLUMNS["pipelined_crlm"].target) if m.oriented(1.0) == m.oriented(1.0)]
)
def test_a_miss_is_last_in_every_metric(metric):
    worst = {metric: 0.0 if METRICS[metric].oriented(1.0) > 0 else 1e6}
    silent = row("c", "b", MISS)
    ranks, _ = ranks_by_case([[row("c", "a", 0.0, **worst)], [silent]], metric)
    assert ranks.tolist() == [[1.0, 2.0]]


def test_a_value_that_only_one_lacks_is_last_and_one_that_all_lack_says_nothing():
    nan = {"hd95_mm": math.nan}
    ranks, _ = ranks_by_case([[row("c", "a", 0.5, hd95_mm=9.0)], [row("c", "b", 0.5, **nan)]], "hd95_mm")
    assert ranks.tolist() == [[1.0, 2.0]]
    ranks, _ = ranks_by_case([[row("c", "a", 0.5, **nan)], [row("c", "b", 0.5, **nan)]], "hd95_mm")
    assert ranks.shape == (0, 2)


def test_only_what_the_prediction_lacks_counts_as_the_worst():
    of_prediction = {u.name for u in Undefined if u.is_of_prediction}
    assert of_prediction == {"PREDICTION_EMPTY", "NO_PREDICTED_LIVER", "NO_PREDICTED_CUT", "NO_LESION_MATCHED"}
    assert row("c", "a", MISS).penalised("hd95_mm") == DIAGONAL
    assert row("c", "a", MISS).penalised("precision") == 0.0
    assert math.isnan(row("c", "a", SILENT).penalised("dice"))


def test_a_fold_without_a_value_is_flagged():
    document = build_document(results({"a": [0.5] * 3 + [MISS] * 3}, folds=[0, 0, 0, 1, 1, 1]))
    stats = cells_of(document, "precision", "cv")["a"]
    assert (stats["mean"], stats["folds_undefined"], stats["penalised_mean"]) == (0.5, [1], 0.25)
    text = markdown_table(
        results({"a": [0.5] * 3 + [MISS] * 3}, folds=[0, 0, 0, 1, 1, 1]), document, document["baselines"], Part.CV
    )
    assert "0.500** [0.500, 0.500] (3u, 3m, pen. 0.250, no value in fold 1)" in text
    assert cells_of(document, "dice", "cv")["a"]["folds_undefined"] == []


def test_holms_family_is_what_was_asked_whatever_came_out():
    base = np.linspace(0.5, 0.8, 12)
    document = build_document(results({"a": list(base), "b": list(base), "c": list(base - 0.1)}))
    of_dice = [c for c in document["comparisons"] if (c["kind"], c["metric"]) == (Kind.ARCHITECTURES.value, "dice")]
    assert [c["n_nonzero"] for c in of_dice] == [0, 12, 12]
    p = 2 / 2**12  # all of 12 differences of one sign, exact
    assert [c["p"] for c in of_dice] == pytest.approx([1.0, p, p])
    assert [c["p_holm"] for c in of_dice] == pytest.approx([1.0, 3 * p, 3 * p])
    assert {c["family"] for c in of_dice} == {3}


def test_the_papers_value_in_our_interval():
    # Held-out pipelined CRLM of nnU-Net in the paper: Dice 0.588, precision 0.605.
    document = build_document(results({"nnunet": list(np.linspace(0.5, 0.7, 12)), "own": [0.5] * 12}))
    assert [cells_of(document)[a]["paper_in_ci95"] for a in ("nnunet", "own")] == [True, None]
    document = build_document(results({"nnunet": [0.5] * 12}))
    assert cells_of(document)["nnunet"]["paper_in_ci95"] is False


@pytest.mark.parametrize("margin", [-0.01, 1.0, math.nan])
def test_a_margin_that_is_none(margin, tmp_path):
    with pytest.raises(SettingsError, match=r"margin must be (at least 0|below 1|a number), got"):
        EvaluationSettings(work=tmp_path, margin=margin)


def test_claims_read_tie_and_undecided():
    base = np.linspace(0.5, 0.8, 12)
    shift = {"nnunet": 0.0, "swinunetr": -0.2, "stunet": -0.001}
    rows = [
        row(f"c{k:02d}", a, v + d, column)
        for column in ("cascaded_flr", "e2e_flr")
        for a, d in shift.items()
        for k, v in enumerate(base)
    ]
    cases = {Part.CV: (), Part.TEST: tuple(f"c{k:02d}" for k in range(12))}
    verdicts = {c["claim"]: c for c in build_document(Results(tuple(rows), (), (), cases))["claims"]}
    assert verdicts["The cascaded nnU-Net has the highest final FLR Dice."]["status"] == "tie"
    assert verdicts["The cascade is slightly better than end-to-end for the FLR."]["status"] == "tie"
    assert (
        "nnU-Net cascaded FLR (L+T+CT) - STU-Net E2E FLR (CT): +0.001"
        in verdicts["The cascaded nnU-Net has the highest final FLR Dice."]["evidence"]
    )
    assert verdicts["STU-Net has the best CRLM segmentation."]["status"] == "not testable"
