"""A plan says what label QC finds in its masks: as data in its report, and as sentences among its warnings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flrplan.anatomy import NestingReport, Structure
from flrplan.image import CT
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan
from flrplan.planning.evidence import evidence_of
from flrplan.preparation import CaseSource, SourceKind
from flrplan.preparation.table import QC_COUNTS, dataset_csv, dataset_row
from flrplan.preparation.truth import Truth
from flrplan.qc import RULES, QcCase, check_case, registry


def plan_of(anatomy: Any) -> Plan:
    case = anatomy.case()
    assert case.ct is not None
    return Plan(CascadeResult(case.ct, case.masks, dict.fromkeys(case.masks, Source.GIVEN), {}, {}, ()))


def test_a_plan_without_faults_has_no_findings(anatomy: Any) -> None:
    plan = plan_of(anatomy)
    assert plan.findings == ()
    assert plan.warnings == ("metastases cut through: 1 (12 ml): move the cut",), "the plan's own sentence"
    assert plan.report()["findings"] == []


def test_findings_are_data_and_warnings_but_not_what_the_plan_says_already(anatomy: Any) -> None:
    anatomy.flr |= (anatomy.ball((20, 20, 12), 9.0) & anatomy.liver) | anatomy.ball((20, 10, 30), 16.0)
    plan = plan_of(anatomy)
    assert [f.rule for f in plan.findings] == ["flr_outside", "flr_pieces"]
    assert (
        len(plan.warnings) == 3
    )  # the plan's own sentences: FLR outside the liver, parts of the remnant, the cut through a metastasis
    assert plan.warnings[1] == "the remnant is not connected: parts of 419 and 3.1 ml"
    record = plan.report()["findings"][1]
    assert (record["rule"], record["severity"], record["structure"]) == ("flr_pieces", "warning", "flr")


def test_a_remnant_too_small_to_live_with_is_told(anatomy: Any) -> None:
    anatomy.flr &= anatomy.ball((21, 22, 30), 18.0)
    told = [w for w in plan_of(anatomy).warnings if "nobody resects so much" in w]
    assert len(told) == 1


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[QcCase]:
    """Every case that ``not_liver`` has looked at."""
    looked: list[QcCase] = []

    def watched(find: Callable[..., Any]) -> Callable[..., Any]:
        def found(case: QcCase, **thresholds: float) -> Any:
            looked.append(case)
            return find(case, **thresholds)

        return found

    rule = RULES["not_liver"]
    monkeypatch.setattr(registry, "RULES", {**RULES, "not_liver": replace(rule, find=watched(rule.find))})
    return looked


def predicted_plan(anatomy: Any) -> Plan:
    case = anatomy.case()
    return Plan.coherent(CascadeResult(case.ct, case.masks, dict.fromkeys(case.masks, Source.PREDICTED), {}, {}, ()))


def evidence_against(plan: Plan, case: QcCase | None) -> tuple[str, ...]:
    flr = plan.masks[Structure.FLR]
    assert plan.raw is not None
    evidence = evidence_of(plan.raw, flr, flr * np.uint8(255), [], case)
    assert evidence is not None
    return evidence.unlike


def test_a_rule_looks_once_at_a_plan_whose_evidence_asks_before(anatomy: Any, counted: list[QcCase]) -> None:
    anatomy.hu[anatomy.liver] = 900  # no liver has such HU
    plan = predicted_plan(anatomy)
    unlike = evidence_against(plan, plan.checked)
    assert any("HU" in sentence for sentence in unlike)
    findings = replace(plan, remark="the same masks").findings
    assert len(counted) == 1
    assert findings == check_case(QcCase(plan.ct.name, plan.ct.geometry, plan.masks, plan.ct)).findings
    assert unlike == evidence_against(plan, None)


def test_evidence_looks_at_the_liver_alone_where_another_mask_reaches_beyond(anatomy: Any, counted: list[QcCase]) -> None:
    anatomy.crlm[0, 0, 0] = True
    plan = predicted_plan(anatomy)
    assert evidence_against(plan, plan.checked) == evidence_against(plan, None)
    assert [set(case.masks) for case in counted] == [{Structure.LIVER}] * 2


def test_what_was_found_in_other_masks_is_not_said_of_these(anatomy: Any, counted: list[QcCase]) -> None:
    plan = predicted_plan(anatomy)
    assert plan.findings == ()
    far = dict(plan.masks) | {Structure.FLR: np.zeros_like(plan.masks[Structure.FLR])}
    other = replace(plan, result=replace(plan.result, masks=far))
    assert "volumes" in {f.rule for f in other.findings}
    assert len(counted) == 2


def test_a_rule_that_fails_costs_itself_not_the_plan(anatomy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("no spacing")

    monkeypatch.setattr(registry, "RULES", {**RULES, "voids": replace(RULES["voids"], find=find)})
    (found,) = plan_of(anatomy).findings
    assert (found.rule, found.severity) == ("voids", "warning")
    assert "not checked, the rule failed (ZeroDivisionError: no spacing)" in plan_of(anatomy).warnings[-1]
    assert registry.check_case(anatomy.case()).not_checked["voids"] == "failed: ZeroDivisionError: no spacing"


def test_dataset_csv_counts_the_findings_of_the_labels_as_they_were_prepared(anatomy: Any, tmp_path: Any) -> None:
    def row() -> dict[str, Any]:
        case = anatomy.case()
        assert isinstance(case.ct, CT)
        truth = Truth(anatomy.liver, anatomy.crlm, anatomy.flr)
        source = CaseSource("case", tmp_path / "ct.nii.gz")
        return dataset_row(source, next(iter(SourceKind)), case.ct, truth, NestingReport(), ("", [], []))

    assert [row()[name] for name in QC_COUNTS] == [0, 0, 0]
    anatomy.liver[18:20, 22:24, 24:27] = anatomy.flr[18:20, 22:24, 24:27] = False
    anatomy.crlm |= anatomy.ball((30, 20, 45), 9.0) & ~anatomy.liver
    found = row()
    assert QC_COUNTS == ("qc_errors", "qc_warnings", "qc_notes")
    assert (found["qc_errors"], found["qc_warnings"]) == (1, 1)
    assert ",qc_errors,qc_warnings,qc_notes," in dataset_csv([found]).splitlines()[0]
