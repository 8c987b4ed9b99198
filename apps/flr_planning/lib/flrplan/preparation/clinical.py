"""The clinical sheet of the TCIA download: what it says of each patient's liver and treatment, for ``dataset.csv``."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flrplan.errors import SettingsError

log = logging.getLogger(__name__)

CLINICAL: Mapping[str, str] = MappingProxyType(
    {"steatosis": "steatosis_yesno", "chemotherapy": "chemo_before_liver_resection", "bilobar": "bilobar_disease"}
)
"""Columns of ``dataset.csv``, each ``yes``, ``no`` or blank (not known), and the sheet's columns that they come from."""

MISSING = -999
_YES_NO = {"1": "yes", "yes": "yes", "0": "no", "no": "no", str(MISSING): "", "": ""}

Clinical = dict[str, dict[str, str]]
"""By case: column to ``yes``, ``no`` or blank."""


def read_clinical(path: Path, cases: Collection[str]) -> Clinical:
    """The sheet's rows of these cases: ``.xlsx`` (by openpyxl) or ``.csv``, a row a patient, :data:`MISSING` or blank where not known.

    The column of ids is the one that holds most of the cases' ids. Cases without a row, rows of no case and columns that are not there
    are named in the log.
    Raises: SettingsError for a file that cannot be read, without a column of :data:`CLINICAL` or of ids, two rows of one case, and a
    value other than 0, 1, yes, no and missing.
    """
    rows = _sheet(path)
    head = [_plain(name) for name in rows[0]] if rows else []
    places = {column: head.index(name) for column, name in CLINICAL.items() if name in head}
    if not places:
        raise SettingsError(
            f"{path}: expected a column of {', '.join(CLINICAL.values())}, found {', '.join(head) or 'nothing'}"
        )
    lacking = [name for column, name in CLINICAL.items() if column not in places]
    if lacking:
        log.warning("%s: no column %s; it stays blank", path, ", ".join(lacking))
    body = [row for row in rows[1:] if any(_text(cell) for cell in row)]
    key = max(range(len(head)), key=lambda place: sum(_text(row[place]) in cases for row in body))
    found: Clinical = {}
    strangers = []
    for row in body:
        case = _text(row[key])
        if case in found:
            raise SettingsError(f"{path}: two rows of {case}; remove one")
        if case not in cases:
            strangers.append(case)
            continue
        found[case] = {column: _yes_no(row[place], path, case, CLINICAL[column]) for column, place in places.items()}
    if not found:
        raise SettingsError(
            f"{path}: no column holds ids of the cases, such as {next(iter(cases), '-')}; columns: {', '.join(head)}"
        )
    without = [case for case in cases if case not in found]
    if without:
        log.warning("%s: no row for %s; what it says of them is not known", path, ", ".join(without))
    if strangers:
        log.warning("%s: rows of no case here: %s", path, ", ".join(strangers))
    return found


def _sheet(path: Path) -> list[list[Any]]:
    """The rows of a table, the head first; of a workbook, the first sheet whose head has a column of :data:`CLINICAL`."""
    try:
        if path.suffix.lower() != ".xlsx":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return _padded(csv.reader(file))
        return _first_fitting(_workbook(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(
            f"{path}: expected the clinical sheet (.xlsx, or .csv in UTF-8), but it cannot be read: {error}"
        ) from error


def _workbook(path: Path) -> list[list[list[Any]]]:
    try:
        from openpyxl import load_workbook
    except ModuleNotFoundError:
        raise SettingsError(f"{path}: reading .xlsx needs openpyxl; pip install openpyxl, or save the sheet as .csv") from None
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        return [_padded(sheet.iter_rows(values_only=True)) for sheet in book.worksheets]
    except OSError:
        raise
    except Exception as error:  # openpyxl lets through what zipfile and its XML reader raise
        raise SettingsError(f"{path}: expected a workbook, but it is damaged: {error}; download it again") from error


def _padded(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """The rows, each as long as the head."""
    listed = [list(row) for row in rows]
    width = len(listed[0]) if listed else 0
    return [(row + [None] * width)[:width] for row in listed]


def _first_fitting(sheets: Sequence[list[list[Any]]]) -> list[list[Any]]:
    fitting = (rows for rows in sheets if rows and set(CLINICAL.values()) & {_plain(name) for name in rows[0]})
    return next(fitting, sheets[0] if sheets else [])


def _plain(name: Any) -> str:
    """A column's name in small letters, with ``_`` between its words."""
    return re.sub(r"[^a-z0-9]+", "_", _text(name).lower()).strip("_")


def _text(cell: Any) -> str:
    """A cell as text; a whole number without its ``.0``."""
    if cell is None:
        return ""
    text = str(cell).strip()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def _yes_no(cell: Any, path: Path, case: str, column: str) -> str:
    try:
        return _YES_NO[_text(cell).lower()]
    except KeyError:
        raise SettingsError(f"{path}: {case}, {column}: expected 0, 1, yes, no or {MISSING}, found {cell!r}") from None
