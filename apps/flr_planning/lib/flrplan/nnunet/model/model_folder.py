"""A trained model on disk: a plain nnU-Net trained-model folder with ``plans.json``, ``dataset.json`` and its folds.

``nnUNetv2_predict_from_modelfolder`` can use it; our block in ``dataset.json`` names the stage and its input settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from flrplan.anatomy import Structure
from flrplan.errors import ModelError, SettingsError
from flrplan.files import read_json, stamp_of
from flrplan.files.folder import VERSIONS_NAME
from flrplan.method import STAGES, InputSettings, Stage
from flrplan.nnunet.model.intensities import clip_floor_fault
from flrplan.workfolder import FINAL_CHECKPOINT, RUN_NAME

OWN_BLOCK = "flrplan"
"""Key of our own block in ``dataset.json`` (stage, input) and ``plans.json`` (architecture, size); nnU-Net ignores keys unknown to it."""
INHERITED = "inherited_train_ids"
"""Key of ``run.json``, beside ``train_ids``: what the weights had learned from before, over all models they began as."""
PUBLISHED_NAME = "published.json"
"""In a model folder that was trained from the viewer, or distilled: what it was compared with, and what it started from."""
COHORT_NAME = "training_cohort.json"
"""In the folder of a demo model: the synthetic cohort that it was trained on. It is one wherever it lies."""

IMPORTED = "imported_from"
"""In our block of an imported model: the name of the folder or zip that it came from; ``import`` says what was taken of it."""
APART = "labels_apart"
"""In our block of an imported model: labels that are named like a part of the target and were said to be none."""


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder says about itself, read and checked without opening the weights."""

    path: Path
    stage: Stage
    input: InputSettings
    plans: dict[str, Any]
    dataset: dict[str, Any]
    folds: tuple[int, ...]

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Reads ``plans.json`` and ``dataset.json`` and lists the folds.

        Raises: ModelError naming what is missing, damaged, or not of a stage that this package knows.
        """
        plans, dataset = (read_json_object(path / name) for name in ("plans.json", "dataset.json"))
        own = dataset.get(OWN_BLOCK)
        if not isinstance(own, dict) or str(own.get("stage")) not in STAGES:
            raise ModelError(
                f"{path}: dataset.json does not say which stage this model is for (expected {OWN_BLOCK}.stage, one of "
                f"{', '.join(STAGES)}); import a foreign nnU-Net folder with: flrplan models import FOLDER --stage STAGE"
            )
        stage = STAGES[own["stage"]]
        try:
            settings = InputSettings.from_json(own.get("input") or {})
        except (SettingsError, TypeError) as error:
            raise ModelError(f"{path}: dataset.json holds input settings that cannot be read: {error}") from error
        channels = settings.channel_names(stage)
        if len(dataset.get("channel_names") or {}) != len(channels):
            raise ModelError(
                f"{path}: stage {stage} takes {len(channels)} channels {channels}, "
                f"dataset.json declares {dataset.get('channel_names')}"
            )
        numbers = (f.parent.name.removeprefix("fold_") for f in path.glob(f"fold_[0-9]*/{FINAL_CHECKPOINT}"))
        folds = sorted(int(number) for number in numbers if number.isdigit())
        if not folds:
            raise ModelError(
                f"{path}: no fold_<k>/{FINAL_CHECKPOINT}; the folder is incomplete: copy it again, or train a fold"
            )
        return cls(path, stage, settings, plans, dataset, tuple(folds))

    def require_stage(self, stage: Stage) -> None:
        """Raises ModelError unless this model is for ``stage``."""
        if self.stage != stage:
            raise ModelError(f"{self.path}: expected a model of stage {stage}, this one is of stage {self.stage}")

    def with_folds(self, folds: tuple[int, ...]) -> ModelFolder:
        """The same model restricted to some folds. Raises ModelError where one is not there."""
        missing = sorted(set(folds) - set(self.folds))
        if missing:
            raise ModelError(f"{self.path}: fold {missing[0]} is not trained; there are folds {list(self.folds)}")
        return replace(self, folds=folds)

    @property
    def name(self) -> str:
        """For reports: ``<stage>/<architecture>``, a later version of it with ``versions/<number>``."""
        parts = self.path.parts
        return "/".join(parts[-4:] if parts[-2] == VERSIONS_NAME else parts[-2:])

    def training_cases(self, fold: int) -> frozenset[str]:
        """Ids that trained one fold (:func:`trained_ids`)."""
        return trained_ids(self.checkpoint(fold))

    @property
    def imported_from(self) -> str | None:
        """The name of the folder or zip that a foreign model came from; None for a model of ours."""
        name = self.dataset[OWN_BLOCK].get(IMPORTED)
        return None if name is None else str(name)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in ``dataset.json`` that are its targets, of an imported model those whose union is its one target."""
        return tuple(name for target in self.stage.targets for name in self.labels_of(target))

    def labels_of(self, target: Structure) -> tuple[str, ...]:
        """The labels in ``dataset.json`` whose union is one of its targets."""
        return target_labels(self.dataset[OWN_BLOCK], target)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of this model's results should know, a sentence each, without the folder's name."""
        fault = clip_floor_fault(self.plans, self.stage, self.input)
        apart = self.dataset[OWN_BLOCK].get(APART) or ()
        return (
            *([f"this model was trained on wrongly normalised images: {fault}; train it anew"] if fault else ()),
            *(
                f"the imported model labels {name!r} apart, and it is not counted as {self.stage.target_names}"
                for name in apart
            ),
        )

    def describe(self) -> str:
        """In words: which labels are the target, and what the network sees of the CT."""
        return f"label {' + '.join(self.labels)}, sees {self.input.describe(self.stage)}"

    def published(self) -> dict[str, Any]:
        """What the training from the viewer, or the distillation, recorded (:mod:`flrplan.learning`); empty for every other model."""
        path = self.path / PUBLISHED_NAME
        return read_json_object(path) if path.is_file() else {}

    def checkpoint(self, fold: int) -> Path:
        """The published checkpoint of one fold."""
        return self.path / f"fold_{fold}" / FINAL_CHECKPOINT

    def fingerprint(self) -> tuple[tuple[str, str], ...]:
        """Names and stamps (:func:`flrplan.files.stamp_of`) of all files that matter; it changes when the model does."""
        files = [self.path / "plans.json", self.path / "dataset.json", *(self.checkpoint(f) for f in self.folds)]
        return tuple((str(f), stamp_of(f)) for f in files)


def target_labels(own: Mapping[str, Any], target: Structure) -> tuple[str, ...]:
    """The target's labels by our block of a ``dataset.json``; earlier versions wrote one name."""
    label = own.get("label", target.value)
    return tuple(label) if isinstance(label, list) else (str(label),)


def trained_ids(checkpoint: Path) -> frozenset[str]:
    """Ids that the weights of a checkpoint learned from, also in the models that they began as, by the ``run.json`` beside it.

    Empty where there is none: an imported model, published weights. Raises ModelError where it is damaged.
    """
    path = checkpoint.with_name(RUN_NAME)
    run = read_json_object(path) if path.is_file() else {}
    listed = [run.get(key, []) for key in ("train_ids", INHERITED)]
    if not all(isinstance(ids, list) and all(isinstance(one, str) for one in ids) for ids in listed):
        raise ModelError(
            f"{path} is damaged: expected lists of case ids as train_ids and {INHERITED}; copy the model folder again"
        )
    return frozenset(chain.from_iterable(listed))


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder. Raises: ModelError where it is missing or damaged."""
    if not path.exists():
        raise ModelError(
            f"{path.parent}: {path.name} is missing; a trained nnU-Net folder holds plans.json, dataset.json and fold_<k>"
        )
    try:
        content = read_json(path, "a JSON object", ModelError)
    except ModelError as error:
        raise ModelError(f"{path} is damaged: {error}; copy the model folder again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged: expected a JSON object; copy the model folder again")
    return content
