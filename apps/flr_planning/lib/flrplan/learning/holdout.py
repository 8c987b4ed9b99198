"""The part of the annotated cases that never trains, so that a new model can be compared with the current one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from flrplan.errors import LabelError, SettingsError
from flrplan.files import write_json

DEFAULT_SHARE = 0.2
LEAST_TRAINING = 2


@dataclass(frozen=True)
class Parts:
    """Ids that train, and ids that never do; both sorted."""

    training: tuple[str, ...]
    holdout: tuple[str, ...]


def position(case_id: str) -> float:
    """A number in [0, 1) that depends on the id alone (SHA-256)."""
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big") / 2**64


def divide(
    case_ids: Collection[str],
    share: float,
    remembered: Collection[str] = (),
    trained: Collection[str] = (),
    showing: Collection[str] | None = None,
) -> Parts:
    """Which cases train and which are the hold-out: those of a :func:`position` below ``share``, and those ``remembered``.

    The hold-out has at least one, and at least one of ``showing`` (those with voxels of the target; None: all) if one of them, and two
    cases in all, still train then. One that is added has the lowest position, if possible not among ``trained`` (what the current
    model has learned from). It must then be remembered, since a case that comes later may have a lower one.
    Raises: LabelError where fewer than two cases would train.
    """

    def first(candidates: Collection[str]) -> str:
        return min(candidates, key=lambda i: (i in trained, position(i)))

    ids = sorted(set(case_ids))
    holdout = [i for i in ids if position(i) < share or i in remembered]
    shows = [i for i in ids if showing is None or i in showing]
    if not set(holdout) & set(shows) and len(shows) >= 2 and len(ids) - len(holdout) > LEAST_TRAINING:
        holdout = sorted([*holdout, first(shows)])
    if ids and not holdout:
        holdout = [first(ids)]
    training = [i for i in ids if i not in holdout]
    if len(training) < LEAST_TRAINING:
        raise LabelError(
            f"{len(holdout)} of {len(ids)} cases are held out of training ({', '.join(holdout)}), so {len(training)} would train and at least "
            f"{LEAST_TRAINING} are needed; label more images"
        )
    return Parts(tuple(training), tuple(holdout))


class HoldOut:
    """The hold-out of a model root, in one file for all stages: a case that was in it once stays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def divide(
        self, case_ids: Sequence[str], share: float, trained: Collection[str] = (), showing: Collection[str] | None = None
    ) -> Parts:
        """As :func:`divide`, with and into the memory. Raises LabelError; SettingsError where the file is damaged."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            before = self._read()
            parts = divide(case_ids, share, before, trained, showing)
            after = sorted({*before, *parts.holdout})
            if after != before:
                write_json(self.path, {"kept": after})
        return parts

    def _read(self) -> list[str]:
        if not self.path.is_file():
            return []
        try:
            return sorted(map(str, json.loads(self.path.read_text(encoding="utf-8"))["kept"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f'{self.path}: expected {{"kept": [ids]}}, found {error}; restore it or delete it') from error
