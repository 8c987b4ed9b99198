"""A training that is killed at a random moment leaves a working model, and does not disturb the next one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flrplan.anatomy import Compartment
from flrplan.cohort import make_case
from flrplan.engine import MODEL_ROOT, ModelStore
from flrplan.files import current_version
from flrplan.image import CT
from flrplan.learning import RetrainingFolder, read_stats
from flrplan.method import LIVER, build_stage_input

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

KILLS = int(os.environ.get("FLRPLAN_TEST_KILLS", "20"))
APP = MODEL_ROOT.parent
CPU = torch.device("cpu")
RECIPE = """
common:
  plan: {batch_size: 1, features: [4, 8], spacing_zyx_mm: [8, 6, 6], patch_size_zyx: [16, 24, 24], resampling: torch}
  training: {epochs: 5, iterations_per_epoch: 25, validation_iterations: 1, save_every: 1, learning_rate: 0.02}
"""
TRAIN = ["-m", "monailabel.interfaces.utils.app", "-m", "train", "-r"]


def start(studies: Path, models: Path, log: Path, **request: object) -> subprocess.Popen[bytes]:
    """The process that MONAI Label starts for ``POST /train/liver``."""
    conf = {"models": str(models), "device": "cpu", "train_margin": "1", "train_recipe": str(models.parent / "recipe.yaml")}
    environment = {
        **os.environ,
        "MONAI_LABEL_APP_DIR": str(APP),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false",
    }
    command = [sys.executable, *TRAIN, json.dumps({"model": "liver", **request})]
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


@pytest.fixture
def studies(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Six images with final labels, as MONAI Label stores them."""
    folder = tmp_path / "studies"
    objects = {}
    info = {"label_info": [{"name": c.label_name, "idx": int(c)} for c in Compartment]}
    for index in range(6):
        case = make_case(11, index, "small")
        write_image(folder / f"{case.case_id}.nii.gz", case.hu_zyx, case.geometry)
        write_image(folder / "labels" / "final" / f"{case.case_id}.nii.gz", case.planning_zyx, case.geometry)
        objects[case.case_id] = {"image": {"ext": ".nii.gz"}, "labels": {"final": {"ext": ".nii.gz", "info": info}}}
    content = {"name": "s", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": objects}
    (folder / "datastore_v2.json").write_text(json.dumps(content))
    return folder


def test_killed_at_random_moments(studies: Path, tmp_path: Path, small_ct: CT) -> None:
    models, log = tmp_path / "models", tmp_path / "train.log"
    models.mkdir()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    stats = RetrainingFolder(models).stats("liver")

    def begin(**request: object) -> subprocess.Popen[bytes]:
        """Starts a training and waits for its first word, so that no kill is spent on the imports before it."""
        before = read_stats(stats).get("updated_ts")
        process = start(studies, models, log, **request)
        while process.poll() is None and read_stats(stats).get("updated_ts") == before:
            time.sleep(0.05)
        return process

    assert begin(start="anew").wait(3000) == 0, log.read_text()[-3000:]
    process, began = begin(), time.monotonic()
    assert process.wait(3000) == 0, log.read_text()[-3000:]
    whole_seconds = time.monotonic() - began
    moments = random.Random(0)
    states: list[str] = []
    for _ in range(KILLS):
        process = begin()
        try:
            process.wait(moments.uniform(0, whole_seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        store = ModelStore(models, demo=None)
        predictor, identity = store.predictor(LIVER, "nnunet", CPU)
        given = build_stage_input(small_ct.array_zyx, small_ct.geometry, {}, LIVER, predictor.folder.input)
        predictor.predict(given)
        assert identity.demo is False
        assert not RetrainingFolder(models).is_locked("liver")
        found = read_stats(stats)
        states.append(f"{found['state']} {found['epoch']}")
    sys.stdout.write(f"after its imports a training takes {whole_seconds:.0f} s; states at the kills: {states}\n")
    assert any(not state.startswith("done") for state in states)
    assert start(studies, models, log).wait(3000) == 0, log.read_text()[-3000:]
    assert (current_version(models / "liver" / "nnunet") / "published.json").is_file()
    assert not (RetrainingFolder(models).stage("liver") / "work").exists()
