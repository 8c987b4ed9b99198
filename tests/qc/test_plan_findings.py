"""A plan says what label QC finds in its masks: as data in its report, and as sentences among its warnings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flrplan.anatomy import NestingReport
from flrplan.image import CT
from flrplan.method import CascadeResult, Source
from flrplan.planning import Plan
from flrplan.preparation import CaseSource, SourceKind
from flrplan.preparation.table import QC_COUNTS, dataset_csv, dataset_row
from flrplan.preparation.truth import Truth
from flrplan.qc import RULES, registry


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
