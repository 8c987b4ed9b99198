"""``flrplan.plan`` as a Python user calls it, and the README's ten lines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import flrplan
from flrplan import cascade_result
from flrplan.cascade import Cascade, CascadeSettings
from flrplan.cli import main
from flrplan.errors import EmptyLiverError, GridError, ImageError, LabelError, SettingsError
from flrplan.io import CT
from flrplan.labels import Mask, Structure
from flrplan.models import ModelStore

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cascade(demo_store: ModelStore) -> Cascade:
    return Cascade(demo_store, CascadeSettings(device="cpu"))


def test_the_lines_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small_ct: CT
) -> None:
    sitk.WriteImage(small_ct.geometry.image(small_ct.array_zyx), str(tmp_path / "patient.nii.gz"))
    monkeypatch.chdir(tmp_path)
    block = re.search(r"## In Python\n.*?```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    assert len(block[1].splitlines()) <= 10
    names: dict[str, object] = {}
    exec(block[1], names)  # the README's own lines
    plan = names["plan"]
    assert isinstance(plan, flrplan.Plan)
    said = capsys.readouterr().out
    assert f"FLR {plan.volumes.flr_ml:.0f} ml" in said
    assert "demo models" in said
    assert sorted(p.name for p in (tmp_path / "plans" / "patient").iterdir()) == ["plan.json", "plan.png", "planning.nii.gz"]


def test_arrays_are_taken_as_they_are(
    cascade: Cascade, small_ct: CT, small_truth: dict[Structure, Mask], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = []
    combine = cascade_result.to_compartments
    monkeypatch.setattr(cascade_result, "to_compartments", lambda *masks: (made.append(1), combine(*masks))[1])
    liver = small_truth[Structure.LIVER].astype(np.uint8) * 255
    planned = flrplan.plan(small_ct, liver=liver, crlm=small_truth[Structure.CRLM], name="one", cascade=cascade)
    assert {str(s): source.value for s, source in planned.sources.items()} == {
        "liver": "given",
        "crlm": "given",
        "flr": "predicted",
    }
    assert np.array_equal(planned.masks[Structure.LIVER], small_truth[Structure.LIVER])
    assert planned.volumes.liver_ml == pytest.approx(
        np.count_nonzero(small_truth[Structure.LIVER]) * small_ct.geometry.voxel_volume_ml
    )
    assert planned.volumes.flr_fraction == pytest.approx(
        np.count_nonzero(planned.label_zyx == 1) / np.isin(planned.label_zyx, (1, 2)).sum()
    )
    planned.save(tmp_path / "one")
    assert made == [1], "the planning map is computed once, however often it is looked at"
    assert planned.report()["case"] == "one"
    assert "request" not in planned.report(), "arrays leave no trace that a later run could compare"
    with pytest.raises(ValueError, match="read-only"):
        planned.label_zyx[0, 0, 0] = 1


def test_a_saved_plan_of_files_is_the_one_that_the_command_keeps(
    cascade: Cascade, small_ct: CT, small_truth: dict[Structure, Mask], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"ct": small_ct.array_zyx, "liver": small_truth[Structure.LIVER], "crlm": small_truth[Structure.CRLM]}
    for name, array in files.items():
        sitk.WriteImage(small_ct.geometry.image(array), str(tmp_path / f"{name}.nii.gz"))
    ct, liver, crlm = (str(tmp_path / f"{name}.nii.gz") for name in files)
    flrplan.plan(ct, liver=liver, crlm=Path(crlm), cascade=cascade).save(str(tmp_path / "out" / "ct"))
    assert main(["plan", ct, "--liver", liver, "--crlm", crlm, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "already planned, kept" in capsys.readouterr().err


def test_what_cannot_be_planned_is_told(cascade: Cascade, small_ct: CT, tmp_path: Path) -> None:
    shape = small_ct.geometry.shape_zyx
    empty = np.zeros(shape, bool)
    turned = np.zeros(shape[::-1], bool)
    with pytest.raises(GridError, match=re.escape(f"the given liver has shape {shape[::-1]}, the CT {shape}")):
        flrplan.plan(small_ct, liver=turned, cascade=cascade)
    with pytest.raises(EmptyLiverError, match="the given liver mask is empty"):
        flrplan.plan(small_ct, liver=empty, cascade=cascade)
    graded = empty.astype(np.uint8)
    graded[0, 0, :2] = 1, 2
    with pytest.raises(LabelError, match=r"the given crlm: expected a binary crlm mask .* found the values \[0, 1, 2\]"):
        flrplan.plan(small_ct, crlm=graded, cascade=cascade)
    with pytest.raises(ImageError, match=r"the given crlm: .*NaN"):
        flrplan.plan(small_ct, crlm=np.full(shape, np.nan, np.float32), cascade=cascade)
    with pytest.raises(SettingsError, match=r"ct: expected a path or a flrplan\.CT, which knows its grid, got ndarray"):
        flrplan.plan(small_ct.array_zyx, cascade=cascade)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="no such file"):
        flrplan.plan(tmp_path / "nobody.nii.gz", cascade=cascade)
