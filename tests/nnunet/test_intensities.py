"""Intensity statistics of targets that do not nest in the region that masks the CT."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from flrplan.anatomy import Mask, Structure
from flrplan.engine import MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.errors import LabelError
from flrplan.files import write_json
from flrplan.image import CT, read_ct, write_label_map
from flrplan.method import CRLM, FLR, FLR_E2E, LIVER, InputSettings, RegionMode, build_stage_input
from flrplan.method.stage_input import AIR_HU
from flrplan.nnunet.model import ModelFolder
from flrplan.nnunet.model.intensities import clip_floor_fault
from flrplan.nnunet.prepare import PLANS, read_prepared
from flrplan.nnunet.train import train_fold
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import Case, TruthFiles, find_labelled_cases, nnunet_split


@pytest.fixture(scope="module")
def tight_livers(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Four cases whose liver is drawn without a shell around the metastases, the CTs as floats with a fraction of a HU."""
    folder = tmp_path_factory.mktemp("tight")
    cases = []
    for case in find_labelled_cases(tiny_cohort):
        ct, masks = case.load((Structure.LIVER, Structure.CRLM))
        core = ndimage.binary_erosion(masks[Structure.CRLM], iterations=1)
        masks[Structure.LIVER] &= ~masks[Structure.CRLM] | core
        paths = {s: folder / "masks" / case.case_id / f"{s}.nii.gz" for s in masks}
        for structure, mask in masks.items():
            write_label_map(paths[structure], mask, ct.geometry)
        image = ct.geometry.image(ct.array_zyx.astype(np.float32) + np.float32(0.3))
        (folder / "images").mkdir(exist_ok=True)
        sitk.WriteImage(image, str(folder / "images" / f"{case.case_id}.nii.gz"))
        cases.append(Case(case.case_id, folder / "images" / f"{case.case_id}.nii.gz", TruthFiles(masks=paths)))
    return cases


@pytest.fixture(scope="module")
def prepared(tight_livers: list[Case], tiny_recipe, tmp_path_factory: pytest.TempPathFactory) -> StageWork:
    work = StageWork(tmp_path_factory.mktemp("prepared"), CRLM)
    recipe = replace(tiny_recipe(), input=InputSettings(region_channel=True))
    prepare_stage(tight_livers, work, recipe, nnunet_split([c.case_id for c in tight_livers], 2))
    return work


def test_statistics_are_those_of_what_the_network_is_shown(prepared: StageWork, tight_livers: list[Case]) -> None:
    plans = json.loads((prepared.preprocessed / f"{PLANS}.json").read_text())
    found = plans["foreground_intensity_properties_per_channel"]["0"]
    shown, whole, outside = [], [], {}
    for case in tight_livers:
        ct, masks = case.load((Structure.LIVER, Structure.CRLM))
        hu = np.rint(ct.array_zyx)
        shown.append(np.resize(hu[masks[Structure.CRLM] & masks[Structure.LIVER]], 200_000))  # each case weighs the same
        whole.append(np.where(masks[Structure.LIVER], hu, AIR_HU)[masks[Structure.CRLM]])
        outside[case.case_id] = int(np.count_nonzero(masks[Structure.CRLM] & ~masks[Structure.LIVER]))
    pooled = np.concatenate(shown)
    assert np.percentile(np.concatenate(whole), 0.5) == AIR_HU, "the uncut target would have this floor"
    assert found["percentile_00_5"] == pytest.approx(np.percentile(pooled, 0.5), abs=2)
    assert found["percentile_99_5"] == pytest.approx(np.percentile(pooled, 99.5), abs=2)
    assert found["mean"] == pytest.approx(pooled.mean(), abs=0.5)
    assert found["std"] == pytest.approx(pooled.std(), abs=0.5)
    record = read_prepared(prepared)
    assert record["target_voxels_outside"] == {"crlm": outside}
    assert all(outside.values())


def test_target_stays_whole_and_inputs_are_those_of_inference(prepared: StageWork, tight_livers: list[Case]) -> None:
    raw = prepared.folder / "raw" / prepared.preprocessed.name
    case = tight_livers[0]
    ct, masks = case.load((Structure.LIVER, Structure.CRLM))
    assert ct.array_zyx.dtype == np.float32
    given = build_stage_input(ct.array_zyx, ct.geometry, masks, CRLM, InputSettings(region_channel=True))
    target = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / f"{case.case_id}.nii.gz")))
    assert np.array_equal(target, given.crop(masks[Structure.CRLM]))
    for k, channel in enumerate(given.channels_czyx):
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "imagesTr" / f"{case.case_id}_{k:04d}.nii.gz")))
        assert np.array_equal(written, channel), "training and inference round HU alike"
    assert np.array_equal(given.channels_czyx[1], given.crop(masks[Structure.LIVER])), "the region as a channel"


def test_a_model_with_the_region_as_a_channel_trains_and_predicts(
    prepared: StageWork, tight_livers: list[Case], tiny_recipe, tmp_path: Path
) -> None:
    shutil.copytree(prepared.root, tmp_path / "work")
    work = StageWork(tmp_path / "work", CRLM)
    recipe = replace(tiny_recipe(epochs=1), input=InputSettings(region_channel=True))
    train_fold(work, 0, recipe, tmp_path / "models" / "crlm" / "nnunet", torch.device("cpu"))
    folder = ModelFolder.open(tmp_path / "models" / "crlm" / "nnunet")
    assert folder.input.region_channel
    assert list(folder.dataset["channel_names"].values()) == ["CT", "noNorm"]
    run = json.loads((folder.path / "fold_0" / "run.json").read_text())
    outside = read_prepared(work)["target_voxels_outside"]["crlm"]
    assert run["target_voxels_outside"]["crlm"] == {case_id: outside[case_id] for case_id in run["train_ids"]}
    case = tight_livers[0]
    ct, masks = case.load((Structure.LIVER,))
    cascade = Cascade(ModelStore(tmp_path / "models", demo=None), CascadeSettings(device="cpu"))
    result = cascade.run(ct, {Structure.LIVER: masks[Structure.LIVER]}, (CRLM,))
    assert result.masks[Structure.CRLM].shape == ct.geometry.shape_zyx
    assert not any("normalised" in warning for warning in result.warnings)


def test_a_preparation_with_the_floor_outside_is_refused(
    prepared: StageWork, tight_livers: list[Case], tiny_recipe, tmp_path: Path
) -> None:
    shutil.copytree(prepared.root, tmp_path / "work")
    work = StageWork(tmp_path / "work", CRLM)
    plans = json.loads((work.preprocessed / f"{PLANS}.json").read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["percentile_00_5"] = AIR_HU
    write_json(work.preprocessed / f"{PLANS}.json", plans)
    recipe = replace(tiny_recipe(), input=InputSettings(region_channel=True))
    with pytest.raises(LabelError, match=r"crlm's 0.5 percentile is -1024 HU, the value outside the liver.*delete the folder"):
        prepare_stage(tight_livers, work, recipe, nnunet_split([c.case_id for c in tight_livers], 2))


def test_a_target_outside_the_region_alone_cannot_be_learned(tight_livers: list[Case], tiny_recipe, tmp_path: Path) -> None:
    apart = []
    for case in tight_livers[:2]:
        ct, masks = case.load((Structure.LIVER, Structure.CRLM))
        path = tmp_path / "masks" / case.case_id / "crlm.nii.gz"
        write_label_map(path, masks[Structure.CRLM] & ~masks[Structure.LIVER], ct.geometry)
        apart.append(replace(case, truth=TruthFiles(masks={**case.truth.masks, Structure.CRLM: path})))
    with pytest.raises(LabelError, match=r"is empty in all 2 cases of .*, or lies outside the liver"):
        prepare_stage(apart, StageWork(tmp_path / "work", CRLM), tiny_recipe(), nnunet_split([c.case_id for c in apart], 2))


def test_a_model_with_such_a_floor_is_named_when_it_is_loaded(
    small_ct: CT, small_truth: dict[Structure, Mask], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "crlm" / "nnunet"
    shutil.copytree(MODEL_ROOT / "demo" / "crlm" / "nnunet", folder, ignore=shutil.ignore_patterns("training_cohort.json"))
    plans = json.loads((folder / "plans.json").read_text())
    plans["foreground_intensity_properties_per_channel"]["0"] |= {"percentile_00_5": AIR_HU, "std": 301.0}
    write_json(folder / "plans.json", plans)
    cascade = Cascade(ModelStore(tmp_path, demo=None), CascadeSettings(device="cpu"))
    with caplog.at_level(logging.WARNING):
        result = cascade.run(small_ct, {Structure.LIVER: small_truth[Structure.LIVER]}, (CRLM,))
    said = "trained on wrongly normalised images: the crlm's 0.5 percentile is -1024 HU, the value outside the liver"
    assert any(said in warning for warning in result.warnings)
    assert f"{folder}: this model was {said}" in caplog.text


@pytest.mark.parametrize(
    ("floor", "stage", "settings", "whole_ct", "fault"),
    [
        (-1024.0, CRLM, InputSettings(), False, True),
        (-1023.0, CRLM, InputSettings(), False, False),
        (-60.0, FLR, InputSettings(), False, False),
        (-400.0, FLR, InputSettings(outside_hu=-400), False, True),
        (-60.0, FLR, InputSettings(outside_hu=0), False, False),  # an outside within tissue is meant so
        (-200.0, FLR, InputSettings(outside_hu=0), False, True),
        (-1024.0, CRLM, InputSettings(region_mode=RegionMode.CROP), False, False),
        (-1024.0, LIVER, InputSettings(), False, False),  # a foreign model of many structures
        (-1024.0, LIVER, InputSettings(), True, True),
        (-1000.0, FLR_E2E, InputSettings(), True, False),
    ],
)
def test_clip_floor(floor: float, stage, settings: InputSettings, whole_ct: bool, fault: bool) -> None:
    plans = {"foreground_intensity_properties_per_channel": {"0": {"percentile_00_5": floor, "std": 50.0}}}
    assert bool(clip_floor_fault(plans, stage, settings, whole_ct)) is fault
    assert not clip_floor_fault({}, stage, settings, whole_ct), "plans of z-scored inputs state no floor"


def test_demo_models_have_the_floor_of_tissue() -> None:
    for stage in (CRLM, FLR):
        assert not ModelFolder.open(MODEL_ROOT / "demo" / stage.name / "nnunet").warnings


def test_a_preparation_of_before_goes_on(tiny_prepared: StageWork, tiny_cohort: Path, tiny_recipe, tmp_path: Path) -> None:
    """Version 0.1.0 wrote no ``region_channel``, and the voxels of its one target without the name of it."""
    shutil.copytree(tiny_prepared.root, tmp_path / "work")
    work = StageWork(tmp_path / "work", FLR)
    record = read_prepared(work)
    del record["input"]["region_channel"], record["target_voxels_outside"]
    counts = record["target_voxels"]
    record["target_voxels"] = counts["flr"]
    write_json(work.marker, record)
    cases = find_labelled_cases(tiny_cohort)
    prepare_stage(cases, work, tiny_recipe(), nnunet_split([c.case_id for c in cases], 2))
    assert read_prepared(work)["target_voxels"] == counts
    assert read_ct(cases[0].image).array_zyx.dtype == np.int16
