"""How much of the fall from true to predicted input masks a way of training takes back: means, intervals, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flrplan.evaluation.statistics import Floats, bootstrap_means, can_resample, interval


@dataclass(frozen=True)
class PairedDice:
    """Dice of the same cases, in the same order, with true (pipelined) and with predicted (cascaded) input masks; NaN: undefined."""

    pipelined: Floats
    cascaded: Floats


@dataclass(frozen=True)
class Robustness:
    """One way of training. Intervals are percentile bootstraps (95 %) over cases, None where there are too few.

    gap: pipelined less cascaded. gain: cascaded less the reference's cascaded. closed: the gain as a share of the reference's
    gap; None for the reference itself and where its gap cannot be told from 0, for then there is nothing to close.
    """

    name: str
    n: int
    pipelined: float
    cascaded: float
    gap: float
    gap_ci95: Sequence[float] | None
    gain: float
    gain_ci95: Sequence[float] | None
    closed: float | None
    closed_ci95: Sequence[float] | None


def robustness(dice: Mapping[str, PairedDice], reference: str) -> list[Robustness]:
    """A row for each way of training, over the cases in which every Dice is defined; draws of cases are the same for all.

    Raises: KeyError where the reference is not among them.
    """
    columns = [values for pair in dice.values() for values in (pair.pipelined, pair.cascaded)]
    defined = ~np.isnan(np.stack(columns)).any(axis=0)
    groups = np.zeros(int(defined.sum()), np.int64)
    base = dice[reference]
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
                float(pair.pipelined[defined].mean()),
                float(pair.cascaded[defined].mean()),
                float(gap.mean()),
                interval(gap, groups),
                float(gain.mean()),
                None if name == reference else interval(gain, groups),
                float(gain.mean() / base_gap.mean()) if testable else None,
                closed_ci,
            )
        )
    return rows


def markdown(rows: Sequence[Robustness]) -> str:
    """The rows as a table in Markdown."""
    lines = [
        "| trained on | pipelined | cascaded | gap (95 %) | gain of cascaded (95 %) | gap closed (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        closed = "-" if row.closed is None else f"{100 * row.closed:.0f} %{_percent(row.closed_ci95)}"
        gain = "-" if row.gain_ci95 is None else f"{row.gain:+.3f}{_range(row.gain_ci95)}"
        lines.append(
            f"| {row.name} | {row.pipelined:.3f} | {row.cascaded:.3f} | {row.gap:+.3f}{_range(row.gap_ci95)} | {gain} | {closed} |"
        )
    return "\n".join(lines) + "\n"


def _range(ci95: Sequence[float] | None) -> str:
    return "" if ci95 is None else f" ({ci95[0]:+.3f} to {ci95[1]:+.3f})"


def _percent(ci95: Sequence[float] | None) -> str:
    return "" if ci95 is None else f" ({100 * ci95[0]:.0f} to {100 * ci95[1]:.0f})"
