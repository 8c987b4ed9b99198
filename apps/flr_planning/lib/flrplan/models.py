"""Which model serves a stage, and the predictors kept warm. Layout: ``<root>/<stage>/<architecture>/`` (nnU-Net folders)."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flrplan.errors import ModelError
from flrplan.nnunet.model_folder import ModelFolder
from flrplan.nnunet.predictor import StagePredictor
from flrplan.stages import Stage

logger = logging.getLogger(__name__)

MODEL_ROOT = Path(__file__).resolve().parents[2] / "model"
"""``apps/flr_planning/model``, the app's own model folder."""
DEMO_NAME = "demo"
DEMO_NOTE = "demo models, trained on synthetic cases only: not for patients"


@dataclass(frozen=True)
class FoundModel:
    """A model folder that serves a stage, and whether it is one of the demo models of the repository."""

    folder: ModelFolder
    demo: bool


class ModelStore:
    """Finds models and keeps their predictors; a folder that changed on disk is loaded anew at its next use.

    root: the folder with ``<stage>/<architecture>/``; where it has no model for a stage, ``demo`` serves.
    folds: use these folds only (out-of-fold predictions); None is the ensemble of all that are there.
    """

    def __init__(
        self,
        root: Path = MODEL_ROOT,
        demo: Path | None = MODEL_ROOT / DEMO_NAME,
        folds: tuple[int, ...] | None = None,
    ) -> None:
        self.root = root
        self.demo = demo
        self.folds = folds
        self._lock = threading.Lock()
        self._warm: dict[tuple[str, str, str, bool], tuple[Any, StagePredictor, bool]] = {}

    def has(self, stage: Stage, architecture: str) -> bool:
        """Whether a model is there at all, whole or not."""
        return any(path.is_dir() and any(path.iterdir()) for path, _ in self._candidates(stage, architecture))

    def _candidates(self, stage: Stage, architecture: str) -> list[tuple[Path, bool]]:
        roots = [(self.root, False), *([(self.demo, True)] if self.demo is not None else [])]
        return [(root / stage.name / architecture, demo) for root, demo in roots]

    def find(self, stage: Stage, architecture: str) -> FoundModel:
        """The trained model of a stage, else its demo model.

        Raises: ModelError where neither is there, or the folder is incomplete, damaged or of another stage.
        """
        candidates = self._candidates(stage, architecture)
        for path, demo in candidates:
            if path.is_dir() and any(path.iterdir()):
                folder = ModelFolder.open(path)
                folder.require_stage(stage)
                return FoundModel(folder if self.folds is None else folder.with_folds(self.folds), demo)
        raise ModelError(
            f"no {architecture} model for stage {stage}: looked in {' and '.join(str(p) for p, _ in candidates)}. "
            "Train one (flrplan train), import one (flrplan models import), or give another folder (--models)"
        )

    def predictor(
        self, stage: Stage, architecture: str, device: torch.device, mirroring: bool = False
    ) -> tuple[StagePredictor, dict[str, Any]]:
        """A warm predictor of a stage, and its identity for reports (with ``demo`` and ``architecture``)."""
        found = self.find(stage, architecture)
        key = (stage.name, architecture, str(device), mirroring)
        stamp = (found.folder.path, found.folder.fingerprint())
        with self._lock:
            warm = self._warm.get(key)
            if warm is None or warm[0] != stamp:
                logger.info("loading model %s", found.folder.path)
                warm = (stamp, StagePredictor(found.folder, device, mirroring), found.demo)
                self._warm[key] = warm
        return warm[1], {**warm[1].identity, "architecture": architecture, "demo": warm[2]}
