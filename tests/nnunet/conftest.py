"""Stage ``flr`` of the tiny cohort, prepared once; tests that train take a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from flrplan.method import FLR, Recipe
from flrplan.networks import architecture_named
from flrplan.nnunet.environment import nnunet_folders
from flrplan.nnunet.prepare import CONFIGURATION
from flrplan.nnunet.prepare.architecture_plan import plan_training
from flrplan.nnunet.train import FlrTrainer
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import find_labelled_cases, nnunet_split

TINY = {
    "plan": {
        "batch_size": 2,
        "features": [4, 8],
        "spacing_zyx_mm": [8, 6, 6],
        "patch_size_zyx": [16, 24, 24],
        "resampling": "torch",
    },
    "training": {
        "epochs": 2,
        "iterations_per_epoch": 2,
        "validation_iterations": 1,
        "save_every": 1,
        "mixed_precision": "off",
    },
}


def _recipe(**training: object) -> Recipe:
    return Recipe.from_mapping({"plan": TINY["plan"], "training": {**TINY["training"], **training}})


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """A recipe of a network with 4897 weights, two epochs of two steps; arguments replace training settings."""
    return _recipe


@pytest.fixture(scope="session")
def tiny_prepared(tiny_cohort: Path) -> StageWork:
    work = StageWork(tiny_cohort.with_name("work"), FLR)
    cases = find_labelled_cases(tiny_cohort)
    prepare_stage(cases, work, _recipe(), nnunet_split([c.case_id for c in cases], 2))
    return work


@pytest.fixture
def tiny_work(tiny_prepared: StageWork, tmp_path: Path) -> StageWork:
    """Stage flr of four cases in two folds, prepared, never trained."""
    shutil.copytree(tiny_prepared.root, tmp_path / "work")
    return StageWork(tmp_path / "work", FLR)


@pytest.fixture
def new_trainer(tiny_work: StageWork) -> Iterator[Callable[..., FlrTrainer]]:
    """Makes a trainer of fold 0 on the CPU, seeded, not initialised; arguments replace training settings."""

    def make(**training: object) -> FlrTrainer:
        plans = plan_training(tiny_work.preprocessed, architecture_named("nnunet"), _recipe().plan)
        dataset = json.loads((tiny_work.preprocessed / "dataset.json").read_text())
        torch.manual_seed(0)
        trainer = FlrTrainer({**plans, "continue_training": False}, CONFIGURATION, 0, dataset, torch.device("cpu"))
        trainer.apply(_recipe(**training).training)
        return trainer

    with nnunet_folders(tiny_work.folder):
        yield make


@pytest.fixture
def make_trainer(new_trainer: Callable[..., FlrTrainer]) -> Callable[..., FlrTrainer]:
    """As ``new_trainer``, initialised, not started."""

    def make(**training: object) -> FlrTrainer:
        trainer = new_trainer(**training)
        trainer.initialize()
        return trainer

    return make
