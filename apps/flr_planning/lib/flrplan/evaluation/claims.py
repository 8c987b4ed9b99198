"""What the paper says in words, each checked on our numbers: held, not held, or not testable here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from flrplan.evaluation.columns import COLUMNS, REQUIRED, Part
from flrplan.evaluation.comparisons import FLR_FROM_CT, Kind
from flrplan.evaluation.paper import ARCHITECTURE_TITLES, architecture_title
from flrplan.evaluation.provenance import ModelRecord

Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]
Comparisons = Sequence[Mapping[str, Any]]
Side = tuple[str, str]

LARGEST_FOLD_STD = 0.055
"""The largest std of a Dice over folds in Table 1 (Swin-UNETR, CRLM): what the paper calls low."""


class Status(str, Enum):
    """How a claim fared, by the means alone; the evidence says whether the difference can be told from chance."""

    HELD = "held"
    NOT_HELD = "not held"
    NOT_TESTABLE = "not testable here"


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
        self.comparisons = comparisons

    def cell(self, part: Part, side: Side) -> Mapping[str, Any]:
        architecture, column = side
        cell = self.summary[part.value].get(architecture, {}).get(column, {}).get("dice")
        if cell is None or cell["mean"] is None:
            raise _Missing(f"no Dice of {_name(side)} in the {part.caption}")
        return dict(cell)

    def mean(self, part: Part, side: Side) -> float:
        return float(self.cell(part, side)["mean"])

    def best(self, part: Part, winner: Side, others: Sequence[Side]) -> tuple[bool, str]:
        """Whether ``winner`` has the highest mean (all must be there), and the numbers, with the test against the runner-up."""
        mine = self.mean(part, winner)
        values = sorted(((self.mean(part, o), o) for o in others if o != winner), reverse=True)
        if not values:
            raise _Missing(f"nothing to compare {_name(winner)} with in the {part.caption}")
        listed = ", ".join(f"{_name(o)} {v:.3f}" for v, o in values)
        return mine > values[0][0], f"{_name(winner)} {mine:.3f}; {listed}. {self.tie(part, winner, values[0][1])}"

    def tie(self, part: Part, a: Side, b: Side, kind: Kind | None = None) -> str:
        """In words: whether the paired interval of the difference excludes 0. ``kind``: None for Dice itself."""
        for entry in self.comparisons:
            is_kind = entry["kind"] == kind.value if kind else entry["kind"] != Kind.DROPS.value
            sides = {tuple(entry["a"]), tuple(entry["b"])}
            if is_kind and entry["part"] == part.value and entry["metric"] == "dice" and sides == {a, b}:
                if entry["ci95"] is None:
                    return f"Too few cases (n = {entry['n']}) for an interval."
                low, high = entry["ci95"]
                verdict = "cannot be told apart" if low <= 0 <= high else "differ"
                pair = f"{_name(tuple(entry['a']))} - {_name(tuple(entry['b']))}"
                return f"{pair}: {entry['difference']:+.3f} [{low:+.3f}, {high:+.3f}], n = {entry['n']}: they {verdict}."
        return "Not tested as a pair."


def _name(side: tuple[str, ...]) -> str:
    title = COLUMNS[side[1]].title if side[1] in COLUMNS else side[1]
    return f"{architecture_title(side[0])} {title}"


def _column(name: str) -> list[Side]:
    return [(a, name) for a in ARCHITECTURE_TITLES]


Check = Callable[[_Numbers], tuple[bool, str]]


def _best_in(part: Part, winner: str, column: str) -> Check:
    return lambda n: n.best(part, (winner, column), _column(column))


def _stable_training(n: _Numbers) -> tuple[bool, str]:
    stds = {}
    for side in (side for column in REQUIRED[Part.CV] for side in _column(column)):
        std = n.cell(Part.CV, side)["std"]
        if std is None:
            raise _Missing(f"no spread over folds of {_name(side)}")
        stds[side] = float(std)
    side = max(stds, key=lambda key: stds[key])
    text = f"largest: {_name(side)} {stds[side]:.3f}; called low up to {LARGEST_FOLD_STD}, the paper's own largest"
    return stds[side] <= LARGEST_FOLD_STD, text


def _cascade_over_e2e(n: _Numbers) -> tuple[bool, str]:
    cascaded, e2e = (max(_column(c), key=lambda side: n.mean(Part.TEST, side)) for c in FLR_FROM_CT)
    better = n.mean(Part.TEST, cascaded) > n.mean(Part.TEST, e2e)
    best = f"best of each: {_name(cascaded)} {n.mean(Part.TEST, cascaded):.3f}, {_name(e2e)} {n.mean(Part.TEST, e2e):.3f}"
    tests = " ".join(n.tie(Part.TEST, (a, FLR_FROM_CT[0]), (a, FLR_FROM_CT[1])) for a in ARCHITECTURE_TITLES)
    return better, f"{best}. {tests}"


def _top_flr(n: _Numbers) -> tuple[bool, str]:
    return n.best(Part.TEST, ("nnunet", FLR_FROM_CT[0]), [s for c in FLR_FROM_CT for s in _column(c)])


def _swin_last(n: _Numbers) -> tuple[bool, str]:
    lowest, texts = True, []
    for column in ("pipelined_crlm", "cascaded_crlm"):
        means = {a: n.mean(Part.TEST, (a, column)) for a in ARCHITECTURE_TITLES}
        lowest &= all(means["swinunetr"] < v for a, v in means.items() if a != "swinunetr")
        texts.append(f"{COLUMNS[column].title}: " + ", ".join(f"{architecture_title(a)} {v:.3f}" for a, v in means.items()))
    return lowest, "; ".join(texts)


def _smaller_drop(n: _Numbers) -> tuple[bool, str]:
    drop = {a: n.mean(Part.TEST, (a, "pipelined_crlm")) - n.mean(Part.TEST, (a, "cascaded_crlm")) for a in ("stunet", "nnunet")}
    text = ", ".join(f"{architecture_title(a)} {d:+.3f}" for a, d in drop.items())
    test = n.tie(Part.TEST, ("nnunet", "pipelined_crlm"), ("stunet", "pipelined_crlm"), Kind.DROPS)
    return drop["stunet"] < drop[
        "nnunet"
    ], f"drop of the mean: {text} (the paper's: +0.026, +0.063). Difference of the drops: {test}"


def _hierarchy(n: _Numbers) -> tuple[bool, str]:
    means = [n.mean(Part.TEST, (a, "pipelined_crlm")) for a in ("stunet", "nnunet", "swinunetr")]
    listed = ", ".join(
        f"{architecture_title(a)} {v:.3f}" for a, v in zip(("stunet", "nnunet", "swinunetr"), means, strict=True)
    )
    return means[0] > means[1] > means[2], f"pipelined CRLM: {listed} (of the paper's columns, not all are in that order)"


def _never(why: str) -> Check:
    def check(_: _Numbers) -> tuple[bool, str]:
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
            held, evidence = check(numbers)
            status = Status.HELD if held else Status.NOT_HELD
        except _Missing as missing:
            status, evidence = Status.NOT_TESTABLE, str(missing)
        verdicts.append(Verdict(claim, source, *_about_models(status, claim, evidence, models)))
    return verdicts
