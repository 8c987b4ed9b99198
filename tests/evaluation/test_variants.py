"""What tables say of rows that are no architecture of the paper, and of rows that differ in the seed alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flrplan.evaluation import COLUMNS, Part
from flrplan.evaluation.variants import seed_groups, seed_lines, variant_lines, variants_of
from flrplan.files import write_json

SEED = {"architecture": "nnunet", "training": {"seed": 1}}
SCRATCH = {"architecture": "stunet", "pretrained": "scratch", "plan": {"spacing_zyx_mm": [1.5, 1.5, 1.5]}}


def record(work: Path, row: str, variant: dict[str, Any] | None, stage: str = "liver") -> None:
    write_json(work / "models" / stage / row / "fold_0" / "run.json", {} if variant is None else {"variant": variant})


def test_each_row_says_what_it_is(tmp_path: Path) -> None:
    record(tmp_path, "nnunet", None)
    record(tmp_path, "from_scratch", SCRATCH)
    record(tmp_path, "seed_1", SEED)
    record(tmp_path, "seed_1", {**SEED, "training": {"seed": 2}}, "crlm")
    write_json(
        tmp_path / "predicted" / "both" / "fold-0.json", {"ensemble": {"by": "mean probability", "of": ["nnunet", "seed_1"]}}
    )
    (tmp_path / "models" / "flr" / "seed_1" / "fold_0").mkdir(parents=True)
    (tmp_path / "models" / "flr" / "seed_1" / "fold_0" / "run.json").write_text("{")
    variants = variants_of(tmp_path, ["nnunet", "from_scratch", "seed_1", "both", "unknown"])
    assert variants["nnunet"] == variants["unknown"] == ()
    [line] = variant_lines(variants)
    assert "from_scratch: STU-Net, pretrained scratch, plan spacing_zyx_mm 1.5 1.5 1.5;" in line
    assert "nnU-Net, training seed 2 | nnU-Net, training seed 1 (MODELS DIFFER)" in line
    assert "both: mean probability of nnU-Net, seed_1." in line
    assert variant_lines(variants_of(None, ["nnunet"])) == []


def test_the_spread_of_seeds_is_stated_and_called_no_bound() -> None:
    other_loss = {"architecture": "nnunet", "training": {"seed": 1, "loss": "dice_bce"}}
    again = {"architecture": "nnunet", "training": {"seed": 3, "loss": "dice_bce"}}
    variants = {
        "nnunet": (),
        "seed_1": (SEED,),
        "dice_1": (other_loss,),
        "dice_3": (again,),
        "stunet": (),
        "differ": (SEED, again),
    }
    assert seed_groups(variants) == [("nnunet", "seed_1"), ("dice_1", "dice_3")]
    dice = {"nnunet": 0.80, "seed_1": 0.75, "stunet": 0.1}
    of_part = {row: {"pipelined_liver": {"dice": {"mean": mean}}} for row, mean in dice.items()}
    of_part["nnunet"]["e2e_flr"] = {"dice": {"mean": None}}
    [line] = seed_lines(variants, of_part, Part.CV)
    assert line.startswith(
        "nnU-Net, seed_1 differ in their seed alone. Largest minus smallest mean Dice in the cross-validation: "
    )
    assert f": {COLUMNS['pipelined_liver'].title} 0.050. " in line
    assert "2 trainings each, and no bound" in line


def test_tables_and_report_of_a_work_folder_carry_them(whole: Any, command: Any) -> None:
    record(whole.root, "whole_2", None)
    for case in whole.ALL:
        whole.predict("seed_1", "pipelined_flr", case, whole.FLR)
    record(whole.root, "seed_1", SEED)
    others = [word for c in COLUMNS if c != "pipelined_flr" for word in ("--absent", c)]
    assert command(["--work", str(whole.root), "--workers", "1", "--out", str(whole.out), *others]) == 0
    for text in whole.tables():
        assert "seed_1: nnU-Net, training seed 1" in text
    assert json.loads((whole.out / "summary.json").read_text())["variants"] == {"seed_1": [SEED]}
