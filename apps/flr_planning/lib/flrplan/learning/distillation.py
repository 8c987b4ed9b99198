"""Distillation of one stage: one network in place of an ensemble, offered where it answers as the ensemble does.

The network has the ensemble's plan, starts from the weights of its first fold, and learns what all folds say together
(:mod:`flrplan.nnunet.train.distillation`). Then both, and that fold alone, predict cases that did not train it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

from flrplan.api.model_zip import LICENCE_NAME
from flrplan.api.train import TrainingRequest, train
from flrplan.engine import MODEL_ROOT, FoundModel, ModelStore
from flrplan.engine.models import DISTILLED, FROM_DEMO, IS_DEMO
from flrplan.errors import LabelError, ModelError, OutputError, SettingsError
from flrplan.files import current_version, write_json
from flrplan.files.checked import Whole, checked
from flrplan.files.folder import POINTER_NAME, VERSIONS_NAME
from flrplan.hardware import choose_device
from flrplan.learning.holdout import DEFAULT_SHARE, position
from flrplan.method import Recipe, Stage, build_stage_input, known_stage
from flrplan.method.recipe import Loss
from flrplan.metrics.overlap import dice
from flrplan.networks import ARCHITECTURES, architecture_named
from flrplan.nnunet.model import ModelFolder, StagePredictor
from flrplan.nnunet.model.model_folder import PUBLISHED_NAME
from flrplan.nnunet.train import EpochReport
from flrplan.nnunet.train.distillation import Teacher
from flrplan.nnunet.train.provenance import now
from flrplan.nnunet.train.publishing import replace_model, require_writable
from flrplan.workfolder import Case, RunRecord, Split, WorkFolder, find_labelled_cases, read_split

logger = logging.getLogger(__name__)

LEAST_AGREEMENT = 0.995
"""Mean Dice between the masks of the network and of the ensemble, of each target, to four digits, from which on the network is offered."""
RATE = 0.2
"""Share of the first fold's learning rate that the network begins with, unless a recipe says otherwise: it starts trained (docs/speed.md)."""
ENSEMBLE, DISTILLED_NETWORK = "ensemble", "distilled"


@checked
class DistillationRequest:
    """What :func:`distil` is asked for.

    stage: one of :data:`flrplan.method.stages.STAGES`. cases: a folder with ``images/`` and ``labels/``; those that its ``splits.json`` calls test
        are left out. Labels place the patches, give the masks that the stage takes, and are compared with; they are not learned.
    work: prepared data, training state and network; the same one continues what was stopped. out: the model goes to
        ``<out>/<stage>/<architecture>``. models: the folder whose model of the stage is the ensemble.
    recipe: its training settings, but for the loss; None: those of the ensemble's first fold. Without a learning rate of its own: a fifth of that fold's.
    epochs: in place of the recipe's. held_out: cases that do not train and are compared on; None: a fifth. device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``.
    half: publish float16 weights. anyway: offer it whatever its agreement, which is stated. workers: processes that prepare the data.
    """

    stage: Annotated[Stage, BeforeValidator(known_stage)]
    cases: Path
    work: Path
    out: Path
    models: Path = MODEL_ROOT
    architecture: str = ARCHITECTURES[0]
    recipe: Recipe | None = None
    epochs: Annotated[Whole, Field(ge=1)] | None = None
    held_out: Annotated[Whole, Field(ge=1)] | None = None
    device: str = "auto"
    half: bool = False
    anyway: bool = False
    workers: int = 1

    @property
    def place(self) -> Path:
        """Where the model is offered."""
        return self.out / self.stage.name / self.architecture


@dataclass(frozen=True)
class Comparison:
    """Dice by model, target and held-out case, 0..1; 1 where both masks are empty.

    agreement: of the first fold alone and of the distilled network, with the ensemble. truth: of these and the ensemble, with the label.
    found: by target the cases in which the ensemble finds something.
    """

    agreement: Mapping[str, Mapping[str, Mapping[str, float]]]
    truth: Mapping[str, Mapping[str, Mapping[str, float]]]
    found: Mapping[str, Sequence[str]]

    def doubts(self) -> list[str]:
        """Why the network is no substitute for the ensemble, a sentence for each target; none where it is."""
        said = []
        for target, of_case in self.agreement[DISTILLED_NETWORK].items():
            mean, worst = round(fmean(of_case.values()), 4), min(of_case, key=lambda case: of_case[case])
            if not self.found[target]:
                said.append(
                    f"the ensemble finds no {target} in any of the {len(of_case)} held-out cases, so nothing is compared"
                )
            elif mean < LEAST_AGREEMENT:
                said.append(f"{target}: mean agreement {mean:.4f}, least {of_case[worst]:.4f} ({worst})")
        return said

    def means(self, scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
        """The mean over the cases, by model and target, to four digits."""
        return {
            model: {target: round(fmean(of_case.values()), 4) for target, of_case in by_target.items()}
            for model, by_target in scores.items()
        }


@dataclass(frozen=True)
class Distilled:
    """What came of it. offered: the model's folder, None where it is not offered; student: the network in the work folder.

    doubts: of :meth:`Comparison.doubts`. first_fold: what it started from, as the comparison calls it. record: its ``published.json``, offered or not.
    """

    offered: Path | None
    student: Path
    comparison: Comparison
    doubts: Sequence[str]
    first_fold: str
    record: Mapping[str, Any]


def distil(request: DistillationRequest, on_epoch: Callable[[EpochReport], None] | None = None) -> Distilled:
    """Trains one network to answer as the folds of a model do together, compares, and offers it where it does.

    A stopped distillation goes on where it was, and one that is asked for more epochs goes on, too.
    Raises: ModelError where there is no model, it has one fold, is a foreign one or damaged, or something lies where the new one would;
    LabelError for fewer than two cases; SettingsError for more held-out cases than that leaves one to train on, or a work folder that was prepared from something
    else; and as :func:`flrplan.api.train.train`. All are FlrError.
    """
    found = ModelStore(request.models).find(request.stage, request.architecture)
    ensemble = found.folder
    _require_ensemble(ensemble)
    if request.place.exists():
        raise ModelError(f"{request.place} exists already; give another --out")
    require_writable(request.place)
    device = choose_device(request.device)
    teacher = Teacher.open(ensemble)
    StagePredictor(ensemble, device)  # says now whether the weights fit
    cases, split = _split(request, teacher.learned_from)
    kind = {IS_DEMO: found.demo, FROM_DEMO: found.from_demo}
    train(
        TrainingRequest(
            request.stage,
            fold=0,
            cases=cases,
            work=request.work,
            models=request.work / "student",
            architecture=request.architecture,
            recipe=_recipe(request, ensemble),
            split=split,
            like=ensemble,
            teacher=ensemble,
            published=kind,  # so that it is told of one that is never compared, or never offered, too
            validation_seen=True,  # the record says which of them trained the ensemble
            device=device,
            half=request.half,
            workers=request.workers,
        ),
        on_epoch,
    )
    student = current_version(request.work / "student" / request.stage.name / request.architecture)
    write_json(student / PUBLISHED_NAME, kind)  # of one that was trained before, with the same weights of the ensemble
    held_out = [case for case in cases if case.case_id in split.validation_ids(0)]
    comparison = compare(ensemble, ModelFolder.open(student), held_out, device)
    doubts = comparison.doubts()
    record = {DISTILLED: _record(found, teacher, student, comparison, split), **kind, "when": now()}
    write_json(student / PUBLISHED_NAME, record)
    offered = None if doubts and not request.anyway else _offer(student, found, request.place)
    return Distilled(offered, student, comparison, doubts, first_fold(ensemble), record)


def compare(ensemble: ModelFolder, student: ModelFolder, cases: Sequence[Case], device: torch.device) -> Comparison:
    """Predicts each case by the ensemble, its first fold and the student, from true masks, raw, on the CT's own grid.

    Raises: ModelError where a prediction is not finite; errors of the cases.
    """
    stage, alone = ensemble.stage, first_fold(ensemble)
    models = {ENSEMBLE: ensemble, alone: ensemble.with_folds(ensemble.folds[:1]), DISTILLED_NETWORK: student}
    predictors = {name: StagePredictor(folder, device) for name, folder in models.items()}
    agreement: dict[str, dict[str, dict[str, float]]] = {m: {t: {} for t in stage.targets} for m in models if m != ENSEMBLE}
    truth: dict[str, dict[str, dict[str, float]]] = {m: {t: {} for t in stage.targets} for m in models}
    found: dict[str, list[str]] = {t: [] for t in stage.targets}
    for number, case in enumerate(cases, start=1):
        ct, masks = case.load(dict.fromkeys((*stage.needs, *stage.targets)))
        given = build_stage_input(ct.array_zyx, ct.geometry, masks, stage, ensemble.input)
        predicted = {name: predictor.predict(given) for name, predictor in predictors.items()}
        for target in stage.targets:
            of_model = {name: given.restore(of_target[target]) for name, of_target in predicted.items()}
            for name, mask in of_model.items():
                truth[name][target][case.case_id] = _dice(masks[target], mask)
                if name != ENSEMBLE:
                    agreement[name][target][case.case_id] = _dice(of_model[ENSEMBLE], mask)
            if of_model[ENSEMBLE].any():
                found[target].append(case.case_id)
        now_agree = {m: {t: round(d[case.case_id], 4) for t, d in of.items()} for m, of in agreement.items()}
        logger.info("stage %s: %s (%d of %d held-out cases): agreement %s", stage, case.case_id, number, len(cases), now_agree)
    return Comparison(agreement, truth, found)


def first_fold(ensemble: ModelFolder) -> str:
    """What the distilled network starts from, in words."""
    return f"fold {ensemble.folds[0]}"


def _dice(reference: Any, mask: Any) -> float:
    value = dice(reference, mask)
    return 1.0 if value != value else value


def _require_ensemble(folder: ModelFolder) -> None:
    if folder.imported_from:
        raise ModelError(
            f"{folder.path} was imported from {folder.imported_from}: a foreign model, whose outputs are not those of a network "
            "trained here, cannot be distilled; train one (flrplan train)"
        )
    if len(folder.folds) < 2:
        raise ModelError(
            f"{folder.path} has one fold, {folder.folds[0]}: there is no ensemble to distil; train more folds (flrplan train --fold), or "
            "give another --models"
        )


def _split(request: DistillationRequest, seen: Collection[str]) -> tuple[list[Case], Split]:
    """The cases, and which are held out: if possible none that the ensemble has learned from, then by id alone."""
    beside = WorkFolder(request.cases).splits
    test = read_split(beside).test if beside.is_file() else ()
    cases = [case for case in find_labelled_cases(request.cases) if case.case_id not in test]
    count = request.held_out or max(1, round(DEFAULT_SHARE * len(cases)))
    if len(cases) < 2:
        raise LabelError(
            f"{request.cases}: expected at least 2 cases, one to train on and one to compare on, found {len(cases)}"
        )
    if count >= len(cases):
        raise SettingsError(f"held_out: at most {len(cases) - 1} of these {len(cases)} cases, got {count}; the others train")
    ids = sorted((case.case_id for case in cases), key=lambda i: (i in seen, position(i)))
    return cases, Split((tuple(sorted(ids[:count])), tuple(sorted(ids[count:]))), tuple(test))


def _recipe(request: DistillationRequest, ensemble: ModelFolder) -> Recipe:
    run = RunRecord.read(ensemble.checkpoint(ensemble.folds[0]).parent, ModelError)
    first = Recipe.from_mapping({"training": (run.details.get("recipe") or {}).get("training") or {}})
    rate = (first.training.resolved(architecture_named(request.architecture)).learning_rate or 0) * RATE
    recipe = request.recipe or replace(first, training=replace(first.training, learning_rate=rate))
    settings = recipe.training
    settings = replace(
        settings,
        epochs=request.epochs or settings.epochs,
        learning_rate=settings.learning_rate or rate,
        loss=Loss.BCE.value,
    )
    return replace(recipe, training=settings)


def _record(found: FoundModel, teacher: Teacher, student: Path, comparison: Comparison, split: Split) -> dict[str, Any]:
    """What ``published.json`` says of a distillation."""
    run = RunRecord.read(student / "fold_0", ModelError)
    held_out, trained = split.validation_ids(0), split.train_ids(0)
    agreement, truth = (comparison.means(scores) for scores in (comparison.agreement, comparison.truth))
    return {
        "from": found.folder.name,
        "weights_sha256": teacher.sha256,
        "agreement": agreement[DISTILLED_NETWORK],
        "agreement_before": agreement[first_fold(found.folder)],
        "dice": truth,
        "by_case": comparison.agreement[DISTILLED_NETWORK],
        "train_ids": list(trained),
        "held_out_ids": list(held_out),
        "held_out_that_trained_the_ensemble": sorted(teacher.learned_from.intersection(held_out)),
        "epochs": run.details["recipe"]["training"]["epochs"],
    }


def _offer(student: Path, found: FoundModel, place: Path) -> Path:
    """Copies the network beside its place, with the licence of the ensemble, then puts it there. Raises: OutputError."""
    beside = place.with_name(f".{place.name}.distilled.partial")
    shutil.rmtree(beside, ignore_errors=True)
    licence = found.folder.path / LICENCE_NAME
    try:
        shutil.copytree(student, beside, ignore=shutil.ignore_patterns(VERSIONS_NAME, POINTER_NAME))
        if licence.is_file():
            shutil.copy(licence, beside)
        return replace_model(beside, place)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{place}: could not be written ({error.strerror or error}); the network stays in {student}"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
