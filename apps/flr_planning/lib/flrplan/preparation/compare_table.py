"""A comparison of two label sets as CSV (a line per case and structure) and as a short markdown summary."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from statistics import mean, median

from flrplan.anatomy import Structure
from flrplan.preparation.compare import Change

_TITLES = (
    "structure", "cases", "Dice, mean", "Dice, lowest (case)", "volume change, median [ml]", "volume change, median [%]",
    "voxels added", "voxels removed", "pieces before", "pieces after", "pieces removed", "largest removed [mm]",
)  # fmt: skip


def changes_csv(changes: Sequence[Change]) -> str:
    """The table; what is undefined is blank."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Change)], lineterminator="\n")
    writer.writeheader()
    for change in changes:
        row = {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(change).items()}
        writer.writerow({**row, "structure": str(change.structure)})
    return text.getvalue()


def changes_markdown(changes: Sequence[Change], first: str, second: str, gaps: Sequence[str] = ()) -> str:
    """A line per structure over all cases; undefined values are left out and counted."""
    lines = [f"# {second} against {first}", "", "| " + " | ".join(_TITLES) + " |", "|" + "---|" * len(_TITLES)]
    undefined = []
    for structure in dict.fromkeys(c.structure for c in changes):
        own = [c for c in changes if c.structure is structure]
        lines.append("| " + " | ".join(_cells(structure, own)) + " |")
        empty = sum(math.isnan(c.dice) for c in own)
        undefined += (
            [f"{structure}: {empty} of {len(own)} cases are empty in both sets, so they have no Dice."] if empty else []
        )
    removed = sum(c.removed_pieces for c in changes if c.structure is Structure.CRLM)
    cases = sum(c.removed_pieces > 0 for c in changes if c.structure is Structure.CRLM)
    notes = [
        f"Change is second minus first. A piece (26 neighbours) is removed if the second set has no voxel of it: "
        f"{removed} CRLM foci in {cases} cases.",
        *undefined,
        *(f"Not compared: {gap}." for gap in gaps),
    ]
    return "\n".join([*lines, "", *(f"- {n}" for n in notes)]) + "\n"


def _cells(structure: Structure, own: Sequence[Change]) -> list[str]:
    defined = [c for c in own if not math.isnan(c.dice)]
    worst = min(defined, key=lambda c: (c.dice, c.case), default=None)
    percents = [c.change_percent for c in own if not math.isnan(c.change_percent)]
    largest = [c.largest_removed_mm for c in own if not math.isnan(c.largest_removed_mm)]
    return [
        str(structure),
        str(len(own)),
        f"{mean(c.dice for c in defined):.3f}" if defined else "-",
        f"{worst.dice:.3f} ({worst.case})" if worst else "-",
        f"{median(c.change_ml for c in own):+.2f}",
        f"{median(percents):+.1f}" if percents else "-",
        *(str(sum(getattr(c, name) for c in own)) for name in ("added_voxels", "removed_voxels")),
        *(str(sum(getattr(c, name) for c in own)) for name in ("first_pieces", "second_pieces", "removed_pieces")),
        f"{max(largest):.1f}" if largest else "-",
    ]
