"""One network for liver, CRLM and FLR: what is written, trained, recorded, predicted, and what is refused."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from flrplan.anatomy import Mask, Structure
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import EmptyLiverError, LabelError, ModelError, SettingsError
from flrplan.image import read_ct, write_label_map
from flrplan.method import LIVER, MASK_FROM, Probability, Source, build_stage_input
from flrplan.method.stages import MULTI
from flrplan.networks.published_weights import load_weights
from flrplan.nnunet.imported import import_model
from flrplan.nnunet.model import ModelFolder, StagePredictor
from flrplan.nnunet.prepare import PLANS, read_prepared
from flrplan.nnunet.prepare.dataset import region_values
from flrplan.nnunet.train import pretrained, train_fold
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import Case, TruthFiles, find_labelled_cases, nnunet_split

CPU = torch.device("cpu")
LIVER_CRLM_FLR = MULTI.targets


@pytest.fixture(scope="module")
def cases(tiny_cohort: Path) -> list[Case]:
    return find_labelled_cases(tiny_cohort)


@pytest.fixture(scope="module")
def work(cases: list[Case], tiny_recipe, tmp_path_factory: pytest.TempPathFactory) -> StageWork:
    work = StageWork(tmp_path_factory.mktemp("multi") / "work", MULTI)
    prepare_stage(cases, work, tiny_recipe(), nnunet_split([c.case_id for c in cases], 2))
    return work


@pytest.fixture(scope="module")
def model(work: StageWork, tiny_recipe) -> ModelFolder:
    folder = work.root.parent / "models" / "multi" / "nnunet"
    train_fold(work, 0, tiny_recipe(loss="dice_bce"), folder, CPU)
    return ModelFolder.open(folder)


def test_regions_are_bits_and_a_single_one_is_as_before() -> None:
    assert region_values(1) == [[1, 2]]
    assert region_values(3) == [[1, 3, 5, 7], [2, 3, 6, 7], [4, 5, 6, 7]]


def test_a_label_map_holds_every_target_whole(work: StageWork, cases: list[Case]) -> None:
    raw = work.folder / "raw" / "Dataset505_multi"
    dataset = json.loads((raw / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "liver": [1, 3, 5, 7], "crlm": [2, 3, 6, 7], "flr": [4, 5, 6, 7]}
    assert dataset["channel_names"] == {"0": "CT"}
    counts = read_prepared(work)["target_voxels"]
    for case in cases:
        ct, masks = case.load(LIVER_CRLM_FLR)
        given = build_stage_input(ct.array_zyx, ct.geometry, {}, MULTI)
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / f"{case.case_id}.nii.gz")))
        for target in LIVER_CRLM_FLR:
            assert np.array_equal(np.isin(label, dataset["labels"][target]), given.crop(masks[target]))
            assert counts[target][case.case_id] == np.count_nonzero(masks[target])


def test_intensities_are_those_of_the_union(work: StageWork, cases: list[Case]) -> None:
    plans = json.loads((work.preprocessed / f"{PLANS}.json").read_text())
    found = plans["foreground_intensity_properties_per_channel"]["0"]
    pooled = []
    for case in cases:
        ct, masks = case.load(LIVER_CRLM_FLR)
        pooled.append(np.resize(np.rint(ct.array_zyx)[np.logical_or.reduce(list(masks.values()))], 500_000))
    values = np.concatenate(pooled)
    assert found["mean"] == pytest.approx(values.mean(), abs=0.5)
    assert found["percentile_00_5"] == pytest.approx(np.percentile(values, 0.5), abs=2)


def test_foreground_patches_are_drawn_of_each_target(work: StageWork, cases: list[Case]) -> None:
    import pickle

    path = next(work.preprocessed.rglob(f"{cases[0].case_id}.pkl"))
    places = pickle.loads(path.read_bytes())["class_locations"]  # our own file of a moment ago
    assert set(places) == {(1, 3, 5, 7), (2, 3, 6, 7), (4, 5, 6, 7)}
    assert all(len(places[key]) for key in places)


def test_the_record_says_how_each_target_went(model: ModelFolder) -> None:
    run = json.loads((model.checkpoint(0).with_name("run.json")).read_text())
    assert set(run["result"]) == {"train_loss", "validation_loss", "pseudo_dice_ema", "pseudo_dice"}
    assert list(run["result"]["pseudo_dice"]) == ["liver", "crlm", "flr"]
    assert (run["stage"], run["target_voxels_outside"]) == ("multi", {"liver": {}, "crlm": {}, "flr": {}})
    assert model.labels == ("liver", "crlm", "flr")


def test_counts_of_each_target(make_trainer: Any) -> None:
    """Two outputs: the first right in 1 of 2 voxels and missing none, the second finding nothing of 1."""
    trainer = make_trainer()
    trainer.label_manager._regions = [(1, 3), (2, 3)]
    logits = torch.tensor([[2.0, 2.0, -2.0], [-2.0, -2.0, -2.0]]).reshape(1, 2, 1, 1, 3)
    truth = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).reshape(1, 2, 1, 1, 3)
    trainer.label_manager.regions_class_order = [1, 2]
    trainer.network = lambda data: [logits]
    counts = trainer.validation_step({"data": torch.zeros(1, 2, 1, 1, 3), "target": [truth]})
    assert [counts[name].tolist() for name in ("tp_hard", "fp_hard", "fn_hard")] == [[1, 0], [1, 0], [0, 1]]
    trainer.network = lambda data: [logits[:, :, 0]]  # of a plan for slices, as an imported model may have one
    of_slices = trainer.validation_step({"data": torch.zeros(1, 2, 1, 3), "target": [truth[:, :, 0]]})
    assert all(np.array_equal(of_slices[name], counts[name]) for name in ("tp_hard", "fp_hard", "fn_hard"))


def test_each_target_has_a_mask_and_a_probability_of_its_own(model: ModelFolder, small_ct) -> None:
    predictor = StagePredictor(model, CPU)
    p = np.array([[0.8, 0.8, 0.2, 0.4], [0.1, 0.6, 0.6, 0.1], [0.2, 0.9, 0.1, 0.6]])  # liver; all three; a CRLM outside; FLR
    logits = torch.from_numpy(np.log(p / (1 - p))).reshape(3, 1, 1, 4).float()
    found = {t: predictor._target(logits, predictor._values[t], True) for t in LIVER_CRLM_FLR}
    assert {t: mask.ravel().tolist() for t, (mask, _) in found.items()} == {
        Structure.LIVER: [True, True, False, False],
        Structure.CRLM: [False, True, True, False],
        Structure.FLR: [False, True, False, True],
    }
    assert found[Structure.FLR][1].ravel().tolist() == [51, 229, 25, 153]  # 255 x p, halves down
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, {}, MULTI, model.input)
    masks = predictor.predict(given)
    assert list(masks) == list(LIVER_CRLM_FLR)
    assert {mask.shape for mask in masks.values()} == {given.geometry.shape_zyx}


def test_one_run_gives_all_and_a_given_mask_stays(model: ModelFolder, small_ct, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the network finds boxes, and a stray piece of liver, which the app drops as it does in the cascade."""
    boxes = {t: np.zeros(small_ct.geometry.shape_zyx, bool) for t in LIVER_CRLM_FLR}
    for k, box in enumerate(boxes.values()):
        box[4 : 12 - 2 * k, 8:20, 8:24] = True
    stray = boxes[Structure.LIVER].copy()
    stray[0, 0, 0] = True

    def predict(_: StagePredictor, given: Any, say: object) -> dict[Structure, tuple[Mask, Probability]]:
        masks = {**boxes, Structure.LIVER: stray}
        return {t: (given.crop(mask), given.crop(mask).astype(np.uint8) * 255) for t, mask in masks.items()}

    monkeypatch.setattr(StagePredictor, "predict_with_probability", predict)
    kept: dict[Structure, Probability] = {}
    cascade = Cascade(ModelStore(model.path.parents[1], demo=None), CascadeSettings(device="cpu"))
    result = cascade.run(small_ct, stages=(MULTI,), on_probability=kept.__setitem__)
    assert all(np.array_equal(result.masks[t], boxes[t]) for t in LIVER_CRLM_FLR)
    assert all(np.array_equal(kept[t] >= MASK_FROM, stray if t is Structure.LIVER else boxes[t]) for t in kept)
    assert list(kept) == list(LIVER_CRLM_FLR)
    assert any(warning.startswith("1 stray piece of") for warning in result.warnings)
    empty = np.zeros_like(stray)
    result = cascade.run(small_ct, {Structure.CRLM: empty}, (MULTI,), on_probability=kept.__setitem__)
    assert not result.masks[Structure.CRLM].any()
    assert result.sources == {Structure.CRLM: Source.GIVEN, Structure.LIVER: Source.PREDICTED, Structure.FLR: Source.PREDICTED}
    stray[:] = False
    with pytest.raises(EmptyLiverError, match="no liver was found"):
        cascade.run(small_ct, stages=(MULTI,), on_probability=kept.__setitem__)


def test_it_goes_on_from_a_model_of_its_own(
    work: StageWork, model: ModelFolder, tiny_recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    start = model.checkpoint(0)
    folder = tmp_path / "models" / "multi" / "nnunet"
    train_fold(work, 0, tiny_recipe(epochs=1, seed=1), folder, CPU, pretrained=start, validation_seen=True)
    run = json.loads((folder / "fold_0" / "run.json").read_text())
    assert run["pretrained"]["source"] == start.name
    assert "new heads" not in caplog.text


def test_one_target_may_start_from_several(model: ModelFolder, make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the heads and the second input is taken; ours have no grid that published weights would have seen."""
    trainer = make_trainer()
    spacings = []
    monkeypatch.setattr(pretrained, "load_weights", lambda *a: (spacings.append(a[-1]), load_weights(*a))[1])
    record = pretrained.start_from(trainer, model.checkpoint(0))
    assert record is not None
    heads = {name for name in trainer.network.state_dict() if name.startswith("decoder.seg_layers.")}
    assert set(record["fresh"]) == set(record["skipped"]) == heads
    assert set(record["skipped"].values()) == {"new heads: the file has 3 outputs, this network 1"}
    assert spacings == [None]


def test_a_case_that_lacks_a_target_is_named(cases: list[Case], tiny_recipe, tmp_path: Path) -> None:
    ct, masks = cases[0].load((Structure.LIVER, Structure.CRLM))
    paths = {s: tmp_path / "masks" / "lacking" / f"{s}.nii.gz" for s in masks}
    for structure, mask in masks.items():
        write_label_map(paths[structure], mask, ct.geometry)
    lacking = Case("lacking", cases[0].image, TruthFiles(masks=paths))
    split = nnunet_split([lacking.case_id, cases[1].case_id], 2)
    with pytest.raises(LabelError, match=r"case lacking: no file states flr: expected .*masks/lacking/flr\.nii\.gz"):
        prepare_stage([lacking, cases[1]], StageWork(tmp_path / "work", MULTI), tiny_recipe(), split)


def test_a_target_that_no_case_shows_cannot_be_learned(cases: list[Case], tiny_recipe, tmp_path: Path) -> None:
    without = []
    for case in cases[:2]:
        ct = read_ct(case.image)
        path = tmp_path / case.case_id / "crlm.nii.gz"
        write_label_map(path, np.zeros(ct.geometry.shape_zyx, np.uint8), ct.geometry)
        without.append(replace(case, truth=replace(case.truth, masks={Structure.CRLM: path})))
    with pytest.raises(LabelError, match="stage multi: the target crlm is empty in all 2 cases"):
        prepare_stage(
            without, StageWork(tmp_path / "work", MULTI), tiny_recipe(), nnunet_split([c.case_id for c in without], 2)
        )


def test_what_takes_one_target_says_so(model: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="stage multi predicts liver, crlm and flr, and a foreign model is imported for one"):
        import_model(model.path, MULTI, tmp_path / "models" / "multi" / "nnunet")
    with pytest.raises(ModelError, match="is a model of stage multi, not of stage liver"):
        import_model(model.path, LIVER, tmp_path / "models" / "liver" / "nnunet")
    with pytest.raises(SettingsError, match="stage multi has several targets"):
        _ = MULTI.target
