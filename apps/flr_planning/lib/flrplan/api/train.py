"""One training: a stage, an architecture and a fold, from labelled cases to a published model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator

from flrplan.engine import MODEL_ROOT
from flrplan.errors import SettingsError
from flrplan.files.checked import checked
from flrplan.hardware import choose_device
from flrplan.input_masks import with_predictions
from flrplan.method import InputMasks, Recipe, Stage, Variant, known_stage
from flrplan.networks import ARCHITECTURES, SCRATCH, architecture_named
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.prepare.fine_tuning import prepare_with_plan_of, recipe_like
from flrplan.nnunet.train import EpochReport, train_fold
from flrplan.nnunet.train.pretrained import learned_from, require_weights_of
from flrplan.nnunet.train.provenance import require_unseen
from flrplan.nnunet.train.publishing import require_writable
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import (
    Case,
    Split,
    WorkFolder,
    find_labelled_cases,
    nnunet_split,
    read_split,
    require_fold,
    with_labels_of,
)

FOLDS = 5
"""Of nnU-Net's own draw, where no split says otherwise; the paper's number."""


@checked
class TrainingRequest:
    """What :func:`train` is asked for. The defaults are the paper's.

    stage: one of :data:`flrplan.method.stages.STAGES`. fold: of the split, from 0.
    cases: a folder with ``images/`` and ``labels/`` (planning maps), or its cases.
    work: folder of the prepared data and training states; the same one continues what was stopped.
    models: the model goes to ``<models>/<stage>/<name>``, where the name is that of the architecture or the variant.
    architecture: of :mod:`flrplan.networks.table`. variant: what ``recipe`` is a variant for; it names the architecture then.
    recipe: the settings, those of a variant among them (:meth:`flrplan.method.recipe.Recipe.from_yaml` reads them).
    split: which cases validate and which never train. None: ``splits.json`` beside ``images/``, else nnU-Net's draw of 5 folds.
    pretrained: a file of weights to start from, or ``scratch``: none; None: what the variant says.
    like: a model to go on from, with its weights, in place of that; its plan and what its network sees take the place of the recipe's.
    teacher: a model of the same plan; the averaged logits of its folds are learned in place of the labels.
    predictions: ``<column>/<case>.nii.gz``, for recipes that train on predicted masks or on their errors.
    held_out: ids that must not train, beside those that the split holds out.
    published: what ``published.json`` says of the model from its first instant on; then the fold makes a version of its own.
    validation_seen: the weights may have learned from the fold's validation cases, and the caller says so in its record.
    device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``. half: publish float16 weights. workers: processes that prepare the data.
    """

    stage: Annotated[Stage, BeforeValidator(known_stage)]
    fold: int
    cases: Path | Sequence[Case]
    work: Path
    models: Path = MODEL_ROOT
    architecture: str = ARCHITECTURES[0]
    variant: Variant | None = None
    recipe: Recipe = field(default_factory=Recipe)
    split: Split | None = None
    pretrained: Path | str | None = None
    like: ModelFolder | None = None
    teacher: ModelFolder | None = None
    predictions: Path | None = None
    held_out: Collection[str] = ()
    published: Mapping[str, Any] | None = None
    validation_seen: bool = False
    device: str | torch.device = "auto"
    half: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.like is not None:
            self.like.require_stage(self.stage)
            object.__setattr__(self, "recipe", recipe_like(self.like, self.recipe))

    @property
    def name(self) -> str:
        """What the model is called: the variant, else the architecture."""
        return self.variant.name if self.variant else self.architecture

    @property
    def network(self) -> str:
        """The architecture, be it a variant's."""
        return self.variant.architecture if self.variant else self.architecture

    @property
    def weights(self) -> Path | None:
        """The file to start from, the request's own or its variant's; None: random weights."""
        start = self.variant.pretrained if self.variant and self.pretrained is None else self.pretrained
        return None if start is None or start == SCRATCH else Path(start)

    @property
    def model_folder(self) -> Path:
        """Where the model is published."""
        return self.models / self.stage.name / self.name

    @property
    def stage_work(self) -> StageWork:
        """Where its data are prepared; variants with other arrays have a folder of their own."""
        return StageWork(self.work / self.variant.preparation if self.variant else self.work, self.stage)

    def settle(self) -> tuple[Sequence[Case], Split]:
        """The cases, found, and the split, read or drawn.

        Raises: LabelError and SettingsError where they cannot be, or do not fit each other.
        """
        cases = find_labelled_cases(self.cases) if isinstance(self.cases, Path) else self.cases
        return cases, self.split or split_of(self.cases, cases)


def split_of(folder: object, cases: Sequence[Case], file: Path | None = None, folds: int = FOLDS) -> Split:
    """The split of a file, else of ``splits.json`` in the cases' folder (each must fit the cases), else nnU-Net's own draw over all cases.

    folder: where the cases lie; anything but a path has no ``splits.json``.
    Raises: SettingsError for a split that cannot be read or names other cases, or too few cases for the folds.
    """
    beside = WorkFolder(folder).splits if isinstance(folder, Path) else None
    path = file or (beside if beside is not None and beside.is_file() else None)
    ids = [case.case_id for case in cases]
    if path is None:
        return nnunet_split(ids, folds)
    split = read_split(path)
    split.require_cover(ids, path, folder)
    return split


def check(request: TrainingRequest) -> None:
    """Tells what can be told before the hours of preparing and training. Raises: SettingsError, LabelError, ModelError as :func:`train`."""
    architecture = architecture_named(request.network)
    architecture.size(request.recipe.plan.network_size)
    if request.variant and request.variant.stages and request.stage.name not in request.variant.stages:
        raise SettingsError(
            f"variant {request.variant.name} is trained in stage {', '.join(request.variant.stages)} alone, not in {request.stage}"
        )
    weights = request.weights
    if weights is not None:
        require_weights_of(architecture, request.recipe.plan.network_size, weights)
    _, split = request.settle()
    split.require_training()
    require_fold(split.nnunet_folds(), request.fold, split.test)
    if weights is not None:
        require_unseen(learned_from(weights), str(weights), split.test, split.validation_ids(request.fold))


def prepare(request: TrainingRequest) -> Path | None:
    """Prepares the data of the stage for all folds; what is prepared from the same is kept. Returns the weights to start from, if any.

    Raises: SettingsError where the work folder was prepared from something else; LabelError, ImageError, GridError from the cases.
    """
    cases, split = request.settle()
    if request.variant and request.variant.labels:
        cases = with_labels_of([c for c in cases if c.case_id not in split.test], request.variant.labels)
    if request.predictions is not None:
        if request.recipe.input.input_masks is InputMasks.GROUND_TRUTH:
            raise SettingsError(
                "--predictions is for --input-masks perturbed or predicted_oof; ground_truth would not read them"
            )
        used = {case_id for fold in split.folds for case_id in fold}  # the others never train
        cases = with_predictions([c for c in cases if c.case_id in used], request.stage, request.predictions)
    work, recipe, workers = request.stage_work, request.recipe, request.workers
    if request.like is not None:
        return prepare_with_plan_of(request.like, request.network, cases, work, recipe, split, workers)
    prepare_stage(cases, work, recipe, split, workers)
    return request.weights


def train(
    request: TrainingRequest,
    on_epoch: Callable[[EpochReport], None] | None = None,
    on_iteration: Callable[[int, int], None] | None = None,
) -> Path:
    """Checks, prepares, trains and publishes; a stopped training goes on where it was. Returns the published checkpoint.

    Example::

        request = flrplan.TrainingRequest(flrplan.STAGES["liver"], fold=0, cases=Path("cohort"), work=Path("training"))
        flrplan.train(request, on_epoch=lambda report: print(report.epoch, report.train_loss))

    on_epoch: told after each epoch. on_iteration: told after each optimizer step, how many of how many.
    Raises: SettingsError for an unknown fold or size, a held-out case in the fold, weights that have seen one, or a work folder that was
        prepared from something else; LabelError where a case lacks a label or no training case holds the target; ModelError where the
        model folder holds folds of another plan, or the weights do not fit; TrainingError where memory or batches fail, or the fold is
        being trained already; OutputError where the disk is full. All are FlrError.
    """
    device = request.device if isinstance(request.device, torch.device) else choose_device(request.device)
    cases, split = request.settle()
    request = replace(request, cases=cases, split=split)
    check(request)
    require_writable(request.model_folder)
    weights = prepare(request)
    return train_fold(
        request.stage_work,
        request.fold,
        request.recipe,
        request.model_folder,
        device,
        half=request.half,
        on_epoch=on_epoch,
        on_iteration=on_iteration,
        held_out={*request.held_out, *split.test},
        architecture=request.network,
        pretrained=weights,
        validation_seen=request.validation_seen,
        variant=request.variant,
        teacher=request.teacher,
        published=request.published,
    )
