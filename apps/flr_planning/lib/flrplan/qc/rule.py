"""A rule: what it needs, its thresholds with their sources, how it finds, and how it repairs where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flrplan.anatomy import Mask, Structure
from flrplan.qc.case import Pieces, QcCase
from flrplan.qc.finding import Finding, Severity

MANY = 5
"""So many pieces of one kind are findings of their own, the largest; the rest is one more."""

Find = Callable[..., list[Finding]]
Repair = Callable[..., Mapping[Structure, Mask]]


@dataclass(frozen=True)
class Threshold:
    """A setting of a rule: its default, its unit, and where the default comes from."""

    name: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Rule:
    """One row of the registry (:mod:`flrplan.qc.registry`).

    needs: structures that the label must state. needs_image: a CT on the label's grid.
    find: called with the case and the thresholds by name. It is never called where something that it needs is absent.
    repair: called alike, gives the masks (canonical, whole image) that change; None: nothing can safely be repaired.
    repaired: what the repair does, in words.
    """

    name: str
    title: str
    source: str
    find: Find
    needs: frozenset[Structure] = frozenset({Structure.LIVER})
    needs_image: bool = False
    thresholds: Sequence[Threshold] = ()
    repair: Repair | None = None
    repaired: str = ""

    def lacks(self, case: QcCase) -> str:
        """What the rule needs and the case does not have, in words; empty if all is there."""
        absent = [str(s) for s in sorted(self.needs - set(case.masks))]
        if self.needs_image and case.ct is None:
            absent.append("a CT on its grid")
        return " and ".join(absent)


def piece_findings(
    case: QcCase,
    pieces: Pieces,
    chosen: Sequence[int],
    severity: Severity,
    structure: Structure,
    said: str,
) -> list[Finding]:
    """A finding for each of the chosen pieces (indices into ``pieces.pieces``), ``said`` with its volume as ``{ml}``; of a huge number,
    the largest ones and one for all others.
    """
    found = [pieces.pieces[i] for i in chosen]
    alone = [case.finding(severity, said.format(ml=_ml(p.ml)), structure, p.box, p.ml, "ml") for p in found[:MANY]]
    if len(found) > MANY:
        rest = sum(p.ml for p in found[MANY:])
        alone.append(
            case.finding(severity, f"{len(found) - MANY} more of this kind, {_ml(rest)} together", structure, None, rest, "ml")
        )
    return alone


def _ml(volume: float) -> str:
    return f"{volume:.2g} ml" if volume < 10 else f"{volume:.0f} ml"
