"""Which model serves a stage, and the predictors kept warm. Layout: ``<root>/<stage>/<architecture>/`` (nnU-Net folders),
which may hold later versions of the model and a pointer to the one that serves (:mod:`flrplan.files.folder`).

torch and nnU-Net are imported when a model is opened, so parsers may ask where models lie.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flrplan.engine.cache import CACHE_MB, PredictionCache
from flrplan.errors import ModelError, SettingsError
from flrplan.files import entries
from flrplan.method import Stage
from flrplan.method.engine import Engine
from flrplan.workfolder import ModelIdentity

if TYPE_CHECKING:
    import torch

    from flrplan.nnunet.model import ModelFolder, StagePredictor

logger = logging.getLogger(__name__)

MODEL_ROOT = Path(__file__).resolve().parents[3] / "model"
"""``apps/flr_planning/model``, the app's own model folder."""
DEMO_NAME = "demo"
DEMO_NOTE = "demo models, trained on synthetic cases only: not for patients"
FINE_TUNED_NOTE = "fine-tuned from demo models, which were trained on synthetic cases only"
IS_DEMO = "demo"
"""Key of the ``published.json`` of a demo model that was exported and imported: it stays one wherever it lies."""
FROM_DEMO = "fine_tuned_from_demo"
"""Key of a model's identity, and of its ``published.json``: its weights started from a demo model's."""

DISTILLED = "distilled"
"""Key of a model's identity, and of its ``published.json``: one network that learned what an ensemble says (:mod:`flrplan.learning.distillation`)."""
_OF_DISTILLED = ("weights_sha256", "agreement")
"""What of that a model's identity says."""


def _is_record(distilled: object) -> bool:
    return isinstance(distilled, dict) and all(isinstance(distilled.get(name) or {}, dict) for name in _OF_DISTILLED)


@dataclass(frozen=True)
class FoundModel:
    """A model folder that serves a stage, and whether it is one of the demo models of the repository, or began as one.

    distilled: the ensemble that it was distilled from (weights_sha256) and how far they agree (agreement: mean Dice by target).
    """

    folder: ModelFolder
    demo: bool
    from_demo: bool = False
    distilled: Mapping[str, Any] | None = None


def describe_distilled(distilled: Mapping[str, Any]) -> str:
    """In words, for lists and cards."""
    folds, agreement = distilled.get("weights_sha256") or {}, distilled.get("agreement") or {}
    figures = ", ".join(f"{target} {dice}" for target, dice in agreement.items())
    return f"distilled from {len(folds)} folds (agreement: {figures})"


def require_models_folder(path: Path) -> None:
    """Raises ModelError for what can hold no ``<stage>/<architecture>/``: else the demo models would silently serve in its place."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise ModelError(f"{path} {what}; expected a folder with <stage>/<architecture>/ models")
    if (path / "plans.json").is_file() or any(path.glob("fold_*")):
        raise ModelError(
            f"{path} is one model, expected a folder with <stage>/<architecture>/ models; take it up with: flrplan models import {path} "
            "--stage STAGE"
        )


class ModelStore:
    """Finds models and keeps their predictors; a folder that changed on disk is loaded anew at its next use.

    root: the folder with ``<stage>/<architecture>/``; where it has no model for a stage, ``demo`` serves.
    folds: use these folds only (out-of-fold predictions); None is the ensemble of all that are there.
    cache_mb: megabytes of predictions that are kept, so that only what changed is predicted again (:mod:`flrplan.engine.cache`); 0: none.
    Raises: SettingsError for a ``cache_mb`` below 0 or without end.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = MODEL_ROOT,
        demo: Path | None = MODEL_ROOT / DEMO_NAME,
        folds: tuple[int, ...] | None = None,
        cache_mb: float = CACHE_MB,
    ) -> None:
        if not 0 <= cache_mb < math.inf:
            raise SettingsError(f"cache_mb: expected megabytes, 0 or more, got {cache_mb}; 0 keeps no predictions")
        self.root = Path(root)
        self.demo = demo
        self.folds = folds
        self.cache = PredictionCache(int(cache_mb * 1e6))
        self._lock = threading.Lock()
        self._warm: dict[tuple[str, str, str, bool, Engine], tuple[Any, StagePredictor]] = {}

    def has(self, stage: Stage, architecture: str) -> bool:
        """Whether a model is there at all, whole or not."""
        return any(path.is_dir() and bool(entries(path)) for path, _ in self._candidates(stage, architecture))

    def _candidates(self, stage: Stage, architecture: str) -> list[tuple[Path, bool]]:
        own = self.folder(stage, architecture)
        demo = [] if self.demo is None else [(self.demo / stage.name / architecture, True)]
        return [(own, self.demo is not None and self.root.absolute() == self.demo.absolute()), *demo]

    def find(self, stage: Stage, architecture: str) -> FoundModel:
        """The trained model of a stage, else its demo model.

        Raises: ModelError where neither is there, or the folder is incomplete, damaged or of another stage.
        """
        found = self.find_any(stage, architecture)
        if found is None:
            looked = " and ".join(str(path) for path, _ in self._candidates(stage, architecture))
            raise ModelError(
                f"no {architecture} model for stage {stage}: looked in {looked}. "
                "Train one (flrplan train), import one (flrplan models import), or give another folder (--models)"
            )
        return found

    def find_any(self, stage: Stage, architecture: str) -> FoundModel | None:
        """As :meth:`find`, but None where no model is there. Raises ModelError for one that is there and cannot be used."""
        from flrplan.files import current_version
        from flrplan.nnunet.model import ModelFolder
        from flrplan.nnunet.model.model_folder import COHORT_NAME

        for path, demo in self._candidates(stage, architecture):
            if path.is_dir() and entries(path):
                folder = ModelFolder.open(current_version(path))
                folder.require_stage(stage)
                published = folder.published()
                folder = folder if self.folds is None else folder.with_folds(self.folds)
                distilled = published.get(DISTILLED)
                if distilled is not None and not _is_record(distilled):
                    raise ModelError(f"{folder.path}: published.json is damaged ({DISTILLED}); copy the model folder again")
                is_demo = demo or bool(published.get(IS_DEMO)) or (folder.path / COHORT_NAME).is_file()
                return FoundModel(folder, is_demo, bool(published.get(FROM_DEMO)), distilled)
        return None

    def folder(self, stage: Stage, architecture: str) -> Path:
        """Where the trained model of a stage belongs, be it there or not."""
        return self.root / stage.name / architecture

    def files(self, name: str) -> list[Path]:
        """The files of this name that lie beside the stages: the trained models' before the demo models'."""
        return [path for root in (self.root, self.demo) if root is not None and (path := root / name).is_file()]

    def predictor(
        self, stage: Stage, architecture: str, device: torch.device, mirroring: bool = False, engine: Engine | None = None
    ) -> tuple[StagePredictor, ModelIdentity]:
        """A warm predictor of a stage, and its identity."""
        key = (stage.name, architecture, str(device), mirroring, engine or Engine())
        with self._lock:
            predictor, found = self._load(stage, architecture, key)
        distilled = {key: found.distilled.get(key) for key in _OF_DISTILLED} if found.distilled else None
        identity = replace(
            predictor.identity,
            architecture=architecture,
            demo=found.demo,
            fine_tuned_from_demo=found.from_demo,
            distilled=distilled,
        )
        return predictor, identity

    def _load(
        self, stage: Stage, architecture: str, key: tuple[str, str, str, bool, Engine]
    ) -> tuple[StagePredictor, FoundModel]:
        import torch

        from flrplan.nnunet.model import StagePredictor

        found = self.find(stage, architecture)
        stamp = (found.folder.path, found.folder.fingerprint())
        warm = self._warm.get(key)
        if warm is None or warm[0] != stamp:
            logger.info("loading model %s", found.folder.path)
            for warning in found.folder.warnings:
                logger.warning("%s: %s", found.folder.path, warning)
            warm = (stamp, StagePredictor(found.folder, torch.device(key[2]), *key[3:]))
            self._warm[key] = warm
        return warm[1], found
