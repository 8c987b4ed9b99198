"""The threshold of a demo model: chosen where unseen cases are found well, and moved into its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from flrplan.cohort import CaseSize, CohortSettings, write_cohort
from flrplan.demo.threshold import THRESHOLDS, Tried, move_threshold, try_thresholds
from flrplan.engine import DEMO_NAME, MODEL_ROOT
from flrplan.errors import ModelError
from flrplan.method import CRLM, build_stage_input
from flrplan.method.probabilities import encode
from flrplan.nnunet.model import ModelFolder, StagePredictor
from flrplan.workfolder import RUN_NAME, find_labelled_cases

SHIPPED = MODEL_ROOT / DEMO_NAME / "crlm" / "nnunet"


def test_the_mask_begins_at_the_chosen_threshold(tmp_path: Path) -> None:
    write_cohort(CohortSettings(cases=1, seed=32, size=CaseSize.SMALL), tmp_path / "cohort")
    (case,) = find_labelled_cases(tmp_path / "cohort")
    tried = try_thresholds(SHIPPED, [case])
    assert [*tried.dice] == [*THRESHOLDS]
    model = tmp_path / "crlm" / "nnunet"
    shutil.copytree(SHIPPED, model)
    move_threshold(model, Tried({**tried.dice, 0.3: 1.0}, 1))
    ct, masks = case.load(dict.fromkeys((*CRLM.needs, CRLM.target)))
    raw, moved = (StagePredictor(ModelFolder.open(folder), torch.device("cpu")) for folder in (SHIPPED, model))
    given = build_stage_input(ct.array_zyx, ct.geometry, masks, CRLM, raw.folder.input)
    probability = raw.predict_with_probability(given)[CRLM.target][1]
    at_30 = probability > encode(np.float32(0.3))
    assert at_30.sum() > 1.02 * (probability > 127).sum()
    mask = moved.predict(given)[CRLM.target]
    assert (mask != at_30).sum() < 0.02 * at_30.sum(), "weights in half precision, and a probability in steps of 1/255"
    run = json.loads((model / "fold_1" / RUN_NAME).read_text())
    assert run["threshold"]["chosen"] == 0.3
    assert run["threshold"]["dice"]["0.5"] == tried.dice[0.5]
    assert run["weights_sha256"] == moved.identity.weights_sha256["1"] != raw.identity.weights_sha256["1"]


def test_what_is_hardly_worse_and_nearer_to_a_half_is_taken_and_no_case_is_an_error() -> None:
    assert Tried({0.3: 0.5, 0.4: 0.7, 0.5: 0.6}, 3).best == 0.4
    assert Tried({0.2: 0.695, 0.3: 0.7, 0.4: 0.695, 0.5: 0.6}, 3).best == 0.4
    with pytest.raises(ModelError, match="no case with crlm is there to choose its threshold on"):
        try_thresholds(SHIPPED, [])
