"""docs/evaluation.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flrplan.evaluation import TIE_MARGIN, WRITTEN
from flrplan.evaluation.claims import Status
from flrplan.evaluation.statistics import ALPHA, EXACT_PAIRS, MIN_PAIRS_DECIDED
from flrplan.metrics.catalogue import METRICS, NSD_TOLERANCE_MM
from flrplan.metrics.empty import EMPTY_CUTS, EMPTY_MASKS, Emptiness, Undefined

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("head", "end", "declared"),
    [("## Empty masks", "## Floors", EMPTY_MASKS), ("No cut in the", "No cut: ", EMPTY_CUTS)],
)
def test_the_tables_of_empty_masks_and_cuts_are_the_declared_ones(head, end, declared):
    section = TEXT[TEXT.lower().index(head.lower()) : TEXT.index(end)]
    said = {name: cells.split(" | ") for name, cells in re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)}
    states = (Emptiness.REFERENCE, Emptiness.PREDICTION, Emptiness.BOTH)
    assert said == {
        name: ["undefined" if isinstance(row[state], Undefined) else f"{row[state]:g}" for state in states]
        for name, row in declared.items()
    }


def test_every_metric_tolerance_and_file_is_named():
    named = set(re.findall(r"`([\w.]+)`", TEXT))
    assert {name for name in METRICS if not name.endswith("_iou50")} <= named
    assert set(WRITTEN) <= named
    for structure in ("liver", "crlm", "flr"):
        assert f"{structure} {NSD_TOLERANCE_MM[structure]:g} mm" in TEXT


def test_the_rules_of_comparison_are_the_codes():
    section = " ".join(TEXT[TEXT.index("## What is compared") : TEXT.index("## What is written")].split())
    assert f"within the margin, {TIE_MARGIN:g} unless `--margin`" in section
    assert f"Holm's p is below {ALPHA:g}" in section
    assert f"fewer than {MIN_PAIRS_DECIDED} pairs" in section
    assert f"up to {EXACT_PAIRS} of them its p is exact" in section
    assert (
        f"read {', '.join(s.value for s in Status if s is not Status.NOT_TESTABLE)}, or {Status.NOT_TESTABLE.value}" in section
    )
