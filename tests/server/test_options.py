from __future__ import annotations

import pytest
import torch

from flrplan.anatomy import Structure
from flrplan.errors import SettingsError
from flrplan.method import CRLM, FLR, FLR_E2E, LIVER
from flrplan.planning import LiverState
from flrplan.planning.patient import Patient
from flrplan.server.options import InferOptions, Inputs, PlanKind, client_config, device_choices, inputs_for
from flrplan.server.settings import AppSettings

ALL = tuple(Inputs)
CONFIG = client_config(AppSettings(), ALL)


def test_a_task_offers_only_inputs_that_it_takes() -> None:
    assert inputs_for(LIVER.needs) == inputs_for(FLR_E2E.needs) == (Inputs.PREDICTED,)
    assert inputs_for(CRLM.needs) == (Inputs.PREDICTED, Inputs.LABELS_LIVER)
    assert inputs_for(FLR.needs) == ALL


def test_what_the_annotator_gives() -> None:
    assert Inputs.PREDICTED.structures == ()
    assert Inputs.LABELS_LIVER.structures == (Structure.LIVER,)
    assert Inputs.LABELS.structures == (Structure.LIVER, Structure.CRLM)


def test_the_config_is_lists_of_texts_with_the_default_first() -> None:
    config = client_config(AppSettings(device="cpu"), ALL)
    assert config["device"][0] == "cpu"
    assert config["inputs"] == ["predicted", "labels_liver", "labels"]
    assert all(isinstance(value, str) for values in config.values() for value in values)


def test_gpus_are_offered_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_choices("auto") == ["auto", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_choices("auto") == ["auto", "cuda:0", "cuda:1", "cpu"]


@pytest.mark.parametrize(
    "request_values", [{}, {"inputs": None, "device": ""}, {"inputs": [], "device": ["auto", "cpu"]}, dict(CONFIG)]
)
def test_absent_values_and_whole_lists_mean_the_default(request_values: dict[str, object]) -> None:
    assert InferOptions.from_request(request_values, CONFIG) == InferOptions("nnunet", "auto", Inputs.PREDICTED, PlanKind.RAW)


def test_what_is_known_of_the_patient_may_be_stated() -> None:
    with_plan = client_config(AppSettings(), ALL, plans=True)
    assert InferOptions.from_request(with_plan, with_plan).patient == Patient(), "viewers send the config as it is"
    stated = {"height_cm": "170,5", "weight_kg": 80, "liver_state": "injured"}
    options = InferOptions.from_request(stated, with_plan)
    assert (options.patient, options.liver_state) == (Patient(170.5, 80), LiverState.INJURED)
    for wrong, said in (
        ({"weight_kg": "80 kg"}, "weight_kg: expected a number, got '80 kg'; leave it empty"),
        ({"weight_kg": True}, "weight_kg: expected a number, got True"),
        ({"height_cm": ["170"]}, "height_cm: expected a number"),
        ({"height_cm": "1.7"}, "looks like metres: 170 cm"),
        ({"height_cm": "nan"}, "expected 100 to 250 cm, got nan"),
        ({"liver_state": "fat"}, "liver_state='fat' is not offered"),
    ):
        with pytest.raises(SettingsError, match=said):
            InferOptions.from_request(wrong, with_plan)


def test_the_kind_of_plan_is_offered_where_there_is_one() -> None:
    with_plan = client_config(AppSettings(), ALL, plans=True)
    assert with_plan["plan"] == ["coherent", "raw"]
    assert InferOptions.from_request({}, with_plan).plan is PlanKind.COHERENT
    assert InferOptions.from_request({"plan": ["raw"]}, with_plan).plan is PlanKind.RAW
    with pytest.raises(SettingsError, match=r"plan='smooth' is not offered by model flr; known are coherent, raw"):
        InferOptions.from_request({"model": "flr", "plan": "smooth"}, with_plan)
    assert InferOptions.from_request({"plan": "coherent"}, CONFIG).plan is PlanKind.RAW, "a liver is no plan"


@pytest.mark.parametrize("value", ["labels_liver", ["labels_liver"], ("labels_liver",)])
def test_a_choice_may_come_as_text_or_list(value: object) -> None:
    assert InferOptions.from_request({"inputs": value}, CONFIG).inputs is Inputs.LABELS_LIVER


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inputs": "given"}, r"inputs='given' is not offered by model crlm; known are predicted, labels_liver, labels"),
        ({"architecture": "unet"}, r"architecture='unet' is not offered by model crlm; known are nnunet"),
        ({"device": "tpu"}, r"unknown device 'tpu'"),
        ({"inputs": 3}, r"inputs must be a text, got 3"),
    ],
)
def test_an_unknown_choice_names_the_known_ones(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        InferOptions.from_request({"model": "crlm", **values}, CONFIG)
