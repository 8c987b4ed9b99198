"""A work folder with a small split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flrplan.workflow import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """One held-out case, two folds."""
    (tmp_path / "splits.json").write_text(json.dumps({"test": ["t1"], "folds": [["a1", "a2"], ["b1"]]}))
    return Places(tmp_path, Path("/b"), "/python")
