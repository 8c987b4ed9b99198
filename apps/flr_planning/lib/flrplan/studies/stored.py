"""What a studies folder holds: an image and its labels, each a file with what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flrplan.errors import LabelError


@dataclass(frozen=True)
class StoredLabel:
    """A label file and what is known of it (MONAI Label's ``info``)."""

    path: Path
    ending: str
    info: dict[str, Any]


@dataclass(frozen=True)
class StoredImage:
    """An image file, what is known of it, and its labels by tag."""

    path: Path
    ending: str
    info: dict[str, Any]
    labels: dict[str, StoredLabel] = field(default_factory=dict)


def check_info(info: Mapping[str, Any], what: str) -> None:
    """Raises: LabelError where the info is no plain JSON: with half a character in it, nothing could list the folder any more."""
    try:
        json.dumps(info, ensure_ascii=False, default=str).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise LabelError(f"{what}: its params are not plain JSON ({error}); send names with values, such as {{}}") from error
