"""The paper's three architectures x four stages, narrow: each learns two small cases by heart, and the app answers so, again after a restart.

    pytest -s tests/server/test_overfit.py          # the whole table, a line per row

Without ``slow`` only the rows of SHORT run. Training, model folder and app are those of the command line and the server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from flrplan.anatomy import Compartment, Mask, structure_mask
from flrplan.cohort import make_case
from flrplan.demo.ohif.server import APP
from flrplan.image import Geometry
from flrplan.method import CRLM, FLR, FLR_E2E, PAPER_STAGES, STAGES, Recipe
from flrplan.networks import PAPER
from flrplan.networks.table import NARROW
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import Split, find_labelled_cases

SPACING_ZYX_MM = (5.0, 4.5, 5.0)
SHRUNK = 1.5
"""The patients are drawn smaller by this, so that the whole liver fits into one patch of voxels that a CT may have."""
VOXELS = 32
LEAST_DICE = 0.9
SEED, PATIENTS = 11, (7, 42)
"""Two patients of the cohort with few and large metastases (200 ml in three, 164 ml in one): the grid is coarse."""
VALIDATION = "copy"
"""A fold never validates on what it trains on, and this table is not about unseen cases: a copy of the first one."""
RECIPE = Recipe.from_mapping(
    {
        "plan": {
            "network_size": NARROW,
            "batch_size": 1,
            "spacing_zyx_mm": list(SPACING_ZYX_MM),
            "patch_size_zyx": [VOXELS] * 3,
            "resampling": "torch",
        },
        "training": {
            "epochs": 16,
            "iterations_per_epoch": 20,
            "validation_iterations": 1,
            "save_every": 16,
            "learning_rate": 1e-2,
            "mirror_axes": [],
        },
    }
)
LEARNING_RATES = {"swinunetr": 3e-3}
"""Lower than the others', as in the table; all are higher than recommended, for a test has few steps."""
EPOCHS = {CRLM.name: 40, FLR_E2E.name: 40}
"""More than the others: the metastases are few of the voxels, and where to cut is not to be seen in the CT."""
INPUTS = {0: "predicted", 1: "labels_liver", 2: "labels"}
"""Where the masks of a stage come from, by how many it needs: the network of this row is the only one asked."""
SHORT = {("nnunet", FLR.name)}
"""Rows that are quick enough for every run of the tests."""
ROWS = [
    pytest.param(architecture, stage, marks=[] if (architecture, stage) in SHORT else pytest.mark.slow)
    for stage in map(str, PAPER_STAGES)
    for architecture in PAPER
]


@dataclass(frozen=True)
class Coarse:
    """A case on a coarse grid around its liver."""

    case_id: str
    hu_zyx: NDArray[Any]
    planning_zyx: NDArray[np.uint8]
    geometry: Geometry


def coarse(case_id: str, patient: int) -> Coarse:
    """A patient of the cohort, cut to 32 x 32 x 32 voxels around the liver."""
    case = make_case(SEED, patient, "small")
    liver = np.argwhere(case.planning_zyx > 0)
    centre = case.geometry.image(case.planning_zyx).TransformContinuousIndexToPhysicalPoint(
        [float(n) for n in (liver.min(axis=0) + liver.max(axis=0))[::-1] / 2]
    )
    size, spacing_xyz = (VOXELS,) * 3, SPACING_ZYX_MM[::-1]
    steps = [s * SHRUNK for s in spacing_xyz]
    corner = [c - s * (VOXELS - 1) / 2 for c, s in zip(centre, steps, strict=True)]

    def sampled(array_zyx: NDArray[Any], how: int, outside: float) -> NDArray[Any]:
        image = case.geometry.image(array_zyx)
        taken = sitk.Resample(image, size, sitk.Transform(), how, corner, steps, image.GetDirection(), outside)
        return sitk.GetArrayFromImage(taken)

    hu = sampled(case.hu_zyx.astype(np.float32), sitk.sitkLinear, -1000).astype(np.int16)
    planning = sampled(case.planning_zyx, sitk.sitkNearestNeighbor, 0)
    return Coarse(case_id, hu, planning, Geometry(size, spacing_xyz, direction=case.geometry.direction))


@pytest.fixture(scope="module")
def coarse_cases() -> list[Coarse]:
    return [coarse(f"patient{patient}", patient) for patient in PATIENTS]


@pytest.fixture(scope="module")
def work_root(coarse_cases: list[Coarse], tmp_path_factory: pytest.TempPathFactory, write_image: Callable[..., Path]) -> Path:
    """``cohort/`` as the training reads it and ``studies/`` as the server does, with final labels."""
    root = tmp_path_factory.mktemp("overfit")
    copy = Coarse(VALIDATION, coarse_cases[0].hu_zyx, coarse_cases[0].planning_zyx, coarse_cases[0].geometry)
    for case in (*coarse_cases, copy):
        write_image(root / "cohort" / "images" / f"{case.case_id}.nii.gz", case.hu_zyx, case.geometry)
        write_image(root / "cohort" / "labels" / f"{case.case_id}.nii.gz", case.planning_zyx, case.geometry)
    objects = {}
    info = {"label_info": [{"name": c.label_name, "idx": int(c)} for c in Compartment]}
    for case in coarse_cases:
        write_image(root / "studies" / f"{case.case_id}.nii.gz", case.hu_zyx, case.geometry)
        write_image(root / "studies" / "labels" / "final" / f"{case.case_id}.nii.gz", case.planning_zyx, case.geometry)
        objects[case.case_id] = {"image": {"ext": ".nii.gz"}, "labels": {"final": {"ext": ".nii.gz", "info": info}}}
    content = {"name": "s", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": objects}
    (root / "studies" / "datastore_v2.json").write_text(json.dumps(content))
    (root / "models").mkdir()
    return root


def dice(found: Mask, true: Mask) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("architecture", "stage"), ROWS)
def test_overfits_and_answers(
    work_root: Path,
    coarse_cases: list[Coarse],
    make_app: Callable[..., Any],
    read_image: Callable[..., tuple[NDArray[Any], Geometry]],
    tmp_path: Path,
    architecture: str,
    stage: str,
) -> None:
    ids = tuple(case.case_id for case in coarse_cases)
    work = StageWork(work_root / "work", STAGES[stage])
    prepare_stage(find_labelled_cases(work_root / "cohort"), work, RECIPE, Split(((VALIDATION,), ids)))
    folder = work_root / "models" / stage / architecture
    rate = LEARNING_RATES.get(architecture, RECIPE.training.learning_rate)
    epochs = EPOCHS.get(stage, RECIPE.training.epochs)
    recipe = replace(RECIPE, training=replace(RECIPE.training, learning_rate=rate, epochs=epochs))
    began = monotonic()
    train_fold(work, 0, recipe, folder, torch.device("cpu"), architecture=architecture)
    seconds = monotonic() - began

    conf = {"models": str(work_root / "models"), "architecture": architecture, "device": "cpu"}
    requests = [{"model": stage, "image": i, "inputs": INPUTS[len(STAGES[stage].needs)]} for i in ids]
    app = make_app(work_root / "studies", conf)
    masks = []
    scores = []
    for case, request in zip(coarse_cases, requests, strict=True):
        result = app.infer(request)
        assert result["params"]["predicted"] == [STAGES[stage].target.value]
        assert result["params"]["demo_models"] is False
        mask, geometry = read_image(result["file"])
        assert geometry.is_same_grid(case.geometry)
        masks.append(mask)
        scores.append(dice(mask > 0, structure_mask(case.planning_zyx, STAGES[stage].target)))
        Path(result["file"]).unlink()
    sys.stdout.write(f"{architecture:10} {stage:8} Dice {scores[0]:.3f} {scores[1]:.3f}  trained in {seconds:.0f} s\n")
    assert min(scores) >= LEAST_DICE

    again = tmp_path / "again.json"
    script = Path(__file__).with_name("infer_in_new_process.py")
    arguments = {"app": str(APP), "studies": str(work_root / "studies"), "conf": conf, "requests": requests}
    subprocess.run([sys.executable, str(script), json.dumps(arguments), str(again)], check=True, timeout=600)
    for mask, file in zip(masks, json.loads(again.read_text()), strict=True):
        assert np.array_equal(read_image(file)[0], mask)
        Path(file).unlink()
