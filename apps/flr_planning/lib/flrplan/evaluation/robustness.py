"""How much of the fall from true to predicted input masks a way of training takes back: means, intervals, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import LabelError
from flrplan.evaluation.settings import TIE_MARGIN
from flrplan.evaluation.statistics import Floats, Outcome, bootstrap_means, can_resample, compare, holm, interval, outcome


@dataclass(frozen=True)
class PairedDice:
    """Dice of the same cases, in the same order, with true (pipelined) and with predicted (cascaded) input masks; NaN: undefined."""

    pipelined: Floats
    cascaded: Floats


@dataclass(frozen=True)
class Robustness:
    """One way of training. Intervals are percentile bootstraps (95 %) over cases, None where there are too few.

    n: cases, of ``cases`` those in which every Dice of every way is defined. gap: pipelined less cascaded.
    gain: cascaded less the reference's cascaded. outcome: what that comparison says (:func:`statistics.outcome`; Holm over the ways,
    the tables' margin of a tie); None for the reference itself, and for too few cases. closed: the gain as a share of the reference's
    gap; None for the reference itself and where its gap cannot be told from 0, for then there is nothing to close.
    """

    name: str
    n: int
    cases: int
    pipelined: float
    cascaded: float
    gap: float
    gap_ci95: Sequence[float] | None
    gain: float
    gain_ci95: Sequence[float] | None
    outcome: Outcome | None
    closed: float | None
    closed_ci95: Sequence[float] | None


def robustness(dice: Mapping[str, PairedDice], reference: str) -> list[Robustness]:
    """A row for each way of training, over the cases in which every Dice is defined; draws of cases are the same for all.

    Raises: KeyError where the reference is not among them; LabelError where no case has them all.
    """
    columns = [values for pair in dice.values() for values in (pair.pipelined, pair.cascaded)]
    defined = ~np.isnan(np.stack(columns)).any(axis=0)
    groups = np.zeros(int(defined.sum()), np.int64)
    if not defined.any():
        raise LabelError(
            f"no case has a Dice of every way of training ({', '.join(dice)}): structures absent from truth and masks?"
        )
    base = dice[reference]
    said = _outcomes(dice, base, reference, groups, defined)
    base_gap = (base.pipelined - base.cascaded)[defined]
    base_ci = interval(base_gap, groups)
    rows = []
    for name, pair in dice.items():
        gap = (pair.pipelined - pair.cascaded)[defined]
        gain = (pair.cascaded - base.cascaded)[defined]
        testable = name != reference and base_ci is not None and base_ci[0] > 0
        closed_ci = None
        if testable and can_resample(groups):
            shares = bootstrap_means(gain, groups) / bootstrap_means(base_gap, groups)
            closed_ci = [float(v) for v in np.percentile(shares, [2.5, 97.5])]
        rows.append(
            Robustness(
                name,
                int(defined.sum()),
                len(defined),
                float(pair.pipelined[defined].mean()),
                float(pair.cascaded[defined].mean()),
                float(gap.mean()),
                interval(gap, groups),
                float(gain.mean()),
                None if name == reference else interval(gain, groups),
                said.get(name),
                float(gain.mean() / base_gap.mean()) if testable else None,
                closed_ci,
            )
        )
    return rows


def _outcomes(
    dice: Mapping[str, PairedDice], base: PairedDice, reference: str, groups: NDArray[np.int64], defined: NDArray[np.bool_]
) -> dict[str, Outcome | None]:
    others = {name: pair.cascaded[defined] for name, pair in dice.items() if name != reference}
    compared = {name: compare(values, base.cascaded[defined], groups) for name, values in others.items()}
    adjusted = holm([entry["p"] for entry in compared.values()])
    return {n: outcome(entry | {"p_holm": p}, TIE_MARGIN) for (n, entry), p in zip(compared.items(), adjusted, strict=True)}


def markdown(rows: Sequence[Robustness]) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| trained on | pipelined | cascaded | gap (95 %) | gain of cascaded (95 %) | which is | gap closed (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        closed = "-" if row.closed is None else f"{100 * row.closed:.0f} %{_percent(row.closed_ci95)}"
        gain = "-" if row.gain_ci95 is None else f"{row.gain:+.3f}{_range(row.gain_ci95)}"
        said = "-" if row.outcome is None else row.outcome.value
        means = f"{row.pipelined:.3f} | {row.cascaded:.3f} | {row.gap:+.3f}{_range(row.gap_ci95)}"
        lines.append(f"| {row.name} | {means} | {gain} | {said} | {closed} |")
    return "\n".join(lines) + "\n"


def _range(ci95: Sequence[float] | None) -> str:
    return "" if ci95 is None else f" ({ci95[0]:+.3f} to {ci95[1]:+.3f})"


def _percent(ci95: Sequence[float] | None) -> str:
    return "" if ci95 is None else f" ({100 * ci95[0]:.0f} to {100 * ci95[1]:.0f})"
