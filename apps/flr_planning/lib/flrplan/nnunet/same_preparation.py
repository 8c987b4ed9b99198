"""Whether a stage that is prepared already was prepared from the same settings, folds and cases; if not, what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from flrplan.errors import SettingsError
from flrplan.workfolder import Case

_SETTINGS = ("input", "plan")
_ADDED = {"input": {"region_channel": False}}
"""Settings that older preparations do not name, with the value that they had."""


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], cases: Sequence[Case], folder: Path) -> list[str]:
    """Ids of the cases whose files have other paths, sizes or times than before, but the same content; only these are read.

    before, now: ``input``, ``plan``, ``folds``, ``test`` and ``files`` (stamps by case) as JSON holds them; before also ``cases_sha256``.
    Raises: SettingsError naming the settings or cases that differ.
    """
    stamps = before["files"]
    stale = [case for case in cases if stamps.get(case.case_id) != now["files"][case.case_id]]
    differences = _differences(before, now)
    if not differences:
        changed = [case.case_id for case in stale if before["cases_sha256"].get(case.case_id) != case.sha256()]
        differences = [f"files changed of cases {', '.join(changed)}"] * bool(changed)
    if differences:
        raise SettingsError(
            f"{folder} was prepared with other settings, cases, files or folds ({'; '.join(differences)}); use another --work folder "
            "or delete it"
        )
    return [case.case_id for case in stale]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs without a look into the files, in words."""
    found = []
    for part in _SETTINGS:
        old, new = {**_ADDED.get(part, {}), **before[part]}, now[part]
        found += [
            f"{part}.{name} was {shortened(old.get(name))}, is {shortened(new.get(name))}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    old_ids, new_ids = set(before["files"]), set(now["files"])
    for ids, what in ((new_ids - old_ids, "new"), (old_ids - new_ids, "absent")):
        found += [f"{what} cases {', '.join(sorted(ids))}"] * bool(ids)
    return found + [f"other {part}" for part in ("folds", "test") if before[part] != now[part]]
