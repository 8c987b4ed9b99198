"""``benchmark/ensemble.py``: means and votes by hand, what is refused, and what the evaluation is told of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flrplan.files import write_json
from flrplan.image import Geometry, read_label_map, write_label_map, write_volume

SCRIPT = Path(__file__).resolve().parents[2] / "benchmark" / "ensemble.py"
COLUMN = "pipelined_liver"
# One row per voxel: round(255 p) of the members a, b, c.
VOXELS = np.array(
    [[255, 255, 0], [200, 120, 0], [127, 128, 127], [128, 128, 127], [255, 255, 255], [0, 0, 0], [130, 130, 0], [254, 0, 130]]
)


@pytest.fixture(scope="module")
def ensemble() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ensemble", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Three members that predicted the liver of a held-out case and of one of a fold; their part records."""
    write_json(tmp_path / "splits.json", {"test": ["t1"], "folds": [["a1"], ["b1"]]})
    for member, values in zip("abc", VOXELS.T, strict=True):
        for case in ("t1", "a1"):
            predict(tmp_path, member, case, values)
        for part, case in (("held-out", "t1"), ("fold-0", "a1")):
            content = {"cases": [case], "unrecorded": [], "mirroring": True, "liver": {"0": member}}
            write_json(
                tmp_path / "predicted" / member / f"{part}.json", content | {"started_from": {"liver/fold_0": "random weights"}}
            )
    return tmp_path


def predict(work: Path, member: str, case: str, values: np.ndarray, x_mm: float = 1.25) -> None:
    probability = values.reshape(2, 2, 2).astype(np.uint8)
    geometry = Geometry((2, 2, 2), (x_mm, 1.0, 5.0))
    write_label_map(work / "predictions" / member / COLUMN / f"{case}.nii.gz", probability >= 128, geometry)
    write_volume(work / "probabilities" / member / COLUMN / f"{case}.nii.gz", probability, geometry)


def made(work: Path, kind: str = "predictions", case: str = "t1", name: str = "ensemble") -> list[int]:
    return read_label_map(work / kind / name / COLUMN / f"{case}.nii.gz")[0].ravel().astype(int).tolist()


def command(work: Path, members: str, *more: str) -> list[str]:
    return ["--work", str(work), *(word for m in members for word in ("--of", m)), *more]


def test_the_mean_of_the_probabilities_is_thresholded_as_each_is(ensemble: ModuleType, work: Path) -> None:
    """Means 170, 106.7, 127.3, 127.7, 255, 0, 86.7, 128; above 127.5 is above one half."""
    assert ensemble.main(command(work, "abc")) == 0
    assert made(work) == [1, 0, 0, 1, 1, 0, 0, 1]
    assert made(work, "probabilities") == [170, 107, 127, 128, 255, 0, 87, 128]
    assert ensemble.main(command(work, "ab", "--name", "pair")) == 0
    assert made(work, "probabilities", name="pair")[2] == 127, "of 127 and 128 the mean is one half, which is not above it"
    assert made(work, name="pair")[2] == 0


def test_masks_vote_where_a_probability_is_missing(ensemble: ModuleType, work: Path) -> None:
    """Of three, two are enough; of two, both are needed."""
    (work / "probabilities" / "b" / COLUMN / "a1.nii.gz").unlink()
    assert ensemble.main(command(work, "abc")) == 0
    assert made(work) == [1, 0, 0, 1, 1, 0, 1, 1], "one way for all cases, although t1 has all probabilities"
    assert not (work / "probabilities" / "ensemble").exists()
    assert ensemble.main(command(work, "ab", "--name", "pair")) == 0
    assert made(work, name="pair") == [1, 0, 0, 1, 1, 0, 1, 0]


def test_the_record_says_of_what_it_is_made_and_others_are_never_mixed_in(
    ensemble: ModuleType, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ensemble.main(command(work, "ab")) == 0
    record = json.loads((work / "predicted" / "ensemble" / "fold-0.json").read_text())
    assert record["ensemble"] == {"by": "mean probability", "of": ["a", "b"]}
    assert record["cases"] == ["a1"]
    assert record["members"]["b"] == {"mirroring": True, "liver": {"0": "b"}}
    path = work / "predictions" / "ensemble" / COLUMN / "t1.nii.gz"
    before = path.stat().st_mtime_ns
    (work / "predictions" / "ensemble" / COLUMN / "a1.nii.gz").unlink()
    assert ensemble.main(command(work, "ab")) == 0
    assert path.stat().st_mtime_ns == before, "what is there is kept"
    assert made(work, case="a1") == made(work)
    assert ensemble.main(command(work, "abc")) == 1
    assert "what is there of ensemble was made of something else" in capsys.readouterr().err
    other = work / "predicted" / "b" / "fold-0.json"
    other.write_text(other.read_text().replace('"b"', '"retrained"'))
    assert ensemble.main(command(work, "ab")) == 1
    assert "what is there of ensemble was made of something else" in capsys.readouterr().err


def test_what_nobody_recorded_stays_unrecorded(ensemble: ModuleType, work: Path) -> None:
    (work / "predicted" / "b" / "held-out.json").unlink()
    assert ensemble.main(command(work, "ab")) == 0
    assert json.loads((work / "predicted" / "ensemble" / "held-out.json").read_text())["cases"] == []


@pytest.mark.parametrize(
    ("members", "more", "said"),
    [
        ("a", [], "--of: expected at least two different rows, none of them ensemble, got a"),
        ("aa", [], "expected at least two different rows"),
        ("ab", ["--name", "a"], "none of them a, got a, b"),
        ("ab", ["--name", "stunet"], "--name: 'stunet' cannot be a name"),
        ("ab", ["--name", "trained"], "has trained models called trained; choose another name"),
        ("ax", [], "missing are x/pipelined_liver: a1, t1. Predict them (predict.py --architecture NAME)"),
        ("xy", [], "missing are all. Predict them"),
    ],
)
def test_refused(
    ensemble: ModuleType, work: Path, members: str, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "models" / "liver" / "trained" / "fold_0").mkdir(parents=True)
    assert ensemble.main(command(work, members, *more)) == 1
    assert said in capsys.readouterr().err
    assert sorted(p.name for p in (work / "predictions").iterdir()) == ["a", "b", "c"]


def test_members_on_different_grids_and_cases_that_one_lacks(
    ensemble: ModuleType, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(work, "b", "t1", VOXELS[:, 1], x_mm=1.5)
    assert ensemble.main(command(work, "ab")) == 1
    assert f"b/{COLUMN}/t1.nii.gz" in capsys.readouterr().err
    (work / "predictions" / "b" / COLUMN / "t1.nii.gz").unlink()
    assert ensemble.main(command(work, "abc", "--name", "three")) == 1
    assert f"missing are b/{COLUMN}: t1" in capsys.readouterr().err
