"""Trains the demo models: all stages, two folds, on the synthetic cohort, by the project's own training path."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from flrplan.api.train import TrainingRequest, train
from flrplan.cohort import CaseSize, CohortSettings, write_cohort
from flrplan.cohort.settings import COHORT_VERSION
from flrplan.demo.held_out import FOLDS, TRAIN_CASES, TRAIN_SEED, TRAIN_WIDE, choosing_cohort
from flrplan.demo.threshold import move_threshold, try_thresholds
from flrplan.files import current_version, part_folder, replace_folder, write_json
from flrplan.files.folder import POINTER_NAME, VERSIONS_NAME
from flrplan.method import CRLM, FLR_E2E, LIVER, PAPER_STAGES, Recipe, stage_named
from flrplan.networks import ARCHITECTURES
from flrplan.nnunet.model.model_folder import COHORT_NAME
from flrplan.nnunet.train import EpochReport
from flrplan.nnunet.train.training_log import CURVE_NAME
from flrplan.workfolder import FINAL_CHECKPOINT, Case, find_labelled_cases, nnunet_split

logger = logging.getLogger(__name__)

RECIPE_NAME = "recipe.yaml"
STARTS_FROM = {FLR_E2E.name: LIVER.name}
"""Stages whose demo model starts from the weights of another one's same fold: from the CT alone, what stays is first of all a liver."""

WITH_THRESHOLD = (CRLM.name,)
"""Stages whose threshold is chosen after the training. Not the liver, of which real CTs say otherwise than the cohort, nor the FLR, of whose
probability a plan takes more than the mask."""


def build_demo_models(
    work: Path,
    demo: Path,
    stages: Sequence[str] = tuple(stage.name for stage in PAPER_STAGES),
    workers: int = 2,
    on_epoch: Callable[[str, int, EpochReport], None] | None = None,
    go_on: bool = False,
) -> None:
    """Trains every (stage, fold) that is not finished in ``work``, then replaces the models in the demo folder.

    work: cohort, prepared data, training states and ``models/`` in the making; a stopped run continues.
    demo: the demo folder with ``recipe.yaml``; float16 weights go to ``<demo>/<stage>/nnunet``, a stage at a time, whole.
    go_on: each training starts from the weights of the demo folder's own stage and fold, which have learned from the same fold's cases.
    """
    models = work / "models"
    cohort = work / "cohort"
    settings = CohortSettings(cases=TRAIN_CASES, seed=TRAIN_SEED, size=CaseSize.MEDIUM, wide=TRAIN_WIDE)
    write_cohort(settings, cohort, workers=workers)
    cases = find_labelled_cases(cohort)
    split = nnunet_split([case.case_id for case in cases], FOLDS)
    for fold in range(FOLDS):
        for name in stages:
            stage = stage_named(name)
            target = models / name / ARCHITECTURES[0]
            if (current_version(target) / f"fold_{fold}" / FINAL_CHECKPOINT).is_file():
                logger.info("stage %s fold %d is trained", name, fold)
                continue
            request = TrainingRequest(
                stage,
                fold,
                cases,
                work,
                models,
                recipe=Recipe.from_yaml(demo / RECIPE_NAME, name),
                split=split,
                pretrained=demo_weights(demo, name, fold) if go_on else _start(name, fold, models, demo),
                device="cpu",
                half=True,
                workers=workers,
            )
            train(request, None if on_epoch is None else _reporter(on_epoch, name, fold))
    for name in stages:
        unseen: Sequence[Case] = ()
        if name in WITH_THRESHOLD:
            write_cohort(choosing_cohort(), work / "cohort_full", workers=workers)
            unseen = find_labelled_cases(work / "cohort_full")
        install_demo_model(models, demo, name, settings, unseen)


def install_demo_model(models: Path, demo: Path, stage: str, trained_on: CohortSettings, unseen: Sequence[Case] = ()) -> None:
    """Replaces a stage's demo model by the trained one, whole, with a note of the cohort that it was trained on.

    unseen: its threshold is chosen on these (:mod:`flrplan.demo.threshold`); without, it stays as it is.
    """
    target = demo / stage / ARCHITECTURES[0]
    with part_folder(target) as part:
        shutil.copytree(
            current_version(models / stage / ARCHITECTURES[0]),
            part,
            ignore=shutil.ignore_patterns(CURVE_NAME, VERSIONS_NAME, POINTER_NAME),
            dirs_exist_ok=True,
        )
        write_json(part / COHORT_NAME, {"version": COHORT_VERSION, **trained_on.as_dict()})
        if unseen:
            move_threshold(part, try_thresholds(part, unseen))
        replace_folder(part, target)


def _start(name: str, fold: int, models: Path, demo: Path) -> Path | None:
    """The checkpoint that a stage starts from: of the models in the making, else of those in the demo folder; None: at random."""
    if name not in STARTS_FROM:
        return None
    made, shipped = (demo_weights(root, STARTS_FROM[name], fold) for root in (models, demo))
    return made if made.is_file() else shipped


def demo_weights(models: Path, stage: str, fold: int) -> Path:
    """Where a folder of demo models has the weights of a stage and fold."""
    return models / stage / ARCHITECTURES[0] / f"fold_{fold}" / FINAL_CHECKPOINT


def _reporter(on_epoch: Callable[[str, int, EpochReport], None], name: str, fold: int) -> Callable[[EpochReport], None]:
    return lambda report: on_epoch(name, fold, report)
