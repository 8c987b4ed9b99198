"""The table of architectures: complete rows, one place for names, light to import."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import pytest

from flrplan.errors import SettingsError
from flrplan.method import TrainingSettings
from flrplan.networks import ARCHITECTURES, BASE, PAPER, TABLE, Schedule, architecture_named
from flrplan.networks.table import NARROW


def test_names_stand_in_one_place() -> None:
    assert tuple(TABLE) == ARCHITECTURES == (*PAPER, "resenc")
    assert PAPER == ("nnunet", "swinunetr", "stunet")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_are_complete(name: str) -> None:
    row = TABLE[name]
    assert {BASE, NARROW} <= set(row.sizes)
    assert row.source
    assert row.hyperparameters.source
    assert set(row.presets) in (set(), set(row.sizes))
    assert isinstance(pydoc.locate(row.network), type)
    assert (row.hyperparameters.schedule is Schedule.WARMUP_COSINE) == (row.hyperparameters.warmup_fraction > 0)


def test_only_stunet_starts_from_published_weights() -> None:
    """arXiv:2604.07999, section 3.3: nnU-Net and SwinUNETR from scratch, STU-Net from the official weights."""
    assert [row.name for row in TABLE.values() if row.pretrained] == ["stunet"]
    assert {row.name: row.patch.spacing_mm for row in TABLE.values()} == {
        "nnunet": None,
        "swinunetr": None,
        "stunet": 1.5,
        "resenc": None,
    }


def test_unknown_names() -> None:
    with pytest.raises(SettingsError, match="unknown architecture 'unet'; known are nnunet, swinunetr, stunet"):
        architecture_named("unet")
    with pytest.raises(SettingsError, match="swinunetr has no network_size 'large'; it has base, narrow"):
        TABLE["swinunetr"].size("large")


def test_recommended_values_are_taken_and_explicit_ones_kept() -> None:
    taken = TrainingSettings(weight_decay=0.0).resolved(TABLE["swinunetr"])
    assert (taken.learning_rate, taken.weight_decay, taken.amsgrad) == (1e-4, 0.0, False)
    assert (taken.schedule, taken.warmup_fraction) == ("warmup_cosine", 0.05)
    assert taken.resolved(TABLE["nnunet"]) == taken
    assert TrainingSettings().resolved(TABLE["stunet"]).learning_rate == 1e-3


def test_the_table_loads_no_torch() -> None:
    code = "import sys, flrplan.method.stages, flrplan.networks.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
