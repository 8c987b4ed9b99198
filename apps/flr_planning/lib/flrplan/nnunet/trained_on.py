"""On which data and fold a training state was made, so that it never continues on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flrplan.errors import SettingsError

KEY = "trained_on"
"""Key of a training state."""


@dataclass(frozen=True)
class TrainedOn:
    """The prepared data of one fold. ``prepared_at``: when their preparation was finished, seconds since 1970."""

    data_sha256: str | None
    train_ids: Sequence[str]
    validation_ids: Sequence[str]
    prepared_at: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, the ids sorted; without the time, since a copied folder has another."""
        return {
            "data_sha256": self.data_sha256,
            "train_ids": sorted(self.train_ids),
            "validation_ids": sorted(self.validation_ids),
        }

    def require_same(self, state: Mapping[str, Any], path: Path) -> None:
        """Raises SettingsError unless a training state was made on these data and this fold.

        A state of an earlier version does not say so. It was, if its first epoch began after these data were prepared: a folder
        is prepared once.
        """
        ending = "use another --work folder, or delete that file to start anew"
        before = state.get(KEY)
        if before is None:
            if _began_at(state) >= self.prepared_at:
                return
            raise SettingsError(
                f"{path} was written by an earlier version, which did not record its cases, and before the data in this folder were "
                f"prepared (or copied), so it cannot be checked that they are the same; {ending}"
            )
        changed = [name for name, value in self.to_json().items() if before.get(name) != value]
        if changed:
            raise SettingsError(f"{path} was trained on other data or another fold ({', '.join(changed)}); {ending}")


def _began_at(state: Mapping[str, Any]) -> float:
    stamps = (state.get("logging") or {}).get("epoch_start_timestamps") or [0.0]
    return float(stamps[0])
