"""The page of a run: the cases with the most and worst findings first, a picture of each finding, and the rules with their thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flrplan import __version__
from flrplan.files import write_text
from flrplan.files.page import render_page
from flrplan.qc.finding import Finding, Severity
from flrplan.qc.registry import RULES


@dataclass(frozen=True)
class Card:
    """A finding and the picture of it, relative to the page."""

    finding: Finding
    picture: str

    @property
    def place(self) -> str:
        """Where, in words: mm and voxels."""
        if self.finding.centre_mm is None or self.finding.box_zyx is None:
            return "the whole image"
        x, y, z = self.finding.centre_mm
        first, last = (" ".join(map(str, corner)) for corner in self.finding.box_zyx)
        return f"({x:.0f}, {y:.0f}, {z:.0f}) mm LPS; voxels z y x {first} to {last}"


@dataclass(frozen=True)
class CaseBlock:
    """What the page shows of one case."""

    case: str
    label: str
    image: str
    cards: Sequence[Card]
    not_checked: Mapping[str, str]
    error: str
    repaired: Mapping[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Findings by severity."""
        return {s.value: sum(c.finding.severity is s for c in self.cards) for s in Severity}


def write_page(path: Path, cases: Sequence[CaseBlock], without_label: Sequence[str]) -> None:
    """Writes the page; every text that comes from a file or a name is escaped. Raises OutputError."""
    rules = [
        {
            "rule": rule,
            "cases": sum(any(c.finding.rule == rule.name for c in case.cards) for case in cases),
            "not_checked": sum(rule.name in case.not_checked for case in cases),
        }
        for rule in RULES.values()
    ]
    totals = {s.value: sum(case.counts[s.value] for case in cases) for s in Severity}
    values = {"cases": cases, "rules": rules, "titles": RULES, "totals": totals, "without_label": without_label}
    write_text(path, render_page(Path(__file__).with_name("findings.html"), title="Label QC", version=__version__, **values))
