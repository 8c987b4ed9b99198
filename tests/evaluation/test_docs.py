"""docs/evaluation.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flrplan.evaluation.settings import WRITTEN
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
