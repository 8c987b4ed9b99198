"""nnU-Net's residual encoder presets: patch, batch and network are those that nnU-Net's own planners make of the same data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as planners

from flrplan.errors import SettingsError
from flrplan.method import PlanSettings
from flrplan.networks.table import RESENC
from flrplan.nnunet.environment import augmentation_workers, files_listed_in_process, nnunet_folders, quiet
from flrplan.nnunet.prepare.architecture_plan import plan_training
from flrplan.nnunet.train.training_run import StageWork

SPACING = [8.0, 6.0, 6.0]


def planned(work: StageWork, settings: PlanSettings) -> dict[str, Any]:
    plans = plan_training(work.preprocessed, RESENC, settings)
    return dict(plans["configurations"]["3d_fullres"])


def by_nnunet(work: StageWork, preset: str) -> dict[str, Any]:
    with nnunet_folders(work.folder), quiet(), files_listed_in_process(), augmentation_workers(1):
        planner = getattr(planners, preset)(work.preprocessed.name, overwrite_target_spacing=SPACING, suppress_transpose=True)
        planner.lowres_creation_threshold = 0
        return dict(planner.plan_experiment()["configurations"]["3d_fullres"])


@pytest.mark.parametrize(("size", "preset"), [("base", "nnUNetPlannerResEncM"), ("large", "nnUNetPlannerResEncL")])
def test_as_nnunets_own_planner(tiny_work: StageWork, size: str, preset: str) -> None:
    ours, theirs = planned(tiny_work, PlanSettings(network_size=size)), by_nnunet(tiny_work, preset)
    assert ours["spacing"] == list(theirs["spacing"])
    assert ours["patch_size"] == list(theirs["patch_size"])
    assert ours["batch_size"] == theirs["batch_size"]
    assert ours["architecture"]["network_class_name"] == RESENC.network
    arguments, expected = (json.loads(json.dumps(plan["architecture"]["arch_kwargs"])) for plan in (ours, theirs))
    assert arguments == expected
    assert ours["data_identifier"] == "nnUNetPlans_3d_fullres", "the arrays of the other architectures"


def test_a_patch_of_ones_own_keeps_the_blocks(tiny_work: StageWork) -> None:
    """16 x 32 x 32 voxels: nnU-Net pools while 4 voxels remain, so 3 times in plane: 4 resolutions with 1, 3, 4 and 6 blocks."""
    ours = planned(tiny_work, PlanSettings(patch_size_zyx=(16, 32, 32)))
    assert ours["patch_size"] == [16, 32, 32]
    assert ours["architecture"]["arch_kwargs"]["n_blocks_per_stage"] == [1, 3, 4, 6]
    assert ours["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256]
    with pytest.raises(SettingsError, match="features are those of nnU-Net's U-Net; resenc has network_size instead"):
        planned(tiny_work, PlanSettings(patch_size_zyx=(16, 32, 32), features=(4, 8)))


def test_without_the_raw_data_of_the_preparation(tiny_work: StageWork, tmp_path: Path) -> None:
    (tiny_work.folder / "raw").rename(tmp_path / "moved")
    with pytest.raises(SettingsError, match=r"nnUNetPlannerResEncM needs the raw/ of the preparation: .*; prepare it again"):
        planned(tiny_work, PlanSettings())
