"""The benchmark of label QC: every kind of fault has its rule, every rule its fault, and the table counts by hand."""

from __future__ import annotations

from typing import Any

from flrplan.cohort import FaultKind
from flrplan.qc import RULES
from qc_rules import ALSO, RULE_OF, tables


def test_every_kind_of_fault_has_a_rule_and_every_rule_a_fault() -> None:
    assert set(RULE_OF) == set(FaultKind)
    assert set(RULES) - set(RULE_OF.values()) == {"thick_slices", "contrast_phase"}  # no fault of a label
    assert {rule for rules in ALSO.values() for rule in rules} <= set(RULES)


def case(clean: list[list[str]], **kinds: dict[str, Any]) -> dict[str, Any]:
    return {"case": "synth-1-0000", "clean": clean, "kinds": kinds}


def test_the_table_counts_found_missed_and_false() -> None:
    cases = [
        case(
            [], VOID={"stated": True, "new": [["voids", "m"]]}, SHELL={"stated": True, "new": [["shell", "m"], ["voids", "m"]]}
        ),
        case([["voids", "m"]], VOID={"stated": False, "new": []}, RAGGED={"stated": True, "new": [["voids", "bay"]]}),
        case([["in_view", "cut"]], CUT_OFF={"stated": True, "new": []}),
    ]
    rows = {
        line.split("`")[1]: [c.strip() for c in line.split("|")[2:-1]]
        for line in tables(cases).splitlines()
        if line.startswith("| `")
    }
    # Found one void of two, one of one above the stated size; false: beside the shell, and on a label without faults; a ragged border has bays.
    assert rows["voids"] == ["2", "0.50", "1", "1.00", "2", "0.33"]
    assert rows["shell"] == ["1", "1.00", "1", "1.00", "0", "1.00"]
    assert rows["rough_liver"] == ["1", "0.00", "1", "0.00", "0", "-"]
    assert rows["in_view"] == ["0", "-", "0", "-", "0", "-"]  # the scan ended within the liver before
    assert "3 labels without faults: 1 false findings, 1 findings that are true of the case." in tables(cases)
