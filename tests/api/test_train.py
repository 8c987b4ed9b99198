"""``flrplan.train`` from one request: what is asked is checked before anything is prepared, and where it all goes."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import flrplan
from flrplan.api.predict import PredictionRequest
from flrplan.api.train import TrainingRequest, split_of
from flrplan.engine import MODEL_ROOT, ModelStore
from flrplan.errors import ModelError, SettingsError
from flrplan.evaluation import EvaluationSettings
from flrplan.files import write_json
from flrplan.method import CRLM, LIVER, Variant
from flrplan.nnunet.model import ModelFolder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases by name; nothing here opens them."""
    folder = tmp_path_factory.mktemp("cohort")
    for part in ("images", "labels"):
        (folder / part).mkdir()
        for case in "abcd":
            (folder / part / f"{case}.nii.gz").touch()
    return folder


@pytest.fixture
def request_(cohort: Path, tmp_path: Path) -> TrainingRequest:
    return TrainingRequest(LIVER, 0, cohort, tmp_path / "work", tmp_path / "models", split=None, device="cpu")


def test_a_request_says_where_its_model_and_its_data_go(request_: TrainingRequest, tmp_path: Path) -> None:
    assert request_.model_folder == request_.models / "liver" / "nnunet"
    assert request_.stage_work.folder == request_.work / "liver"
    variant = Variant("mine", "stunet", plan={"spacing_zyx_mm": [2, 2, 2]})
    of_variant = replace(request_, architecture="mine", variant=variant)
    assert (of_variant.name, of_variant.network) == ("mine", "stunet")
    assert of_variant.model_folder == request_.models / "liver" / "mine"
    assert of_variant.stage_work.root.parent == request_.work, "other arrays have a folder of their own"
    assert of_variant.weights is None
    (tmp_path / "official.model").touch()
    started = replace(of_variant, variant=replace(variant, pretrained=tmp_path / "official.model"))
    assert started.weights == tmp_path / "official.model", "the variant's"
    assert replace(started, pretrained="own.pth").weights == Path("own.pth"), "the request's own go before"
    assert replace(started, pretrained="scratch").weights is None, "random on purpose"
    assert replace(started, pretrained=Path("scratch")).weights == Path("scratch"), "a file of that name"
    with pytest.raises(FrozenInstanceError):
        request_.fold = 1  # type: ignore[misc]


def test_who_goes_on_from_a_model_takes_its_plan_and_input(request_: TrainingRequest) -> None:
    like = ModelFolder.open(MODEL_ROOT / "demo" / "liver" / "nnunet")
    recipe = flrplan.Recipe.from_mapping({"input": {"outside_hu": 0}, "plan": {"batch_size": 7}, "training": {"epochs": 3}})
    taken = replace(request_, recipe=recipe, like=like).recipe
    assert (taken.input, taken.plan, taken.training.epochs) == (like.input, flrplan.Recipe().plan, 3)
    with pytest.raises(ModelError, match="expected a model of stage crlm, this one is of stage liver"):
        replace(request_, stage=CRLM, like=like)


def test_the_split_beside_the_images_is_used_unasked(cohort: Path, request_: TrainingRequest, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="5 folds need at least 5 cases to train on, found 4"):
        request_.settle()
    cases, _ = replace(request_, split=flrplan.Split((("a",), ("b",)))).settle()
    ids = [case.case_id for case in cases]
    assert len(ids) == 4
    copy = tmp_path / "cohort"
    copy.symlink_to(cohort)
    assert [len(fold) for fold in split_of(copy, cases, folds=2).folds] == [2, 2]
    other = tmp_path / "splits.json"
    write_json(other, {"test": ids[:1], "folds": [ids[1:3], ids[3:]]})
    assert split_of(tmp_path, cases).test == (ids[0],)
    write_json(other, {"test": [], "folds": [ids[1:3], ids[3:]]})
    with pytest.raises(SettingsError, match="does not fit the cases"):
        split_of(copy, cases, other)


def test_paths_may_be_text_and_stages_may_not(cohort: Path, tmp_path: Path) -> None:
    request = TrainingRequest(LIVER, 0, str(cohort), str(tmp_path / "work"), pretrained="liver.pth")  # type: ignore[arg-type]
    assert (request.cases, request.work, request.weights) == (cohort, tmp_path / "work", Path("liver.pth"))
    assert (request.architecture, request.device) == ("nnunet", "auto")
    assert PredictionRequest("W", models="models").folder == Path("W/predictions/nnunet")  # type: ignore[arg-type]
    assert EvaluationSettings(str(tmp_path)).predictions_folder == tmp_path / "predictions"  # type: ignore[arg-type]
    assert ModelStore("models").folder(LIVER, "nnunet") == Path("models/liver/nnunet")
    write_json(tmp_path / "folds.json", {"test": [], "folds": [["a"], ["b"]]})
    assert flrplan.read_split(str(tmp_path / "folds.json")).folds == (("a",), ("b",))
    wanted = re.escape("stage 'liver': expected one of flrplan.STAGES[name], where name is liver, crlm, flr, flr_e2e, multi")
    with pytest.raises(SettingsError, match=wanted):
        TrainingRequest("liver", 0, cohort, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=wanted):
        PredictionRequest(tmp_path, stages=["liver"])  # type: ignore[list-item]


def test_a_mistake_is_told_before_anything_is_prepared(request_: TrainingRequest) -> None:
    cases, _ = replace(request_, split=flrplan.Split((("a",), ("b",)))).settle()
    ids = [case.case_id for case in cases]
    folds = flrplan.Split((tuple(ids[:2]), tuple(ids[2:])))
    with pytest.raises(SettingsError, match="fold 2 does not exist; this split has folds 0 to 1"):
        flrplan.train(replace(request_, split=folds, fold=2))
    with pytest.raises(SettingsError, match="unknown architecture 'unet'; known are nnunet"):
        flrplan.train(replace(request_, split=folds, architecture="unet"))
    one_stage = Variant("joint", "nnunet", stages=("multi",))
    with pytest.raises(SettingsError, match="variant joint is trained in stage multi alone, not in liver"):
        flrplan.train(replace(request_, split=folds, variant=one_stage))
    with pytest.raises(SettingsError, match="unknown device 'tpu'"):
        flrplan.train(replace(request_, split=folds, device="tpu"))
    assert not request_.work.exists()
    assert not request_.models.exists()
