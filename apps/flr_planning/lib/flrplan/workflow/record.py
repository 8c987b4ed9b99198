"""What a work folder was made with, so that a changed YAML never mixes two benchmarks in one folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from flrplan.errors import SettingsError
from flrplan.io import write_json
from flrplan.splits import Split
from flrplan.workflow.jobs import STATE
from flrplan.workflow.settings import BenchmarkSettings

RECORD = Path(STATE) / "settings.json"
"""Where the record lies in a work folder."""


def require_same_benchmark(settings: BenchmarkSettings, split: Split | None, work: Path) -> None:
    """Records what decides the results; architectures and stages may be added later, the rest may not change.

    Raises: SettingsError naming what differs from the earlier runs in this folder.
    """
    path = work / RECORD
    now = json.loads(json.dumps(_decisive(settings, split), default=str))
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # A split that a job draws is recorded once it is there.
    changed = sorted(k for k in now if k in before and None not in (before[k], now[k]) and before[k] != now[k])
    changed += sorted(k for k in now if k in before and (before[k] is None) != (now[k] is None) and k != "split")
    if changed:
        raise SettingsError(
            f"{work} was made with other settings ({', '.join(changed)}); use another --work folder, "
            f"or delete its training/, models/, predictions/, predicted/ and {STATE}/ to start anew"
        )
    write_json(path, {**before, **{k: v for k, v in now.items() if v is not None or k not in before}})


def _decisive(settings: BenchmarkSettings, split: Split | None) -> dict[str, Any]:
    recipe = yaml.safe_load(settings.recipe.read_text(encoding="utf-8")) if settings.recipe else {}
    return {
        "data": asdict(settings.data),
        "split": {"test": split.test, "folds": split.folds} if split else None,
        "folds": settings.folds,
        "recipe": recipe,
        "train_size": settings.train_size or "",
        "mirroring": settings.mirroring,
        **{f"pretrained {a}": [str(p), p.stat().st_size] for a, p in settings.pretrained.items()},
    }
