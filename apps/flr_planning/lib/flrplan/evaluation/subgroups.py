"""How cases are divided into subgroups: by scan, disease and liver of the truth, and by the clinical columns of ``dataset.csv``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from flrplan.errors import SettingsError
from flrplan.evaluation.rows import Row
from flrplan.workfolder import WorkFolder

CLINICAL: tuple[str, ...] = ("steatosis", "chemotherapy", "bilobar")
"""The columns of ``dataset.csv`` from the clinical sheet: ``yes``, ``no`` or blank (a test compares them with the preparation's)."""
UNKNOWN = "not known"

Clinical = Mapping[str, Mapping[str, str]]
"""By case: column to ``yes``, ``no`` or :data:`UNKNOWN`; empty where the work folder has no such columns."""


@dataclass(frozen=True)
class Division:
    """One way to divide cases: a rule that names the stratum of a row, and the strata in order."""

    name: str
    rule: Callable[[Row], str]
    order: tuple[str, ...]


def _spacing(row: Row) -> str:
    """Thin slices, the data set's usual ones, and those that the app warns about (over 5 mm)."""
    if row.slice_spacing_mm <= 2.5:
        return "<= 2.5 mm"
    return "2.5-5 mm" if row.slice_spacing_mm <= 5.0 else "> 5 mm"


def _tumours(row: Row) -> str:
    """Number of lesions of the truth: its instances, else its components."""
    if row.tumours <= 1:
        return str(row.tumours)
    return "2-5" if row.tumours <= 5 else "> 5"


def _share(value: float, low: float, high: float) -> str:
    if value != value:  # the liver is empty
        return UNKNOWN
    if value < low:
        return f"< {low:g} %"
    return f"{low:g}-{high:g} %" if value <= high else f"> {high:g} %"


def _shares(low: float, high: float) -> tuple[str, ...]:
    return f"< {low:g} %", f"{low:g}-{high:g} %", f"> {high:g} %", UNKNOWN


def divisions(clinical: Clinical) -> tuple[Division, ...]:
    """Every division of an evaluation; a clinical one where it is known of any case.

    Tumour burden: tumour volume over liver volume. FLR%: of the truth, both without tumour. Their limits are ours: round, so that each
    stratum holds cases, and no clinical cut-offs.
    """
    found = [
        Division("slice spacing", _spacing, ("<= 2.5 mm", "2.5-5 mm", "> 5 mm")),
        Division("tumours", _tumours, ("0", "1", "2-5", "> 5")),
        Division("tumour burden", lambda row: _share(row.tumour_percent, 1, 5), _shares(1, 5)),
        Division("FLR%", lambda row: _share(row.flr_percent, 40, 60), _shares(40, 60)),
    ]
    for column in CLINICAL:
        if any(facts.get(column, UNKNOWN) != UNKNOWN for facts in clinical.values()):
            found.append(Division(column, _clinical_rule(clinical, column), ("yes", "no", UNKNOWN)))
    return tuple(found)


def _clinical_rule(clinical: Clinical, column: str) -> Callable[[Row], str]:
    return lambda row: clinical.get(row.case, {}).get(column, UNKNOWN)


def read_clinical(work: Path | None, cases: Collection[str]) -> Clinical:
    """The clinical columns of a work folder's ``dataset.csv`` for these cases; empty without a work folder, table or such columns.

    Raises: SettingsError naming the table where it cannot be read, or holds another value.
    """
    path = WorkFolder(work).dataset if work else None
    if path is None or not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"{path}: expected the table of prepare.py, but it cannot be read: {error}; prepare again"
        ) from error
    found = {}
    for row in rows:
        facts = {column: (row.get(column) or "").strip() for column in CLINICAL}
        wrong = next((column for column, value in facts.items() if value not in ("yes", "no", "")), None)
        if wrong:
            raise SettingsError(f"{path}: {row.get('case')}, {wrong}: expected yes, no or nothing, found {facts[wrong]!r}")
        if row.get("case") in cases and any(facts.values()):
            found[str(row["case"])] = {column: value or UNKNOWN for column, value in facts.items()}
    return found
