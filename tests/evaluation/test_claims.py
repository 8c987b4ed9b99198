"""On the paper's own numbers the verdicts must be the paper's; on partial numbers, not testable."""

from __future__ import annotations

import pytest
import yaml

from flrplan.evaluation import paper
from flrplan.evaluation.claims import CLAIMS, Status, check_claims
from flrplan.evaluation.columns import COLUMNS, REQUIRED, Part
from flrplan.evaluation.paper import architecture_order, paper_value


def paper_summary() -> dict:
    summary: dict = {}
    for part in Part:
        for architecture in paper.ARCHITECTURE_TITLES:
            for column in COLUMNS:
                value = paper_value(part, architecture, column, "dice")
                if value is not None:
                    cell = {"dice": {"mean": value[0], "std": value[1]}}
                    summary.setdefault(part.value, {}).setdefault(architecture, {})[column] = cell
    return summary


def test_columns_are_those_of_the_transcribed_tables():
    for part in Part:
        for architecture in paper.ARCHITECTURE_TITLES:
            present = {c for c in COLUMNS if paper_value(part, architecture, c, "dice")}
            assert present == set(REQUIRED[part])


def test_transcription_is_the_shared_one():
    from pathlib import Path

    shared = Path(__file__).parents[3] / "shared" / "paper" / "tables.yaml"
    if not shared.is_file():
        pytest.skip("needs shared/paper/tables.yaml beside the repository")
    assert yaml.safe_load(shared.read_text()) == paper._tables()


def test_the_papers_numbers_hold_the_papers_claims():
    verdicts = check_claims(paper_summary(), [])
    by_status = [v.status for v in verdicts]
    assert len(verdicts) == len(CLAIMS)
    assert by_status.count(Status.NOT_TESTABLE) == 2
    assert Status.NOT_HELD not in by_status, [v for v in verdicts if v.status is Status.NOT_HELD]


def test_claim_that_does_not_hold_says_by_how_much():
    summary = paper_summary()
    summary["test"]["stunet"]["cascaded_crlm"]["dice"]["mean"] = 0.4
    verdict = next(v for v in check_claims(summary, []) if "loses less" in v.claim)
    assert verdict.status is Status.NOT_HELD
    assert "STU-Net +0.220, nnU-Net +0.063" in verdict.evidence


def test_one_architecture_leaves_every_claim_untestable_and_says_why():
    summary = paper_summary()
    summary = {part: {"nnunet": summary[part]["nnunet"]} for part in summary}
    verdicts = check_claims(summary, [])
    assert {v.status for v in verdicts} == {Status.NOT_TESTABLE}
    assert "no Dice of Swin-UNETR pipelined Liver (CT) in the cross-validation" in verdicts[0].evidence
    assert "no Dice of" in verdicts[1].evidence


def test_stable_training_is_judged_on_the_papers_cells_alone():
    summary = paper_summary()
    foreign = {"dice": {"mean": 0.9, "std": 0.001}}
    verdict = check_claims({"cv": {"own": {"e2e_flr": foreign}}, "test": {}}, [])[0]
    assert verdict.status is Status.NOT_TESTABLE
    unstable = {"dice": {"mean": 0.5, "std": 0.4}}
    summary["cv"]["own"] = {"e2e_flr": unstable}
    summary["cv"]["nnunet"]["cascaded_flr"] = unstable
    verdict = check_claims(summary, [])[0]
    assert verdict.status is Status.HELD
    assert "largest: Swin-UNETR pipelined CRLM (L+CT) 0.055" in verdict.evidence
    summary["cv"]["stunet"]["e2e_flr"] = {"dice": {"mean": 0.8, "std": None}}
    verdict = check_claims(summary, [])[0]
    assert verdict.status is Status.NOT_TESTABLE
    assert verdict.evidence == "no spread over folds of STU-Net E2E FLR (CT)"


def test_evidence_says_whether_a_difference_can_be_told_from_chance():
    entry = {
        "part": "test", "kind": "architectures", "metric": "dice", "a": ["nnunet", "cascaded_flr"], "b": ["stunet", "cascaded_flr"],
        "difference": 0.003, "ci95": [-0.02, 0.03], "n": 40,
    }  # fmt: skip
    verdict = next(v for v in check_claims(paper_summary(), [entry]) if "highest final FLR" in v.claim)
    assert verdict.status is Status.HELD
    assert "cannot be told apart" in verdict.evidence


def test_order_of_architectures():
    assert architecture_order({"zebra", "stunet", "ant", "nnunet"}) == ["nnunet", "stunet", "ant", "zebra"]
