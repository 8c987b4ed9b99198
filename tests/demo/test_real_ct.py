"""Measuring the demo models on real CTs: what is asked for, how it is scored, and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from flrplan.anatomy import Mask, Structure
from flrplan.cli import main
from flrplan.demo.measure import COLUMNS, MeasuredCase
from flrplan.demo.real_ct import RealCT, box_around, score_real
from flrplan.demo.reference_mask import Reference
from flrplan.errors import EmptyLiverError, SettingsError
from flrplan.image import CT, Geometry
from flrplan.method import CASCADE, LIVER, CascadeResult, Source, Stage

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=ct,liver.nii.gz", RealCT("a", Path("ct"), Path("liver.nii.gz"))),
        ("a=ct,s.nii.gz:5", RealCT("a", Path("ct"), Path("s.nii.gz"), 5)),
        ("a (b, c)=x/ct.nii,x:y.nii", RealCT("a (b, c)", Path("x/ct.nii"), Path("x:y.nii"))),
    ],
)
def test_the_form(text: str, expected: RealCT) -> None:
    assert RealCT.parse(text) == expected


@pytest.mark.parametrize("text", ["ct,liver", "a=ct", "=ct,liver", "a=,liver", "a=ct,"])
def test_another_form(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--real takes NAME=CT,LIVER\[:VALUE\], got"):
        RealCT.parse(text)


def test_absurd_names_and_values() -> None:
    with pytest.raises(SettingsError, match=r"expected no '/', got '\.\./a'"):
        RealCT.parse("../a=ct,liver")
    with pytest.raises(SettingsError, match="must be at least 1, got 0"):
        RealCT.parse("a=ct,liver:0")


def test_only_what_the_reference_covers_is_scored() -> None:
    ct = CT(np.zeros((4, 10, 10), np.int16), Geometry((10, 10, 4), (10.0, 10.0, 10.0)), "a", "the CT")  # a voxel is 1 ml
    liver = np.zeros((4, 10, 10), bool)
    liver[1, :3, 0] = True
    covered = np.zeros_like(liver)
    covered[:2] = True
    predicted = np.zeros_like(liver)
    predicted[1, 1:5, 0] = True  # one missed, two shared, two added
    predicted[3, :, 0] = True  # where the reference says nothing
    score = score_real("a", predicted, Reference(liver, covered, ("a note",)), ct, ("a warning",))
    assert score.dice == pytest.approx(2 * 2 / (3 + 4))
    assert (score.reference_ml, score.missed_ml, score.extra_ml, score.unjudged_ml) == pytest.approx((3, 1, 2, 10))
    assert (score.slices, score.of_slices) == (2, 4)
    assert score.notes == ("a note", "a warning")


@pytest.fixture
def files(tmp_path: Path, small_ct: CT, small_truth: dict[Structure, Mask]) -> str:
    """``CT,LABEL`` of a small case whose label holds two values, 7 is the liver."""
    label = small_truth[Structure.LIVER].astype(np.uint8) * 7
    label[0, 0, 0] = 1
    for name, array in (("ct", small_ct.array_zyx), ("label", label)):
        sitk.WriteImage(small_ct.geometry.image(array), str(tmp_path / f"{name}.nii.gz"))
    return f"{tmp_path / 'ct.nii.gz'},{tmp_path / 'label.nii.gz'}"


def test_a_reference_that_cannot_be_used_is_told_before_the_training(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flrplan.demo.build.build_demo_models", lambda *_: pytest.fail("it must not train"))
    command = ["demo-models", "--work", str(tmp_path / "work"), "--real", f"a={files}"]
    assert main(command) == 1
    assert "found 2 values, [1, 7]; say which, label.nii.gz:VALUE" in capsys.readouterr().err
    assert main([*command, "--real", f"a={files}:7"]) == 1
    assert "--real takes each name once, got a several times" in capsys.readouterr().err


def test_the_command_measures_a_real_ct(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_ct: CT, small_truth: dict[Structure, Mask]
) -> None:
    predicted = small_truth[Structure.LIVER].copy()
    lowest = int(np.nonzero(predicted.any(axis=(1, 2)))[0][0])
    predicted[lowest] = False
    voxels, missed = (int(np.count_nonzero(small_truth[Structure.LIVER][at])) for at in (slice(None), lowest))

    cropped: list[CT] = []

    class Answers:
        def __init__(self, *_: object) -> None: ...
        def run(self, ct: CT, stages: Sequence[Stage] = CASCADE) -> CascadeResult:
            if stages == (LIVER,):
                cropped.append(ct)
                raise EmptyLiverError("no liver was found")
            masks = {**small_truth, Structure.LIVER: predicted}
            return CascadeResult(ct, masks, dict.fromkeys(masks, Source.PREDICTED), {}, {}, ("a warning",))

    cases = [MeasuredCase(i, f"c{i}", "late", 2.0, dict.fromkeys(COLUMNS, 0.5)) for i in range(3)]
    monkeypatch.setattr("flrplan.demo.measure.demo_cascade", Answers)
    monkeypatch.setattr("flrplan.demo.measure.measure_synthetic", lambda *_, **__: cases)
    monkeypatch.setattr("flrplan.demo.failures.write_failures", lambda *_: None)
    work, models = tmp_path / "work", tmp_path / "demo"
    command = ["demo-models", "--work", str(work), "--models", str(models), "--measure", "--real", f"mine={files}:7"]
    assert main(command) == 0
    value = 2 * (voxels - missed) / (2 * voxels - missed)
    assert json.loads((models / "scores.json").read_text())["real_liver_dice"]["mine"] == pytest.approx(value, abs=1e-4)
    assert f"- mine: Dice {value:.3f} on " in (models / "README.md").read_text()
    assert (work / "real" / "mine" / "planning.nii.gz").is_file()
    name = "mine cropped to 10 mm around the liver"
    assert json.loads((models / "scores.json").read_text())["real_liver_dice"][name] == 0.0
    assert f"- {name}: Dice 0.000 on " in (models / "README.md").read_text()
    (part,) = cropped
    box = box_around(small_truth[Structure.LIVER], small_ct.geometry.spacing_zyx_mm, 10.0)
    assert np.array_equal(part.array_zyx, small_ct.array_zyx[box])
    assert part.geometry.is_same_grid(small_ct.geometry.crop(box))


def test_the_box_around_a_mask() -> None:
    mask = np.zeros((10, 40, 40), bool)
    mask[1:4, 15:20, 30:38] = True
    assert box_around(mask, (5.0, 2.0, 2.0), 10.0) == (slice(0, 6), slice(10, 25), slice(25, 40))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_passes_real_cts_on() -> None:
    command = ["make", "-n", "-o", ".venv/.installed", "demo-models"]
    with_real = subprocess.run([*command, "REAL=a=ct,l:5 b=d,m"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "flrplan demo-models --work build/demo-models --real 'a=ct,l:5' --real 'b=d,m'" in with_real.stdout
    without = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--real" not in without.stdout
