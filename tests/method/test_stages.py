"""The table of stages: numbers that stay, columns that are a stage's own, and what cannot be declared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import flrplan
from flrplan.anatomy import COMPARTMENTS_OF, Compartment, Structure, decode_label, structure_mask
from flrplan.errors import LabelError, SettingsError
from flrplan.evaluation import COLUMNS, PAPER_COLUMNS, Column, Part
from flrplan.image import Geometry, write_label_map, write_volume
from flrplan.method import CASCADE, CRLM, FLR, FLR_E2E, LIVER, PAPER_STAGES, STAGES, Inputs, Stage, stages_before
from flrplan.method.stages import Kind, stage_table
from flrplan.workfolder import Case, TruthFiles

REPOSITORY = Path(__file__).resolve().parents[2]
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
    monkeypatch.delitem(COMPARTMENTS_OF, Structure.LRS)
    grid = Geometry((16, 14, 12), (1.0, 2.0, 7.5))
    planning = np.full(grid.shape_zyx, 2, np.uint8)
    with pytest.raises(LabelError, match="a planning label map does not hold lrs; give a mask of its own"):
        structure_mask(planning, Structure.LRS)
    names = {c.label_name: int(c) for c in Compartment}
    assert decode_label(planning, names, "label").holds == {Structure.LIVER, Structure.CRLM, Structure.FLR}
    image, label = tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz"
    write_volume(image, np.arange(12 * 14 * 16, dtype=np.int16).reshape(grid.shape_zyx) - 1024, grid)
    write_label_map(label, planning, grid)
    with pytest.raises(LabelError, match=r"no file states lrs: expected .*masks/a/lrs\.nii\.gz"):
        Case("a", image, TruthFiles(label)).load([Structure.LRS])


MAKE = """
import sys
from pathlib import Path
from flrplan.nnunet.prepare.dataset import convert_dataset
from flrplan.method import InputSettings
from flrplan.method import STAGES
from flrplan.workfolder import TruthFiles
from flrplan.workfolder import find_labelled_cases
for name in ("flr_from_liver", "benign"):
    convert_dataset(find_labelled_cases(Path(sys.argv[1])), STAGES[name], InputSettings(), Path(sys.argv[2]))
"""


def test_a_fifth_stage_and_a_second_lesion_as_the_page_shows_them(tmp_path: Path) -> None:
    """The blocks of docs/architecture.md, put where it says into a copy of the package: written for training, and scored."""
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    stage, name, row, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for block in (stage, name, row, second) for line in block.splitlines()]) <= 20
    package = tmp_path / "lib" / "flrplan"
    shutil.copytree(Path(flrplan.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, before, block in (
        ("anatomy/structures.py", "\n\nclass Compartment", name),
        ("anatomy/structures.py", '}\n"""One row a structure', row),
        ("method/stages.py", "\nPAPER_STAGES: ", stage + second),
    ):
        text = (package / file).read_text()
        assert text.count(before) == 1
        (package / file).write_text(text.replace(before, block + before))
    table = (package / "method/stages.py").read_text()
    (package / "method/stages.py").write_text(
        table.replace("*PAPER_STAGES, MULTI)", "*PAPER_STAGES, FLR_FROM_LIVER, MULTI, BENIGN)")
    )

    grid = Geometry((20, 20, 12), (1.0, 1.0, 2.5))
    masks = {"liver": (2, 18), "crlm": (4, 6), "flr": (8, 18), "benign": (12, 15)}
    ct = np.random.default_rng(0).integers(-1000, 200, grid.shape_zyx).astype(np.int16)
    write_volume(tmp_path / "work" / "images" / "t1.nii.gz", ct, grid)
    for structure, (first, last) in masks.items():
        mask = np.zeros(grid.shape_zyx, np.uint8)
        mask[2:10, 4:16, first:last] = 1
        write_label_map(tmp_path / "work" / "masks" / "t1" / f"{structure}.nii.gz", mask, grid)
        for column in {"flr": ("cascaded_flr_from_liver",), "benign": ("pipelined_benign", "cascaded_benign")}.get(
            structure, ()
        ):
            write_label_map(tmp_path / "predictions" / "own" / column / "t1.nii.gz", mask, grid)
    (tmp_path / "splits.json").write_text('{"test": ["t1"], "folds": []}')
    evaluate = [str(REPOSITORY / "benchmark" / "evaluate.py"), "--labels", str(tmp_path / "work" / "masks"), "--workers", "1"]
    evaluate += [
        f"--{what}={tmp_path / place}"
        for what, place in (("predictions", "predictions"), ("splits", "splits.json"), ("out", "out"))
    ]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    for command in (["-c", MAKE, str(tmp_path / "work"), str(tmp_path / "raw")], evaluate):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == ["Dataset506_flr_from_liver", "Dataset507_benign"]
    dataset = json.loads((tmp_path / "raw" / "Dataset507_benign" / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "benign": [1, 2]}
    of_test = json.loads((tmp_path / "out" / "summary.json").read_text())["test"]["own"]
    assert {column: cell["dice"]["mean"] for column, cell in of_test.items()} == dict.fromkeys(
        ("pipelined_benign", "cascaded_flr_from_liver", "cascaded_benign"), 1.0
    )
    head = next(line for line in (tmp_path / "out" / "table2.md").read_text().splitlines() if line.startswith("| Model"))
    assert head.endswith("| pipelined Benign (L+CT) | cascaded FLR (L+CT) | cascaded Benign (L+CT) |")
