from __future__ import annotations

from pathlib import Path

import pytest

from flrplan.engine import MODEL_ROOT
from flrplan.errors import SettingsError
from flrplan.server.settings import AppSettings, parse_bool


def test_no_conf_gives_the_defaults() -> None:
    assert AppSettings.from_conf({}) == AppSettings.from_conf(None) == AppSettings()


def test_every_known_key_is_read_from_a_string(tmp_path: Path) -> None:
    conf = {"models": str(tmp_path), "architecture": "nnunet", "device": "cpu", "mirroring": "true", "largest_liver": "No"}
    assert AppSettings.from_conf(conf) == AppSettings(tmp_path, "nnunet", "cpu", mirroring=True, largest_liver=False)


def test_second_opinions_are_names_with_commas_between() -> None:
    assert AppSettings.from_conf({"also": "swinunetr, stunet"}).also == ("swinunetr", "stunet")
    assert AppSettings.from_conf({"also": ""}).also == ()
    assert AppSettings.from_conf({"architecture": "stunet", "also": "nnunet"}).also == ("nnunet",)


def test_keys_of_the_host_are_left_to_it() -> None:
    assert AppSettings.from_conf({"server_mode": "true"}) == AppSettings()


def test_an_unknown_key_names_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match=r"unknown --conf mirorring; known are models, architecture, device, mirroring, lar"
    ):
        AppSettings.from_conf({"mirorring": "true"})


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"mirroring": "maybe"}, r"conf: mirroring must be true or false, got 'maybe'"),
        ({"architecture": "unet"}, r"conf: architecture must be one of nnunet.*got 'unet'"),
        ({"also": "unet"}, r"conf: second opinions: unknown architecture 'unet'; known are nnunet, swinunetr"),
        ({"also": "stunet,nnunet"}, r"conf: second opinions: nnunet makes the plan itself"),
        ({"cache_mb": "-1"}, r"conf: cache_mb must be at least 0, got '-1'"),
        ({"cache_mb": "plenty"}, r"conf: cache_mb must be a number, got 'plenty'"),
        ({"device": "tpu"}, r"unknown device 'tpu'"),
        ({"models": "/nowhere"}, r"conf: models: no folder /nowhere"),
        ({"models": str(MODEL_ROOT / "demo" / "liver" / "nnunet")}, r"conf: models: .* is one model, .*flrplan models import"),
    ],
)
def test_a_bad_value_says_what_was_expected(conf: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        AppSettings.from_conf(conf)


@pytest.mark.parametrize(("text", "value"), [("TRUE", True), ("0", False), (True, True), (False, False), ("off", False)])
def test_booleans_as_clients_send_them(text: object, value: bool) -> None:
    assert parse_bool(text, "x") is value
