"""Where the paper's differences are significant its claims hold; where they are not, they are ties, undecided, or not testable."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import yaml

from flrplan.evaluation import COLUMNS, PAPER_COLUMNS, Part, paper
from flrplan.evaluation.claims import CLAIMS, Status, check_claims
from flrplan.evaluation.paper import architecture_order, paper_value


def paper_summary() -> dict:
    summary: dict = {}
    for part in Part:
        for architecture in paper.ARCHITECTURE_TITLES:
            for column in COLUMNS:
                value = paper_value(part, architecture, column, "dice")
                if value is not None:
                    cell = {
                        "dice": {"mean": value[0], "compared_mean": value[0], "std": value[1], "n": 40, "standing": "undecided"}
                    }
                    summary.setdefault(part.value, {}).setdefault(architecture, {})[column] = cell
    return summary


def compared(summary: dict, outcome: str | None = None) -> list[dict]:
    """Every pair of cells, as if the difference of its means were significant, or with another outcome; and the drops of CRLM."""
    entries = []
    for part, architectures in summary.items():
        means = {(a, c): cell["dice"]["mean"] for a, columns in architectures.items() for c, cell in columns.items()}
        for a, b in combinations(means, 2):
            entries.append(entry(part, "architectures", a, b, means[a] - means[b], outcome))
        names = {a for a, c in means if c == "cascaded_crlm"}
        drops = {(a, "pipelined_crlm"): means[a, "pipelined_crlm"] - means[a, "cascaded_crlm"] for a in sorted(names)}
        for a, b in combinations(drops, 2):
            entries.append(entry(part, "drop of a minus drop of b", a, b, drops[a] - drops[b], outcome))
    return entries


def entry(part: str, kind: str, a: tuple[str, str], b: tuple[str, str], difference: float, outcome: str | None) -> dict:
    said = outcome or ("higher" if difference > 0 else "lower")
    values = {
        "difference": difference,
        "ci95": [difference - 0.001, difference + 0.002],
        "n": 40,
        "p_holm": 0.04,
        "outcome": said,
    }
    return {"part": part, "kind": kind, "metric": "dice", "a": list(a), "b": list(b)} | values


def test_columns_are_those_of_the_transcribed_tables():
    for part in Part:
        for architecture in paper.ARCHITECTURE_TITLES:
            present = {c for c in COLUMNS if paper_value(part, architecture, c, "dice")}
            assert present == set(PAPER_COLUMNS[part])


def test_transcription_is_the_shared_one():
    from pathlib import Path

    shared = Path(__file__).parents[3] / "shared" / "paper" / "tables.yaml"
    if not shared.is_file():
        pytest.skip("needs shared/paper/tables.yaml beside the repository")
    assert yaml.safe_load(shared.read_text()) == paper._tables()


def test_the_papers_numbers_hold_the_papers_claims_were_all_differences_significant():
    verdicts = check_claims(paper_summary(), compared(paper_summary()))
    assert len(verdicts) == len(CLAIMS)
    assert Counter(v.status for v in verdicts) == {Status.HELD: len(CLAIMS) - 2, Status.NOT_TESTABLE: 2}, verdicts


@pytest.mark.parametrize(("outcome", "status"), [("tie", Status.TIE), ("undecided", Status.UNDECIDED)])
def test_the_papers_means_alone_hold_nothing(outcome, status):
    verdicts = check_claims(paper_summary(), compared(paper_summary(), outcome))
    # The spread over the folds is no comparison, and what the paper did not measure is not testable.
    assert Counter(v.status for v in verdicts) == {status: len(CLAIMS) - 3, Status.HELD: 1, Status.NOT_TESTABLE: 2}
    untested = check_claims(paper_summary(), [])
    assert Counter(v.status for v in untested) == {Status.NOT_TESTABLE: len(CLAIMS) - 1, Status.HELD: 1}
    assert "no common case" in untested[-3].evidence


def test_claim_that_is_reversed_says_by_how_much():
    summary = paper_summary()
    summary["test"]["stunet"]["cascaded_crlm"]["dice"] |= {"mean": 0.4, "compared_mean": 0.4}
    verdict = next(v for v in check_claims(summary, compared(summary)) if "loses less" in v.claim)
    assert verdict.status is Status.REVERSED
    assert "STU-Net +0.220, nnU-Net +0.063" in verdict.evidence
    # Turned, as the claim has it: a is nnU-Net, which loses 0.063 to 0.220.
    assert "-0.157 [-0.158, -0.155], n = 40, Holm's p 0.040: lower." in verdict.evidence


def test_a_pair_in_the_other_order_is_read_turned():
    summary = paper_summary()
    turned = [e | {"a": e["b"], "b": e["a"]} for e in compared(summary)]  # the claims' winners are lower now
    verdict = next(v for v in check_claims(summary, turned) if "best CRLM" in v.claim)
    assert verdict.status is Status.REVERSED


def test_a_claim_over_several_comparisons():
    held, tie, undecided, reversed_ = Status.HELD, Status.TIE, Status.UNDECIDED, Status.REVERSED
    assert Status.of_all([held, held]) is held
    assert Status.of_all([held, tie]) is tie
    assert Status.of_all([held, tie, undecided]) is undecided
    assert Status.of_all([undecided, reversed_, held]) is reversed_


def test_too_few_or_incomplete_cases_are_not_testable():
    summary = paper_summary()
    few = [e | {"outcome": None, "n": 2} for e in compared(summary)]
    assert "too few cases (n = 2)" in next(v for v in check_claims(summary, few) if "hierarchy" in v.claim).evidence
    summary["test"]["stunet"]["pipelined_crlm"]["dice"]["standing"] = None
    verdict = next(v for v in check_claims(summary, compared(summary)) if "hierarchy" in v.claim)
    assert verdict.status is Status.NOT_TESTABLE
    assert "does not have every case of the held-out test, so it is not compared" in verdict.evidence


def test_one_architecture_leaves_every_claim_untestable_and_says_why():
    summary = paper_summary()
    summary = {part: {"nnunet": summary[part]["nnunet"]} for part in summary}
    verdicts = check_claims(summary, [])
    assert {v.status for v in verdicts} == {Status.NOT_TESTABLE}
    assert "no Dice of Swin-UNETR pipelined Liver (CT) in the cross-validation" in verdicts[0].evidence
    assert "no Dice of" in verdicts[1].evidence


def test_the_means_of_a_claim_are_those_that_are_compared():
    summary = paper_summary()
    summary["test"]["nnunet"]["pipelined_crlm"]["dice"]["mean"] = (
        0.1  # with a false alarm where the others rightly found nothing
    )
    evidence = next(v for v in check_claims(summary, compared(summary)) if "best CRLM" in v.claim).evidence
    assert "nnU-Net pipelined CRLM (L+CT) 0.588" in evidence


def test_stable_training_is_judged_on_the_papers_cells_alone():
    summary = paper_summary()
    foreign = {"dice": {"mean": 0.9, "std": 0.001, "n": 40, "standing": "best"}}
    verdict = check_claims({"cv": {"own": {"e2e_flr": foreign}}, "test": {}}, [])[0]
    assert verdict.status is Status.NOT_TESTABLE
    unstable = {"dice": {"mean": 0.5, "std": 0.4, "n": 40, "standing": "best"}}
    summary["cv"]["own"] = {"e2e_flr": unstable}
    summary["cv"]["nnunet"]["cascaded_flr"] = unstable
    verdict = check_claims(summary, [])[0]
    assert verdict.status is Status.HELD
    assert "largest: Swin-UNETR pipelined CRLM (L+CT) 0.055" in verdict.evidence
    summary["cv"]["stunet"]["e2e_flr"] = {"dice": {"mean": 0.8, "compared_mean": 0.8, "std": None, "n": 40, "standing": "best"}}
    verdict = check_claims(summary, [])[0]
    assert verdict.status is Status.NOT_TESTABLE
    assert verdict.evidence == "no spread over folds of STU-Net E2E FLR (CT)"


def test_order_of_architectures():
    assert architecture_order({"zebra", "stunet", "ant", "nnunet"}) == ["nnunet", "stunet", "ant", "zebra"]
