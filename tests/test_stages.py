"""The table of stages: numbers that stay, columns that are a stage's own, and what cannot be declared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flrplan import labels
from flrplan.errors import LabelError, SettingsError
from flrplan.evaluation.columns import COLUMNS, PAPER_COLUMNS, Column, Part
from flrplan.geometry import Geometry
from flrplan.io import write_label_map, write_volume
from flrplan.labels import Structure, decode_label, structure_mask
from flrplan.stages import (
    CASCADE,
    CRLM,
    FLR,
    FLR_E2E,
    LIVER,
    PAPER_STAGES,
    STAGES,
    Inputs,
    Kind,
    Stage,
    stage_table,
    stages_before,
)
from flrplan.training_cases import LabelledCase

FROM_LIVER = Stage("flr_from_liver", 590, (Structure.FLR,), region=Structure.LIVER)


def test_the_numbers_of_data_sets_never_change() -> None:
    assert {stage.name: stage.number for stage in PAPER_STAGES} == {"liver": 501, "crlm": 502, "flr": 503, "flr_e2e": 504}
    assert list(STAGES)[: len(PAPER_STAGES)] == [stage.name for stage in PAPER_STAGES]


def test_columns_of_the_paper_keep_their_names_and_titles() -> None:
    assert {name: COLUMNS[name].title for name in PAPER_COLUMNS[Part.TEST]} == {
        "pipelined_liver": "pipelined Liver (CT)",
        "pipelined_crlm": "pipelined CRLM (L+CT)",
        "pipelined_flr": "pipelined FLR (L+T+CT)",
        "cascaded_crlm": "cascaded CRLM (L+CT)",
        "cascaded_flr": "cascaded FLR (L+T+CT)",
        "e2e_flr": "E2E FLR (CT)",
    }
    assert PAPER_COLUMNS[Part.CV] == ("pipelined_liver", "pipelined_crlm", "pipelined_flr", "e2e_flr")


def test_a_second_stage_of_the_same_target_has_columns_of_its_own() -> None:
    columns = [Column(FROM_LIVER, inputs, Structure.FLR) for inputs in FROM_LIVER.inputs]
    assert {c.name: c.title for c in columns} == {
        "pipelined_flr_from_liver": "pipelined FLR (L+CT)",
        "cascaded_flr_from_liver": "cascaded FLR (L+CT)",
    }
    assert [c.stages for c in columns] == [(FROM_LIVER,), (LIVER, FROM_LIVER)]
    assert not {c.name for c in columns} & set(COLUMNS)
    assert list(stage_table((*PAPER_STAGES, FROM_LIVER))) == ["liver", "crlm", "flr", "flr_e2e", "flr_from_liver"]


def test_what_comes_before_a_stage() -> None:
    assert [stages_before(stage) for stage in (*CASCADE, FLR_E2E)] == [(), (LIVER,), (LIVER, CRLM), ()]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (replace(FROM_LIVER, name="flr"), "the name flr occurs twice"),
        (replace(FROM_LIVER, number=503), "the number 503 occurs twice"),
        (replace(FROM_LIVER, column="flr"), "the column pipelined_flr, cascaded_flr occurs twice"),
        (Stage("other_e2e", 590, (Structure.FLR,), Kind.END_TO_END), r"the column title E2E FLR \(CT\) occurs twice"),
    ],
)
def test_duplicates_are_errors(stage: Stage, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        stage_table((*PAPER_STAGES, stage))


def test_what_no_stage_can_be() -> None:
    with pytest.raises(SettingsError, match="flr_from_liver: an end-to-end stage sees the CT alone"):
        replace(FROM_LIVER, kind=Kind.END_TO_END)
    with pytest.raises(SettingsError, match="expected one target or several different ones"):
        replace(FROM_LIVER, targets=())
    with pytest.raises(SettingsError, match="flr_from_liver has several targets: liver, crlm and flr"):
        _ = replace(FROM_LIVER, targets=(Structure.LIVER, Structure.CRLM, Structure.FLR)).target
    assert FLR.target is Structure.FLR
    assert FLR.inputs == (Inputs.PIPELINED, Inputs.CASCADED)


def test_a_structure_that_no_planning_map_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never taken for empty: only a mask of its own says something of it."""
    monkeypatch.delitem(labels.COMPARTMENTS_OF, Structure.LRS)
    grid = Geometry((16, 14, 12), (1.0, 2.0, 7.5))
    planning = np.full(grid.shape_zyx, 2, np.uint8)
    with pytest.raises(LabelError, match="a planning label map does not hold lrs; give a mask of its own"):
        structure_mask(planning, Structure.LRS)
    names = {c.label_name: int(c) for c in labels.Compartment}
    assert decode_label(planning, names, "label").holds == {Structure.LIVER, Structure.CRLM, Structure.FLR}
    image, label = tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz"
    write_volume(image, np.arange(12 * 14 * 16, dtype=np.int16).reshape(grid.shape_zyx) - 1024, grid)
    write_label_map(label, planning, grid)
    with pytest.raises(LabelError, match=r"no file holds lrs: expected .*masks/a/lrs\.nii\.gz"):
        LabelledCase("a", image, label).load([Structure.LRS])
