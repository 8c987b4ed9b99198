"""What a work folder was made with, so that a changed YAML never mixes two benchmarks in one folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flrplan.files import read_yaml
from flrplan.networks import SCRATCH
from flrplan.workflow.jobs import split_file
from flrplan.workflow.settings import BenchmarkSettings
from flrplan.workfolder import Split, WorkFolder, read_record, read_split, require_same, write_record


def require_same_benchmark(settings: BenchmarkSettings, split: Split | None, work: Path, record: bool = True) -> None:
    """Records what decides the results; architectures, variants, ensembles and stages may be added later, the rest may not change.

    split: the one that the work folder keeps (:func:`flrplan.workflow.jobs.settled_split`); recorded once it is there.
    record: False only compares.
    Raises: SettingsError naming what differs from the earlier runs in this folder.
    """
    path = WorkFolder(work).workflow / "settings.json"
    now, before = _decisive(settings, split, work), read_record(path)
    # A split is null until it is drawn; what is new beside the old is an architecture or a variant more.
    asked = {key: now[key] for key in now if key in before and not (key == "split" and None in (before[key], now[key]))}
    remedy = "use another --work folder, or delete its training/, models/, predictions/, predicted/, probabilities/ and workflow/ to start anew"
    require_same({key: before[key] for key in asked}, asked, str(work), remedy)
    if record:
        write_record(path, {**before, **{k: v for k, v in now.items() if v is not None or k not in before}})


def _decisive(settings: BenchmarkSettings, split: Split | None, work: Path) -> dict[str, Any]:
    recipe = read_yaml(settings.recipe, "a YAML file with recipes") if settings.recipe else {}
    return {
        # Whether cases may be missing can be said after one was found to be; the split shows which were dropped.
        # The clinical sheet divides results and decides none.
        "data": {k: v for k, v in asdict(settings.data).items() if k not in ("allow_missing", "clinical")},
        **_asked_split(settings, work),
        "split": _plain(split) if split else None,
        "folds": settings.folds,
        "recipe": recipe,
        "train_size": settings.train_size or "",
        "mirroring": settings.mirroring,
        **{f"ensemble {name}": members for name, members in settings.ensembles.items()},
        **{f"variant {name}": {**v.to_json(), "preparation": v.preparation} for name, v in settings.variants.items()},
        **{f"pretrained {a}": [str(p), p.stat().st_size] if p else SCRATCH for a, p in settings.pretrained.items()},
    }


def _asked_split(settings: BenchmarkSettings, work: Path) -> dict[str, Any]:
    """What a job makes the work folder's split from: the content of a file, which may lose missing cases, or how it is drawn."""
    asked = settings.split
    if asked is None or asked.file == split_file(settings, work):
        return {}
    draw = {"held_out": asked.held_out, "folds": asked.folds}
    return {"split asked for": _plain(read_split(asked.file)) if asked.file else draw}


def _plain(split: Split) -> dict[str, Any]:
    return {"test": split.test, "folds": split.folds}
