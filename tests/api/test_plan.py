"""``flrplan.plan`` as a Python user calls it, and the README's ten lines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

import flrplan
from flrplan.anatomy import Mask, Structure
from flrplan.api.request import request_of
from flrplan.cli import main
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.errors import EmptyLiverError, GridError, ImageError, LabelError, OutputError, SettingsError
from flrplan.image import CT
from flrplan.method import CascadeResult, Source, cascade_result
from flrplan.planning import Plane
from flrplan.planning.meshes import Mesh

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ct(small_ct: CT) -> CT:
    return replace(small_ct, name="liver")


@pytest.fixture(scope="module")
def truth(small_truth: dict[Structure, Mask]) -> dict[Structure, Mask]:
    return small_truth


@pytest.fixture(scope="module")
def cascade(demo_store: ModelStore) -> Cascade:
    return Cascade(demo_store, CascadeSettings(device="cpu"))


def test_the_lines_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ct: CT
) -> None:
    sitk.WriteImage(ct.geometry.image(ct.array_zyx), str(tmp_path / "patient.nii.gz"))
    monkeypatch.chdir(tmp_path)
    block = re.search(r"## In Python\n.*?```python\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    assert len(block[1].splitlines()) <= 10
    names: dict[str, object] = {}
    exec(block[1], names)  # the README's own lines
    plan = names["plan"]
    assert isinstance(plan, flrplan.Plan)
    said = capsys.readouterr().out
    assert f"FLR {plan.volumes.flr_functional_ml:.0f} ml" in said
    assert "demo models" in said
    assert sorted(p.name for p in (tmp_path / "plans" / "patient").iterdir()) == [
        "meshes",
        "plan.json",
        "plan.png",
        "planning.nii.gz",
        "report.html",
        "report.pdf",
    ]


def test_arrays_are_taken_as_they_are(
    cascade: Cascade, ct: CT, truth: dict[Structure, Mask], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = []
    combine = cascade_result.to_compartments
    monkeypatch.setattr(cascade_result, "to_compartments", lambda *masks: (made.append(1), combine(*masks))[1])
    liver = truth[Structure.LIVER].astype(np.uint8) * 255
    planned = flrplan.plan(ct, liver=liver, crlm=truth[Structure.CRLM], name="one", cascade=cascade)
    assert {str(s): source.value for s, source in planned.sources.items()} == {
        "liver": "given",
        "crlm": "given",
        "flr": "predicted",
    }
    assert np.array_equal(planned.masks[Structure.LIVER], truth[Structure.LIVER])
    assert planned.volumes.liver_ml == pytest.approx(np.count_nonzero(truth[Structure.LIVER]) * ct.geometry.voxel_volume_ml)
    assert planned.volumes.flr_fraction == pytest.approx(
        np.count_nonzero(planned.label_zyx == 1) / np.isin(planned.label_zyx, (1, 2)).sum()
    )
    planned.save(tmp_path / "one")
    for array in planned.masks.values():
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = True
    assert made == [1, 1], "the maps of the coherent and the raw plan are computed once, however often they are looked at"
    assert planned.report()["case"] == "one"
    assert "request" not in planned.report(), "arrays leave no trace that a later run could compare"
    with pytest.raises(ValueError, match="read-only"):
        planned.label_zyx[0, 0, 0] = 1


def test_a_plan_does_not_change_with_the_callers_arrays(cascade: Cascade, ct: CT, truth: dict[Structure, Mask]) -> None:
    liver = truth[Structure.LIVER].copy()
    planned = flrplan.plan(ct, liver=liver, crlm=truth[Structure.CRLM], cascade=cascade)
    liver[:] = False  # before anything of the plan is looked at
    assert planned.volumes.liver_ml == pytest.approx(np.count_nonzero(truth[Structure.LIVER]) * ct.geometry.voxel_volume_ml)


def test_a_saved_plan_of_files_is_the_one_that_the_command_keeps(
    cascade: Cascade, ct: CT, truth: dict[Structure, Mask], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"ct": ct.array_zyx, "liver": truth[Structure.LIVER], "crlm": truth[Structure.CRLM]}
    for name, array in files.items():
        sitk.WriteImage(ct.geometry.image(array), str(tmp_path / f"{name}.nii.gz"))
    image, liver, crlm = (str(tmp_path / f"{name}.nii.gz") for name in files)
    flrplan.plan(image, liver=liver, crlm=Path(crlm), cascade=cascade).save(str(tmp_path / "out" / "ct"))
    assert main(["plan", image, "--liver", liver, "--crlm", crlm, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "already planned, kept" in capsys.readouterr().err


def test_what_cannot_be_planned_is_told(cascade: Cascade, ct: CT, tmp_path: Path) -> None:
    shape = ct.geometry.shape_zyx
    empty = np.zeros(shape, bool)
    turned = np.zeros(shape[::-1], bool)
    with pytest.raises(GridError, match=re.escape(f"the given liver has shape {shape[::-1]}, the CT {shape}")):
        flrplan.plan(ct, liver=turned, cascade=cascade)
    with pytest.raises(EmptyLiverError, match="the given liver mask is empty"):
        flrplan.plan(ct, liver=empty, cascade=cascade)
    graded = empty.astype(np.uint8)
    graded[0, 0, :2] = 1, 2
    with pytest.raises(LabelError, match=r"the given crlm: expected a binary crlm mask .* found the values \[0, 1, 2\]"):
        flrplan.plan(ct, crlm=graded, cascade=cascade)
    with pytest.raises(ImageError, match=r"the given crlm: .*NaN"):
        flrplan.plan(ct, crlm=np.full(shape, np.nan, np.float32), cascade=cascade)
    with pytest.raises(ImageError, match=r"the given liver: expected a plain array, found a masked one \(numpy.ma"):
        flrplan.plan(ct, liver=np.ma.masked_invalid(np.ones(shape, np.float32)), cascade=cascade)
    for odd in (empty.astype(str), empty.astype(complex), empty.astype(object)):
        with pytest.raises(LabelError, match=f"the given crlm: expected an array of bool or of numbers, found {odd.dtype}"):
            flrplan.plan(ct, crlm=odd, cascade=cascade)
    with pytest.raises(ImageError, match=r"case liver: \d+ of \d+ voxels are NaN"):
        flrplan.plan(replace(ct, array_zyx=np.full(shape, np.nan, np.float32)), cascade=cascade)
    with pytest.raises(ImageError, match="expected a volume, found a single slice"):
        flrplan.plan(
            CT(ct.array_zyx[:1], replace(ct.geometry, size_xyz=(*ct.geometry.size_xyz[:2], 1)), "x", "x"), cascade=cascade
        )
    for no_hu, found in ((ct.array_zyx.tolist(), "list"), (empty, "bool")):
        with pytest.raises(ImageError, match=f"synthetic: expected the HU as a numpy array of numbers, found {found}"):
            replace(ct, array_zyx=no_hu)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file cannot be written \(.*\); choose another folder"):
        flrplan.plan(ct, liver=~empty, crlm=empty, cascade=cascade).save(tmp_path / "file")
    with pytest.raises(SettingsError, match=r"ct: expected a path or a flrplan\.CT, which knows its grid, got ndarray"):
        flrplan.plan(ct.array_zyx, cascade=cascade)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="no such file"):
        flrplan.plan(tmp_path / "nobody.nii.gz", cascade=cascade)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight_kg": "80"}, "weight_kg: expected a number, got '80'"),
        ({"height_cm": True}, "height_cm: expected a number, got True"),
        ({"at_least": "30"}, "at_least: expected a number, got '30'"),
        ({"at_least": 10**400}, "at_least: expected a number, got 1000"),
        ({"weeks": "4"}, "weeks: expected a number, got '4'"),
        ({"liver_state": 3}, "unknown state of the liver 3; known are normal, chemotherapy, injured"),
        ({"raw": "no"}, "raw: expected True or False, got 'no'"),
        ({"anonymize": 1}, "anonymize: expected True or False, got 1"),
        ({"name": 7}, "name: expected a text, got 7"),
        ({"prior": 7}, "prior: expected a path, got 7"),
        ({"cascade": "nnunet"}, "cascade: expected a flrplan.engine.Cascade, got 'nnunet'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_of_the_wrong_kind_is_told_before_anything_is_read(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        flrplan.plan("nobody.nii.gz", **{"cascade": None, **options})


class _Instant(Cascade):
    """A cascade that gives the FLR as everything before the middle of the liver, soft tissue as the liver, and loads no network."""

    def run(
        self, ct: CT, given: Mapping[Structure, Mask] | None = None, *_: object, on_folds: Any = None, **__: object
    ) -> CascadeResult:
        masks = dict(given or {})
        masks.setdefault(Structure.LIVER, ct.array_zyx > 0)
        columns = np.flatnonzero(masks[Structure.LIVER].any(axis=(0, 1)))
        masks[Structure.FLR] = masks[Structure.LIVER] & (np.arange(ct.array_zyx.shape[2]) < columns.mean())
        sources = {s: Source.PREDICTED if s is Structure.FLR else Source.GIVEN for s in masks}
        if on_folds:
            on_folds[Structure.FLR](tuple(fold * masks[Structure.FLR].astype(np.uint8) for fold in (255, 51)))
        return CascadeResult(ct, masks, sources, {}, {}, ())


@pytest.fixture(scope="module")
def instant(demo_store: ModelStore) -> Cascade:
    return _Instant(demo_store, CascadeSettings(device="cpu"))


def test_a_given_resection_is_the_plan_and_the_predicted_one_stands_beside_it(
    instant: Cascade, ct: CT, truth: dict[Structure, Mask], tmp_path: Path
) -> None:
    given = {"liver": truth[Structure.LIVER], "crlm": truth[Structure.CRLM]}
    predicted = flrplan.plan(ct, **given, cascade=instant)
    plan = flrplan.plan(ct, **given, resection=truth[Structure.LRS], at_least=40, cascade=instant)
    assert np.array_equal(plan.masks[Structure.FLR], truth[Structure.FLR])
    assert (plan.flr_source, plan.sources[Structure.FLR]) == ("given", "given")
    assert list(plan.compared) == ["predicted", "at least 40 %"]
    assert plan.compared["predicted"].volumes == predicted.volumes
    least = plan.compared["at least 40 %"]
    assert 0.40 <= least.volumes.flr_fraction < 0.43, "less than one layer of this small grid"
    assert "arithmetic, not advice" in least.remark
    report = json.loads(json.dumps(plan.report()))
    assert report["inputs"]["flr"] == "given"
    assert report["compared"]["predicted"]["volumes"] == predicted.volumes.to_json()
    assert report["compared"]["at least 40 %"]["remark"] == least.remark
    assert np.array_equal(flrplan.plan(ct, **given, flr=truth[Structure.FLR], cascade=instant).label_zyx, plan.label_zyx)


def test_a_map_of_segments_is_read_for_the_plan_and_for_those_beside_it(
    instant: Cascade, ct: CT, truth: dict[Structure, Mask], tmp_path: Path
) -> None:
    liver = truth[Structure.LIVER]
    columns = np.flatnonzero(liver.any(axis=(0, 1)))
    stripes = np.clip(8 * (np.arange(liver.shape[2]) - columns[0]) // (np.ptp(columns) + 1) + 1, 1, 8)
    given = {"liver": liver, "crlm": truth[Structure.CRLM], "cascade": instant}
    array = np.where(liver, stripes, 0)
    plan = flrplan.plan(ct, **given, resection=truth[Structure.LRS], at_least=40, liver_segments=array)
    report = json.loads(json.dumps(plan.report()))
    for one, volumes in ((report, plan.volumes), *((report["compared"][n], p.volumes) for n, p in plan.compared.items())):
        for of, key in ((volumes.liver_ml, "volume_ml"), (volumes.lrs_ml, "resected_ml")):
            assert sum(s[key] for s in one["segments"]) == pytest.approx(of, abs=1e-3)
        assert all(sum(s["fraction"] for s in n["segments"]) == pytest.approx(1, abs=1e-5) for n in one["lesions"])
    predicted = report["compared"]["predicted"]["segments"]
    assert [s["resected_fraction"] for s in predicted] != [s["resected_fraction"] for s in report["segments"]]
    assert "a given map (Couinaud, Le foie, Masson 1957); 0.0 ml" in report["settings"]["liver segments"]
    array[:] = 0  # before anything of another plan is looked at
    assert plan.segments is not None
    assert plan.segments.label_zyx.any()
    with pytest.raises(LabelError, match=r"the given liver_segments: expected a map of liver segments.*found the values \[0\]"):
        flrplan.plan(ct, **given, liver_segments=array)
    with pytest.raises(GridError, match="the given liver_segments has shape"):
        flrplan.plan(ct, **given, liver_segments=array[1:])
    beside = np.where(liver, 0, 1 + np.arange(liver.shape[2]) % 8)
    with pytest.raises(LabelError, match="the given liver_segments: 0 % of its liver segments lie in the liver of this CT"):
        flrplan.plan(ct, **given, liver_segments=beside)


def test_where_the_folds_differ_is_saved_beside_a_given_resection_as_well(
    instant: Cascade, ct: CT, truth: dict[Structure, Mask]
) -> None:
    given = {"liver": truth[Structure.LIVER], "crlm": truth[Structure.CRLM], "flr": truth[Structure.FLR]}
    plan = flrplan.plan(ct, **given, disagreement=True, cascade=instant)
    assert plan.disagreement_zyx is not None
    assert set(np.unique(plan.disagreement_zyx)) == {0, 40}, "100 % and 20 % of the predicted remnant"


def test_a_plane_cuts_and_says_which_side_it_took(instant: Cascade, ct: CT, truth: dict[Structure, Mask]) -> None:
    given = {"liver": truth[Structure.LIVER], "crlm": truth[Structure.CRLM]}
    x = float(ct.geometry.world_mm(np.argwhere(truth[Structure.LIVER])[:, ::-1].mean(axis=0)[None])[0, 0])
    plane = Plane((x, 0.0, 0.0), (1.0, 0.0, 0.0))
    plan = flrplan.plan(ct, **given, cut=plane, cascade=instant)
    other = flrplan.plan(ct, **given, cut=plane, other_side=True, cascade=instant)
    assert np.array_equal(plan.masks[Structure.FLR] ^ other.masks[Structure.FLR], truth[Structure.LIVER])
    assert any("given cut: the side" in warning and "--other-side" in warning for warning in plan.warnings)


def test_numbers_of_numpy_and_links_to_nothing_are_in_a_request_like_any_other(
    instant: Cascade, ct: CT, truth: dict[Structure, Mask], tmp_path: Path
) -> None:
    files = {"ct": ct.array_zyx, "liver": truth[Structure.LIVER], "crlm": truth[Structure.CRLM]}
    for name, array in files.items():
        sitk.WriteImage(ct.geometry.image(array), str(tmp_path / f"{name}.nii.gz"))
    image, liver, crlm = (str(tmp_path / f"{name}.nii.gz") for name in files)
    x = float(ct.geometry.world_mm(np.argwhere(truth[Structure.LIVER])[:, ::-1].mean(axis=0)[None])[0, 0])
    kinds: tuple[Any, ...] = (tuple, np.asarray)
    plain, of_numpy = (
        flrplan.plan(image, liver=liver, crlm=crlm, cut=Plane(kind([x, 0, 0]), kind([1, 0, 0])), at_least=kind([30])[0], cascade=instant)
        for kind in kinds
    )  # fmt: skip
    assert json.loads(json.dumps(of_numpy.report()))["request"] == plain.request
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nothing")
    assert request_of(tmp_path, {}, {})["ct"][1] == sum((tmp_path / f"{name}.nii.gz").stat().st_size for name in files)


@pytest.mark.parametrize("of", ["remnant", "resection"])
def test_everything_on_one_side_is_told_and_has_no_alternative(
    of: str, instant: Cascade, ct: CT, truth: dict[Structure, Mask], tmp_path: Path
) -> None:
    liver, none = truth[Structure.LIVER], np.zeros_like(truth[Structure.CRLM])
    plan = flrplan.plan(ct, liver=liver, crlm=none, flr=liver if of == "resection" else none, at_least=30, cascade=instant)
    assert f"the {of} is empty" in plan.warnings
    assert "at least 30 %: the plan has no cut to move, so no other resection was computed" in plan.warnings
    plan.save(tmp_path / "plan")
    assert (tmp_path / "plan" / "report.pdf").is_file()


def test_metastases_of_another_ct_are_refused(instant: Cascade, ct: CT, truth: dict[Structure, Mask]) -> None:
    """They would count as none; a part outside the liver is only told."""
    elsewhere = (ct.array_zyx < -500) & ~truth[Structure.LIVER]
    for liver in ({"liver": truth[Structure.LIVER]}, {}):
        with pytest.raises(
            LabelError, match=r"the given crlm \(.* ml\) lies outside the liver; give one that was drawn on this CT"
        ):
            flrplan.plan(ct, **liver, crlm=elsewhere, cascade=instant)
    plan = flrplan.plan(ct, liver=truth[Structure.LIVER], crlm=elsewhere | truth[Structure.CRLM], cascade=instant)
    assert any("CRLM voxels lie outside the liver" in warning for warning in plan.warnings)
    empty = flrplan.plan(ct, liver=truth[Structure.LIVER], crlm=np.zeros_like(elsewhere), cascade=instant)
    assert empty.volumes.crlm_ml == 0


def test_a_resection_that_cannot_be_one_is_told(instant: Cascade, ct: CT, truth: dict[Structure, Mask], tmp_path: Path) -> None:
    given = {"liver": truth[Structure.LIVER], "crlm": truth[Structure.CRLM], "cascade": instant}
    flr = truth[Structure.FLR]
    moved = replace(ct.geometry, origin_mm=(500.0, 0.0, 0.0))
    sitk.WriteImage(moved.image(flr), str(tmp_path / "moved.nii.gz"))
    with pytest.raises(SettingsError, match="a resection is given in one way, got flr and cut; leave out all but one"):
        flrplan.plan(ct, **given, flr=flr, cut="plane.mrk.json")
    with pytest.raises(SettingsError, match="the other side is one of a cut"):
        flrplan.plan(ct, **given, flr=flr, other_side=True)
    with pytest.raises(GridError, match=r"moved\.nii\.gz is not on the grid of"):
        flrplan.plan(ct, **given, flr=tmp_path / "moved.nii.gz")
    with pytest.raises(LabelError, match=r"the given FLR \(.* ml\) lies outside the liver"):
        flrplan.plan(ct, **given, flr=~truth[Structure.LIVER])
    with pytest.raises(LabelError, match="the plane misses the liver"):
        flrplan.plan(ct, **given, cut=Plane((9999.0, 0.0, 0.0), (1.0, 0.0, 0.0)))
    with pytest.raises(LabelError, match=r"nothing.stl: the cut cannot be read"):
        flrplan.plan(ct, **given, cut=tmp_path / "nothing.stl")
    with pytest.raises(LabelError, match="the given cut: the mesh has no triangle"):
        flrplan.plan(ct, **given, cut=Mesh.empty())
    with pytest.raises(SettingsError, match="cut: expected a file, a Plane or a Mesh"):
        flrplan.plan(ct, **given, cut=(0, 0, 0, 1, 0, 0))  # type: ignore[arg-type]
