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
    """The prepared data of one fold."""

    data_sha256: str | None
    train_ids: Sequence[str]
    validation_ids: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Plain values, the ids sorted."""
        return {
            "data_sha256": self.data_sha256,
            "train_ids": sorted(self.train_ids),
            "validation_ids": sorted(self.validation_ids),
        }

    def require_same(self, state: Mapping[str, Any], path: Path) -> None:
        """Raises SettingsError unless a training state says that it was made on these data and this fold."""
        before = state.get(KEY) or {}
        changed = [name for name, value in self.to_json().items() if before.get(name) != value]
        if changed:
            raise SettingsError(
                f"{path} was trained on other data or another fold ({', '.join(changed)}); use another --work folder, or delete that "
                "file to start anew"
            )
