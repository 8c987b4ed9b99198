"""What the paper says in words, each checked on our numbers: held, tie, undecided, reversed, or not testable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from flrplan.evaluation.columns import COLUMNS, PAPER_COLUMNS, Part
from flrplan.evaluation.comparisons import COMPARED, FLR_FROM_CT, Kind, Side
from flrplan.evaluation.paper import ARCHITECTURE_TITLES, architecture_title
from flrplan.evaluation.provenance import ModelRecord
from flrplan.evaluation.statistics import Outcome

Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]
Comparisons = Sequence[Mapping[str, Any]]

LARGEST_FOLD_STD = 0.055
"""The largest std of a Dice over folds in Table 1 (Swin-UNETR, CRLM): what the paper calls low."""


class Status(StrEnum):
    """How a claim fared, by paired comparisons of the means. Undecided: not significant, and not shown to be a tie either."""

    HELD = "held"
    TIE = "tie"
    UNDECIDED = "undecided"
    REVERSED = "reversed"
    NOT_TESTABLE = "not testable"

    @classmethod
    def of_all(cls, statuses: Iterable[Status]) -> Status:
        """Of a claim that needs all of several comparisons: held where all are, reversed where one is."""
        found = set(statuses)
        if cls.REVERSED in found:
            return cls.REVERSED
        if found == {cls.HELD}:
            return cls.HELD
        return cls.TIE if found <= {cls.HELD, cls.TIE} else cls.UNDECIDED


_STATUS = {
    Outcome.HIGHER: Status.HELD,
    Outcome.LOWER: Status.REVERSED,
    Outcome.TIE: Status.TIE,
    Outcome.UNDECIDED: Status.UNDECIDED,
}


Judgement = tuple[Status, str]
"""A status and the evidence for it."""


@dataclass(frozen=True)
class Verdict:
    """One claim of the paper and how it fared. ``evidence``: our numbers, or what is missing to test it."""

    claim: str
    source: str
    status: Status
    evidence: str

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        return {"claim": self.claim, "source": self.source, "status": self.status.value, "evidence": self.evidence}


class _Missing(Exception):
    """A claim needs a number that is not there; the message says which."""


class _Numbers:
    """Our mean Dice values, and the tests between them."""

    def __init__(self, summary: Summary, comparisons: Comparisons) -> None:
        self.summary = summary
        self.of_pair: dict[tuple[str, frozenset[Side], bool], Mapping[str, Any]] = {}
        for entry in comparisons:
            if entry["metric"] == COMPARED:
                sides = frozenset((tuple(entry["a"]), tuple(entry["b"])))
                self.of_pair[entry["part"], sides, entry["kind"] == Kind.DROPS.value] = entry

    def cell(self, part: Part, side: Side) -> Mapping[str, Any]:
        architecture, column = side
        cell = self.summary[part.value].get(architecture, {}).get(column, {}).get(COMPARED)
        if cell is None or cell["mean"] is None:
            raise _Missing(f"no Dice of {_name(side)} in the {part.caption}")
        if cell["standing"] is None:
            raise _Missing(f"{_name(side)} does not have every case of the {part.caption}, so it is not compared")
        return dict(cell)

    def mean(self, part: Part, side: Side) -> float:
        """The mean that is compared: over the cases in which every architecture of the column has a value."""
        return float(self.cell(part, side)["compared_mean"])

    def best(self, part: Part, winner: Side, others: Sequence[Side]) -> Judgement:
        """Whether ``winner`` is above each of the others (all must be there), and the numbers, with the test against the next."""
        mine = self.mean(part, winner)
        values = sorted(((self.mean(part, o), o) for o in others if o != winner), reverse=True)
        if not values:
            raise _Missing(f"nothing to compare {_name(winner)} with in the {part.caption}")
        listed = ", ".join(f"{_name(o)} {v:.3f}" for v, o in values)
        judged = [self.above(part, winner, other) for _, other in values]
        status = Status.of_all(status for status, _ in judged)
        deciding = [text for s, text in judged if s is not Status.HELD] or [judged[0][1]]
        return status, f"{_name(winner)} {mine:.3f}; {listed}. {' '.join(deciding)}"

    def above(self, part: Part, a: Side, b: Side, drops: bool = False) -> Judgement:
        """Whether a is above b by their paired comparison, and that in words. drops: of how much each loses in the cascade."""
        entry = self.of_pair.get((part.value, frozenset((a, b)), drops))
        if entry is None or not entry["n"]:
            raise _Missing(f"{_name(a)} and {_name(b)} have no common case in the {part.caption}")
        if entry["outcome"] is None:
            raise _Missing(f"too few cases (n = {entry['n']}) to compare {_name(a)} with {_name(b)}")
        sign = 1 if tuple(entry["a"]) == a else -1
        outcome = Outcome(entry["outcome"])
        if sign < 0:
            outcome = {Outcome.HIGHER: Outcome.LOWER, Outcome.LOWER: Outcome.HIGHER}.get(outcome, outcome)
        low, high = sorted(sign * limit for limit in entry["ci95"])
        texts = [f"{round(value, 3) + 0.0:+.3f}" for value in (sign * entry["difference"], low, high)]  # + 0.0: no "-0.000"
        numbers = f"{texts[0]} [{texts[1]}, {texts[2]}], n = {entry['n']}, Holm's p {entry['p_holm']:.3f}"
        return _STATUS[outcome], f"{_name(a)} - {_name(b)}: {numbers}: {outcome.value}."


def _name(side: tuple[str, ...]) -> str:
    title = COLUMNS[side[1]].title if side[1] in COLUMNS else side[1]
    return f"{architecture_title(side[0])} {title}"


def _column(name: str) -> list[Side]:
    return [(a, name) for a in ARCHITECTURE_TITLES]


Check = Callable[[_Numbers], Judgement]


def _best_in(part: Part, winner: str, column: str) -> Check:
    return lambda n: n.best(part, (winner, column), _column(column))


def _stable_training(n: _Numbers) -> Judgement:
    """By the rule of thumb of the paper's own largest spread: no test, so held or reversed."""
    stds = {}
    for side in (side for column in PAPER_COLUMNS[Part.CV] for side in _column(column)):
        std = n.cell(Part.CV, side)["std"]
        if std is None:
            raise _Missing(f"no spread over folds of {_name(side)}")
        stds[side] = float(std)
    side = max(stds, key=lambda key: stds[key])
    text = f"largest: {_name(side)} {stds[side]:.3f}; called low up to {LARGEST_FOLD_STD}, the paper's own largest"
    return Status.HELD if stds[side] <= LARGEST_FOLD_STD else Status.REVERSED, text


def _cascade_over_e2e(n: _Numbers) -> Judgement:
    cascaded, e2e = (max(_column(c), key=lambda side: n.mean(Part.TEST, side)) for c in FLR_FROM_CT)
    if len({n.cell(Part.TEST, side)["n"] for c in FLR_FROM_CT for side in _column(c)}) > 1:
        raise _Missing(
            "the means of the FLR are over different cases (see n_undefined), so the best of each strategy is not known"
        )
    best = f"best of each: {_name(cascaded)} {n.mean(Part.TEST, cascaded):.3f}, {_name(e2e)} {n.mean(Part.TEST, e2e):.3f}"
    status, text = n.above(Part.TEST, cascaded, e2e)
    own = [n.above(Part.TEST, (a, FLR_FROM_CT[0]), (a, FLR_FROM_CT[1]))[1] for a in ARCHITECTURE_TITLES]
    return status, " ".join([f"{best}.", text, *(line for line in own if line != text)])


def _top_flr(n: _Numbers) -> Judgement:
    return n.best(Part.TEST, ("nnunet", FLR_FROM_CT[0]), [s for c in FLR_FROM_CT for s in _column(c)])


def _swin_last(n: _Numbers) -> Judgement:
    judged, texts = [], []
    for column in ("pipelined_crlm", "cascaded_crlm"):
        means = {a: n.mean(Part.TEST, (a, column)) for a in ARCHITECTURE_TITLES}
        others = [a for a in means if a != "swinunetr"]
        judged += [n.above(Part.TEST, (a, column), ("swinunetr", column)) for a in others]
        texts.append(f"{COLUMNS[column].title}: " + ", ".join(f"{architecture_title(a)} {v:.3f}" for a, v in means.items()))
    return Status.of_all(status for status, _ in judged), f"{'; '.join(texts)}. {' '.join(text for _, text in judged)}"


def _smaller_drop(n: _Numbers) -> Judgement:
    drop = {a: n.mean(Part.TEST, (a, "pipelined_crlm")) - n.mean(Part.TEST, (a, "cascaded_crlm")) for a in ("stunet", "nnunet")}
    text = ", ".join(f"{architecture_title(a)} {d:+.3f}" for a, d in drop.items())
    status, test = n.above(Part.TEST, ("nnunet", "pipelined_crlm"), ("stunet", "pipelined_crlm"), drops=True)
    return status, f"drop of the mean: {text} (the paper's: +0.026, +0.063). Difference of the drops: {test}"


def _hierarchy(n: _Numbers) -> Judgement:
    order = [(a, "pipelined_crlm") for a in ("stunet", "nnunet", "swinunetr")]
    listed = ", ".join(f"{architecture_title(side[0])} {n.mean(Part.TEST, side):.3f}" for side in order)
    judged = [n.above(Part.TEST, a, b) for a, b in pairwise(order)]
    text = f"pipelined CRLM: {listed} (of the paper's columns, not all are in that order)"
    return Status.of_all(status for status, _ in judged), f"{text}. {' '.join(text for _, text in judged)}"


def _never(why: str) -> Check:
    def check(_: _Numbers) -> Judgement:
        raise _Missing(why)

    return check


CLAIMS: tuple[tuple[str, str, Check], ...] = (
    ("Standard deviations over the folds are low: training is stable.", "section 4.1, Table 1", _stable_training),
    ("STU-Net has the highest Dice for the liver.", "section 4.1, Table 1", _best_in(Part.CV, "stunet", "pipelined_liver")),
    ("STU-Net has the highest Dice for CRLM.", "section 4.1, Table 1", _best_in(Part.CV, "stunet", "pipelined_crlm")),
    ("STU-Net has the highest Dice for the E2E FLR.", "section 4.1, Table 1", _best_in(Part.CV, "stunet", "e2e_flr")),
    (
        "nnU-Net has the highest Dice for the stage 3 FLR, slightly ahead of STU-Net.",
        "section 4.1, Table 1",
        _best_in(Part.CV, "nnunet", "pipelined_flr"),
    ),
    ("The cascade is slightly better than end-to-end for the FLR.", "sections 4.1 and 5, Table 2", _cascade_over_e2e),
    ("The cascaded nnU-Net has the highest final FLR Dice.", "abstract, section 4.1, Table 2", _top_flr),
    (
        "STU-Net has the best CRLM segmentation.",
        "abstract, Table 2",
        _best_in(Part.TEST, "stunet", "pipelined_crlm"),
    ),
    ("Swin-UNETR is not competitive, particularly on CRLM: the lowest Dice.", "section 4.1, Table 2", _swin_last),
    ("STU-Net loses less CRLM Dice than nnU-Net from pipelined to cascaded inputs.", "section 4.2, Table 2", _smaller_drop),
    ("The hierarchy is STU-Net > nnU-Net > Swin-UNETR.", "section 4.2, Table 2", _hierarchy),
    (
        "STU-Net's lead is due to its pretraining.",
        "section 4.2",
        _never("needs an STU-Net trained from scratch beside the pretrained one; the paper has none either"),
    ),
    (
        "Swin-UNETR's weakness is due to its hunger for data.",
        "section 4.2",
        _never("needs trainings on data sets of several sizes; the paper has none either"),
    ),
)
"""Claim, where the paper makes it, and how it is checked."""


def _about_models(status: Status, claim: str, evidence: str, models: Sequence[ModelRecord]) -> tuple[Status, str]:
    """A claim about an architecture says nothing where ours started from other weights; one that only compares with it says so."""
    for record in models:
        title = architecture_title(record.architecture)
        if record.unlike_paper and title in claim:
            status, evidence = Status.NOT_TESTABLE, f"{title} {record.unlike_paper}. Its numbers here: {evidence}"
        elif record.unlike_paper and title in evidence:
            evidence += f" ({title} {record.unlike_paper}.)"
        elif title in claim and record.lacks_start:
            evidence += f" (What {title} started from is not recorded; the paper's, from published weights.)"
    return status, evidence


def check_claims(summary: Summary, comparisons: Comparisons, models: Sequence[ModelRecord] = ()) -> list[Verdict]:
    """Every claim with its verdict. One whose numbers are not all there is not testable here; no claim is left out.

    models: what each architecture started from, as far as it is known; a claim about one that is unlike the paper's is not testable.
    """
    numbers = _Numbers(summary, comparisons)
    verdicts = []
    for claim, source, check in CLAIMS:
        try:
            status, evidence = check(numbers)
        except _Missing as missing:
            status, evidence = Status.NOT_TESTABLE, str(missing)
        verdicts.append(Verdict(claim, source, *_about_models(status, claim, evidence, models)))
    return verdicts
