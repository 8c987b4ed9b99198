"""The cascade of a worker process, opened once for all its cases (:func:`flrplan.workfolder.map_cases`)."""

from __future__ import annotations

from pathlib import Path

import torch

from flrplan.engine.cascade import Cascade, CascadeSettings
from flrplan.engine.models import ModelStore
from flrplan.hardware import keep_freed_memory

_opened: list[Cascade] = []


def open_cascade(root: Path, demo: Path | None, folds: tuple[int, ...] | None, settings: CascadeSettings, workers: int) -> None:
    """Opens the cascade of this process, one of ``workers`` that share the threads; the others as :class:`ModelStore` takes them."""
    keep_freed_memory()
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    _opened.append(Cascade(ModelStore(root, demo, folds, cache_mb=0), settings))


def opened_cascade() -> Cascade:
    """The one that was opened last."""
    return _opened[-1]
