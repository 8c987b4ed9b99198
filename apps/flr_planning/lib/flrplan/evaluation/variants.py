"""What the rows of the tables are that are no architecture of the paper: variants and ensembles, as their records say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flrplan.evaluation.columns import COLUMNS, Part
from flrplan.evaluation.paper import architecture_title
from flrplan.evaluation.trained import model_folders
from flrplan.workfolder import RUN_NAME, WorkFolder

VARIANT = "variant"
"""Key of ``run.json``: the variant as its YAML says it; absent for an architecture as it is."""
ENSEMBLE = "ensemble"
"""Key of a record of a predicted part: the rows whose predictions were combined, and how."""
_SEED = ("training", "seed")

Variants = Mapping[str, tuple[Mapping[str, Any], ...]]
"""By row: what it is. More than one where its models disagree; none where nothing says that it is other than its name."""


def variants_of(work: Path | None, rows: Iterable[str]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """What each of ``rows`` is, from the records in a work folder (None: they are not at hand). A damaged record says nothing."""
    found: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for row in rows:
        said: list[Mapping[str, Any]] = []
        for path in _records(work, row) if work else ():
            record = _read(path)
            own = record[VARIANT] if record.get(VARIANT) else {ENSEMBLE: record[ENSEMBLE]} if record.get(ENSEMBLE) else None
            if own is not None and own not in said:
                said.append(own)
        found[row] = tuple(said)
    return found


def is_ensemble(own: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a row is made of the predictions of others, so that it has no models."""
    return any(ENSEMBLE in variant for variant in own)


def _records(work: Path, row: str) -> list[Path]:
    models = [folder / RUN_NAME for _, folder in model_folders(work, "*", row)]
    return [path for path in models if path.is_file()] + sorted((WorkFolder(work).predicted / row).glob("*.json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # flrplan.evaluation.trained names a damaged record
    return content if isinstance(content, dict) else {}


def variant_lines(variants: Variants) -> list[str]:
    """The sentence over a table that says what each variant is. Empty where there is none."""
    said = [
        f"{row}: {' | '.join(map(_words, own))}" + (" (MODELS DIFFER)" if own[1:] else "")
        for row, own in variants.items()
        if own
    ]
    return [f"Rows beside the paper's. {'; '.join(said)}."] if said else []


def _words(variant: Mapping[str, Any]) -> str:
    """For example ``STU-Net, pretrained scratch, plan spacing_zyx_mm 1.5 1.5 1.5``."""
    if ENSEMBLE in variant:
        own = variant[ENSEMBLE]
        return f"{own['by']} of {', '.join(map(architecture_title, own['of']))}"
    words = [architecture_title(str(variant.get("architecture")))]
    for part, value in variant.items():
        if part == "architecture":
            continue
        settings = value.items() if isinstance(value, Mapping) else [("", value)]
        words += [" ".join(filter(None, (part, name, _plain(v)))) for name, v in settings]
    return ", ".join(words)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def seed_groups(variants: Variants) -> list[tuple[str, ...]]:
    """Rows that differ in the seed of their training alone, at least two together."""
    groups: dict[str, list[str]] = {}
    for row, own in variants.items():
        if len(own) > 1 or is_ensemble(own):
            continue
        variant = dict(own[0]) if own else {"architecture": row}
        part, name = _SEED
        rest = {k: v for k, v in variant.get(part, {}).items() if k != name}
        variant = {k: v for k, v in variant.items() if k != part} | ({part: rest} if rest else {})
        groups.setdefault(json.dumps(variant, sort_keys=True), []).append(row)
    return [tuple(rows) for rows in groups.values() if len(rows) > 1]


def seed_lines(variants: Variants, of_part: Mapping[str, Mapping[str, Any]], part: Part) -> list[str]:
    """A sentence for each group of rows that differ in the seed alone: how far apart their mean Dice is, column by column.

    of_part: the summary of that part, by row, column and metric. Empty where there is no such group with numbers.
    """
    lines = []
    for rows in seed_groups(variants):
        spreads = []
        for column in COLUMNS:
            means = [_mean(of_part, row, column) for row in rows]
            values = [mean for mean in means if mean is not None]
            if len(values) > 1:
                spreads.append(f"{COLUMNS[column].title} {max(values) - min(values):.3f}")
        if spreads:
            names = ", ".join(map(architecture_title, rows))
            lines.append(
                f"{names} differ in their seed alone. Largest minus smallest mean Dice in the {part.caption}: {', '.join(spreads)}. "
                f"That is what the seed did in {len(rows)} trainings each, and no bound: the next seed may lie outside."
            )
    return lines


def _mean(of_part: Mapping[str, Mapping[str, Any]], row: str, column: str) -> float | None:
    cell = of_part.get(row, {}).get(column, {}).get("dice")
    return None if cell is None else cell["mean"]
