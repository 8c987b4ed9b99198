"""Two annotators' labels of a case: compared, joined, and the command line of a studies folder."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flrplan.anatomy import Compartment, PlanningLabel, Structure
from flrplan.cli import main
from flrplan.errors import LabelError
from flrplan.image import Geometry, write_volume
from flrplan.server.label_table import read_label
from flrplan.studies import StudiesFolder
from flrplan.studies.agreement import Join, Reading, agreement, join, joined, readings
from flrplan.studies.review import META, Version
from flrplan.studies.submission import review, submit

GRID = Geometry((40, 20, 12), (1.0, 1.0, 5.0))
"""A voxel has 0.005 ml."""
NAMES = [{"name": c.label_name, "idx": int(c)} for c in Compartment]


def plan(cut: int, tumour: int = 30) -> Any:
    """A liver of 10 x 16 x 32 voxels, x 4 to 36: remnant up to ``cut``, and a tumour of 2 x 2 x 2 at ``tumour``."""
    array = np.zeros(GRID.shape_zyx, np.uint8)
    array[1:11, 2:18, 4:cut] = Compartment.REMNANT
    array[1:11, 2:18, cut:36] = Compartment.RESECTION
    array[4:6, 8:10, tumour : tumour + 2] = Compartment.CRLM_IN_RESECTION if tumour >= cut else Compartment.CRLM_IN_REMNANT
    return array


@pytest.fixture
def studies(tmp_path: Path) -> StudiesFolder:
    root = tmp_path / "studies"
    for case in ("a", "b"):
        write_volume(
            root / f"{case}.nii.gz", np.random.default_rng(0).integers(-1000, 200, GRID.shape_zyx).astype(np.int16), GRID
        )
    return StudiesFolder(root)


@pytest.fixture
def send(studies: StudiesFolder, tmp_path: Path) -> Callable[..., None]:
    def act(who: str, array: Any, case: str = "a") -> None:
        write_volume(tmp_path / "up.nii.gz", array, GRID)
        submit(studies, case, "final", tmp_path / "up.nii.gz", {"client_id": who, "label_info": NAMES}, read_label)

    return act


def test_two_annotators_are_compared(studies: StudiesFolder, send: Callable[..., None]) -> None:
    send("anna", plan(28))
    send("anna", plan(20))
    send("ben", plan(24))
    one, two = readings(studies, "a", read_label)
    assert [(r.version.by, r.version.tag) for r in (one, two)] == [("anna", "version_2"), ("ben", "final")]
    found = agreement(one, two)
    assert found["liver"]["dice"] == found["crlm"]["dice"] == 1.0
    flr = found["flr"]
    assert flr["dice"] == pytest.approx(2 * 16 / (16 + 20))  # columns of x: 4 to 20, and 4 to 24
    assert flr["cut_mean_mm"] == pytest.approx(4.0)
    liver, tumour = 10 * 16 * 32, 8
    assert flr["flr_percent_reference"] == pytest.approx(100 * 10 * 16 * 16 / (liver - tumour))
    assert flr["flr_percent_own_prediction"] == pytest.approx(100 * 10 * 16 * 20 / (liver - tumour))
    assert found["liver"]["volume_prediction_ml"] == pytest.approx(liver * 0.005)


def test_one_annotator_alone_cannot_be_compared(studies: StudiesFolder, send: Callable[..., None]) -> None:
    send("anna", plan(20))
    send("anna", plan(24))
    with pytest.raises(
        LabelError, match="two labels of different annotators are needed; there are version_1 by anna, final by anna"
    ):
        readings(studies, "a", read_label)
    assert [r.version.tag for r in readings(studies, "a", read_label, ("final", "version_1"))] == ["final", "version_1"]


@pytest.mark.parametrize(("how", "expected"), [(Join.MAJORITY, 22), (Join.STAPLE, 22)])
def test_three_labels_are_joined_and_stay(studies: StudiesFolder, send: Callable[..., None], how: Join, expected: int) -> None:
    for who, cut in (("anna", 20), ("ben", 22), ("cleo", 24)):
        send(who, plan(cut))
    found = readings(studies, "a", read_label)
    stored = join(studies, "a", found, how, read_label, "dora")
    label, _ = read_label(stored.path, stored.info)
    assert np.array_equal(label.masks[Structure.FLR], np.isin(plan(expected), [1, 4]))
    assert [entry["by"] for entry in stored.info["joined"]["labels"]] == ["anna", "ben", "cleo"]
    assert (stored.info["submission"]["by"], list(studies.labels_of("a"))) == (
        "dora",
        ["final", "version_1", "version_2", "version_3"],
    )


def test_the_majority_of_two_is_what_both_say_and_an_empty_mask_may_win() -> None:
    full, half, empty = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    half[0] = True
    grid = Geometry((2, 2, 2), (1.0, 1.0, 1.0))

    def reading(liver: Any, crlm: Any) -> Reading:
        return Reading(Version.of("final", {}), PlanningLabel({Structure.LIVER: liver, Structure.CRLM: crlm}), grid)

    for how in Join:
        masks = joined([reading(full, half), reading(full, empty)], how).masks
        assert not masks[Structure.CRLM].any()
        assert masks[Structure.LIVER].all()
    masks = joined([reading(half, full), reading(half, full)], Join.STAPLE).masks
    assert np.array_equal(masks[Structure.CRLM], half)  # inside the liver


def test_the_command_says_where_every_case_stands(
    studies: StudiesFolder, send: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    send("anna", plan(20))
    send("ben", plan(24))
    review(studies, "a", "final", {META: {"status": "flagged", "approvedBy": "cleo", "comment": "dome"}})
    assert main(["studies", "status", str(studies.root), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "2 cases: 1 open, 0 drafted, 1 sent back, 0 refined, 0 confirmed" in told
    assert "flr: Dice 0.889 to the label before, 3.2 ml apart in 1 labels" in told  # 10 x 16 x 4 voxels
    assert "ben: 1 labels of 1 cases, 0 confirmed; crlm Dice 1.000" in told
    assert "  a: sent back by cleo: dome\n  b: open\n" in told
    page = (tmp_path / "out" / "worklist.html").read_text()
    assert 'src="pictures/a.png"' in page
    assert (tmp_path / "out" / "pictures" / "a.png").read_bytes().startswith(b"\x89PNG")
    lines = list(csv.DictReader((tmp_path / "out" / "worklist.csv").open()))
    assert [(line["case"], line["state"]) for line in lines] == [("a", "sent back"), ("b", "open")]


def test_the_command_restores_compares_joins_and_marks(
    studies: StudiesFolder, send: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(studies.root)
    send("anna", plan(20))
    send("ben", plan(24))
    assert main(["studies", "restore", root, "a"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in listed] == ["version_1", "final"]
    assert main(["studies", "compare", root, "a", "--join", "majority", "--by", "dora"]) == 0
    told = capsys.readouterr().out
    assert "version_1 by anna, and final by ben:" in told
    assert "flr    Dice 0.889" in told
    assert "cut    mean distance 4.0 mm, 95 % 4.0 mm  FLR 50.1 % and 62.6 %" in told
    assert main(["studies", "restore", root, "a", "version_1", "--by", "anna"]) == 0
    label, _ = read_label(studies.labels_of("a")["final"].path, studies.labels_of("a")["final"].info)
    assert np.array_equal(label.masks[Structure.FLR], np.isin(plan(20), [1, 4]))
    assert main(["studies", "double", root, "a", "b"]) == 0
    assert studies.image_info("b")["double_reading"] is True
    assert main(["studies", "double", root, "nobody"]) == 1
    assert main(["studies", "status", root + "x"]) == 1
    assert "no such folder; expected the --studies folder of a server" in capsys.readouterr().err
