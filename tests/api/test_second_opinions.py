"""Second opinions of further architectures: whom they are asked about, what they change, and what is said and kept of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flrplan.anatomy import Mask, Structure, to_compartments
from flrplan.api.calibrate import calibrate
from flrplan.api.plan import plan
from flrplan.api.run_plan import run_plan
from flrplan.cli import main
from flrplan.engine import MODEL_ROOT, Cascade, CascadeSettings, ModelStore
from flrplan.errors import ModelError, SettingsError
from flrplan.image import CT, Geometry, write_label_map, write_volume
from flrplan.method import CASCADE, FLR, FLR_E2E, LIVER, CascadeResult, Source, Stage
from flrplan.method.engine import APP_ENGINE
from flrplan.networks import STUNET
from flrplan.networks.stunet import STUNet
from flrplan.nnunet.model import StagePredictor, load_checkpoint
from flrplan.planning import Plan
from flrplan.planning.calibration import CALIBRATION_NAME, Calibration, settings_of_run
from flrplan.planning.report import report_content
from flrplan.workfolder import FINAL_CHECKPOINT

GEOMETRY = Geometry((40, 36, 24), (2.0, 3.0, 4.0))
BOX = (slice(2, 22), slice(3, 33), slice(5, 35))
"""The liver: 30 columns."""
LIVER_MASK = np.zeros(GEOMETRY.shape_zyx, np.bool_)
LIVER_MASK[BOX] = True
CRLM_MASK = np.zeros_like(LIVER_MASK)
CRLM_MASK[8:10, 10:12, 28:30] = True
COLUMNS = {"nnunet": 15, "stunet": 18, "swinunetr": 15}
"""How many columns of the liver each architecture leaves."""


class _Halves(Cascade):
    """Loads no network: the FLR is the first columns of the liver, and both folds say so."""

    def run(
        self,
        ct: CT,
        given: Mapping[Structure, Mask] | None = None,
        stages: Sequence[Stage] = CASCADE,
        on_step: Any = None,
        on_probability: Any = None,
        on_folds: Any = None,
    ) -> CascadeResult:
        masks = {Structure.LIVER: LIVER_MASK, Structure.CRLM: CRLM_MASK, **(given or {})}
        sources = {s: Source.GIVEN if s in (given or {}) else Source.PREDICTED for s in masks}
        models, seconds = {}, {}
        for stage in stages:
            if on_step is not None:
                on_step(f"{ct.name}: {stage}")
            models[stage.name] = self.identity(stage)
            seconds[f"{stage}_predict"] = 1.0
        if any(Structure.FLR in stage.targets for stage in stages):
            flr = np.zeros_like(LIVER_MASK)
            flr[:, :, : BOX[2].start + COLUMNS[self.settings.architecture]] = True
            masks[Structure.FLR] = flr & masks[Structure.LIVER]
            sources[Structure.FLR] = Source.PREDICTED
            probability = masks[Structure.FLR] * np.uint8(255)
            if on_probability is not None:
                on_probability(Structure.FLR, probability)
            if on_folds is not None:
                on_folds[Structure.FLR]((probability, probability))
        return CascadeResult(
            ct,
            masks,
            sources,
            models,
            seconds,
            (f"said by {self.settings.architecture}", "said by all", "flr: said of each model"),
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the demo models an FLR model of a real, narrow STU-Net with random weights, two folds."""
    root = tmp_path_factory.mktemp("models")
    folder = root / "flr" / "stunet"
    shutil.copytree(MODEL_ROOT / "demo" / "flr" / "nnunet", folder, ignore=shutil.ignore_patterns("training_cohort.json"))
    plans = json.loads((folder / "plans.json").read_text())
    strides = [[1, 1, 1], *([[2, 2, 2]] * 3), [1, 1, 1], [1, 1, 1]]
    network = {**STUNET.size("narrow"), "strides": strides}
    plans["configurations"]["3d_fullres"]["architecture"] = {
        "network_class_name": STUNET.network,
        "arch_kwargs": network,
        "_kw_requires_import": [],
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    for fold in (0, 1):
        path = folder / f"fold_{fold}" / FINAL_CHECKPOINT
        content = load_checkpoint(path)
        with torch.random.fork_rng():
            torch.manual_seed(fold)
            content["network_weights"] = STUNet(2, 1, **network).state_dict()
        torch.save(content, path)
    return root


@pytest.fixture(scope="module")
def store(root: Path) -> ModelStore:
    return ModelStore(root, demo=MODEL_ROOT / "demo")


@pytest.fixture(scope="module")
def ct() -> CT:
    hu = np.where(LIVER_MASK, 100, -1000).astype(np.int16)
    return CT(hu, GEOMETRY, "case-1", "synthetic")


def halves(store: ModelStore, *also: str) -> Cascade:
    return _Halves(store, CascadeSettings(device="cpu", also=also))


@pytest.fixture(scope="module")
def alone(store: ModelStore, ct: CT) -> Plan:
    return run_plan(halves(store), ct, {}, disagreement=True)


@pytest.fixture(scope="module")
def both(store: ModelStore, ct: CT) -> Plan:
    return run_plan(halves(store, "stunet"), ct, {}, disagreement=True)


def test_the_plan_stays_that_of_the_first_architecture_and_the_others_fraction_stands_beside_it(
    alone: Plan, both: Plan
) -> None:
    assert np.array_equal(both.label_zyx, alone.label_zyx)
    assert both.interval is not None
    assert alone.interval is not None
    assert alone.interval.architecture_fractions == {}
    assert alone.interval.to_json()["architecture_flr_fractions"] == {}
    assert both.interval.fold_fractions == alone.interval.fold_fractions
    assert [*both.interval.architecture_fractions] == ["nnunet", "stunet"]
    assert both.interval.architecture_fractions["nnunet"] == pytest.approx(both.volumes.flr_fraction)
    # 15 and 18 of 30 columns; the metastasis of 8 voxels lies in the resection of both.
    expected = [columns * 20 * 30 / (30 * 20 * 30 - 8) for columns in (15, 18)]
    assert [*both.interval.architecture_fractions.values()] == pytest.approx(expected, abs=4e-3)
    assert both.interval.describe().endswith("; FLR of each architecture's own plan: nnunet 50 %, stunet 60 %")
    assert "flrplan calibrate --also stunet makes one" in both.interval.describe()


def test_architectures_that_differ_by_more_than_the_plan_is_unsure_at_are_a_warning(
    alone: Plan, both: Plan, store: ModelStore, ct: CT, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [w for w in both.warnings if "the architectures differ" in w]
    assert len(said) == 1
    assert "differ by 10 points" in said[0]
    assert "nnunet 50 %, stunet 60 %" in said[0]
    assert not any("architectures differ" in w for w in alone.warnings)
    monkeypatch.setitem(COLUMNS, "stunet", 16)  # 3 points
    assert not any("architectures differ" in w for w in run_plan(halves(store, "stunet"), ct, {}).warnings)


def test_report_and_record_name_the_models_of_all_and_what_each_said_once(both: Plan) -> None:
    content = json.loads(json.dumps(both.report()))
    assert [*content["models"]] == ["liver", "crlm", "flr", "flr/stunet"]
    assert content["models"]["flr/stunet"]["architecture"] == "stunet"
    assert content["seconds"]["flr/stunet_predict"] == 1.0
    assert content["interval"]["architecture_flr_fractions"]["stunet"] == pytest.approx(0.6, abs=4e-3)
    assert [w for w in both.result.warnings if w.startswith(("said", "stunet"))] == [
        "said by nnunet",
        "said by all",
        "stunet: said by stunet",
        "stunet: flr: said of each model",
    ]
    page = report_content(both, with_scene=False)
    rows = [row for table in (*page.tables, *page.made_of) for row in table.rows]
    assert ("FLR of each architecture's own plan", "nnunet 50 %, stunet 60 %") in rows
    assert "flr/stunet" in [row[0] for row in rows]


def test_beside_a_given_resection_the_predicted_plan_says_what_each_architecture_says(store: ModelStore, ct: CT) -> None:
    resected = LIVER_MASK & (np.arange(LIVER_MASK.shape[2]) >= 25)
    mine = plan(ct, cascade=halves(store, "stunet"), resection=resected, at_least=40)
    content = json.loads(json.dumps(mine.report()))
    assert content["interval"] is None
    beside = content["compared"]["predicted"]["interval"]["architecture_flr_fractions"]
    assert beside == pytest.approx({"nnunet": 0.5, "stunet": 0.6}, abs=4e-3)
    assert content["compared"]["at least 40 %"]["interval"] is None
    (table,) = [t for t in report_content(mine, with_scene=False).tables if t.title == "Beside it"]
    assert ("FLR of each architecture's own plan", "none", "nnunet 50 %, stunet 60 %", "none") in table.rows


@pytest.mark.parametrize("raw", [False, True], ids=["coherent", "raw"])
def test_the_disagreement_is_of_the_folds_of_all(raw: bool, store: ModelStore, ct: CT, alone: Plan) -> None:
    steps: list[str] = []
    found = run_plan(halves(store, "stunet"), ct, {}, (*CASCADE,), steps.append, raw, disagreement=True).disagreement_zyx
    expected = np.zeros(LIVER_MASK.shape, np.uint8)
    expected[BOX[0], BOX[1], 20:23] = 50  # columns 15 to 17 of the liver: two folds say 0 %, two 100 %
    assert np.array_equal(found, expected)  # type: ignore[arg-type]
    assert not alone.disagreement_zyx.any()  # type: ignore[union-attr]
    assert steps[-1] == "case-1: flr, second opinion by stunet"


def test_nobody_is_asked_where_there_is_nothing_to_be_asked_about(store: ModelStore, ct: CT) -> None:
    steps: list[str] = []
    cascade = halves(store, "stunet")
    raw = run_plan(cascade, ct, {}, CASCADE, steps.append, raw=True)
    assert any("second opinions were not asked for: a raw plan has no interval" in w for w in raw.result.warnings)
    run_plan(cascade, ct, {}, (LIVER,), steps.append)
    run_plan(cascade, ct, {Structure.CRLM: LIVER_MASK}, CASCADE, steps.append)  # no parenchyma
    assert len(steps) == 3 + 1 + 3
    assert not any("second opinion" in step for step in steps)
    e2e = run_plan(cascade, ct, {Structure.LIVER: LIVER_MASK, Structure.CRLM: CRLM_MASK}, (FLR_E2E,), steps.append)
    assert e2e.interval is not None
    assert steps[-1] == "case-1: flr_e2e", "they are asked about what the stage flr predicted"
    assert e2e.interval.architecture_fractions == {}
    for disagreement, said in ((False, None), (True, "stunet")):
        planned = plan(ct, cascade=cascade, raw=True, disagreement=disagreement)
        assert planned.settings.get("second opinions on the remnant") == said


@pytest.mark.parametrize("raw", [False, True], ids=["coherent", "raw"])
def test_a_missing_model_is_told_before_anything_is_predicted(raw: bool, store: ModelStore, ct: CT) -> None:
    steps: list[str] = []
    with pytest.raises(
        ModelError,
        match=r"second opinion by swinunetr: no swinunetr model for stage flr: looked in .*flr/swinunetr.* Train one .*"
        "; or plan without it",
    ):
        run_plan(halves(store, "stunet", "swinunetr"), ct, {}, CASCADE, steps.append, raw, disagreement=True)
    assert steps == []


@pytest.mark.parametrize(
    ("also", "said"),
    [
        (("nnunet",), "second opinions: nnunet makes the plan itself; name others"),
        (("stunet", "swinunetr", "stunet"), "second opinions: stunet is named twice"),
        (("unet",), "second opinions: unknown architecture 'unet'; known are nnunet, swinunetr, stunet"),
        ("stunet", "second opinions: expected a list of architectures, got 'stunet'"),
        (None, "second opinions: expected a list of architectures, got None"),
    ],
)
def test_second_opinions_that_are_none_are_refused(also: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        CascadeSettings(also=also)


def test_in_which_order_they_are_named_makes_no_difference() -> None:
    assert CascadeSettings(also=("swinunetr", "stunet")).architectures == ("nnunet", "stunet", "swinunetr")
    assert CascadeSettings("stunet", also=("swinunetr", "nnunet")).architectures == ("stunet", "nnunet", "swinunetr")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, ct: CT) -> Path:
    """One case whose true remnant is 18 columns, by an id that the demo models have learned from, and one that they have not."""
    folder = tmp_path_factory.mktemp("cases")
    flr = np.zeros_like(LIVER_MASK)
    flr[:, :, :23] = True
    write_volume(folder / "images" / "case-1.nii.gz", ct.array_zyx, GEOMETRY)
    write_label_map(folder / "labels" / "case-1.nii.gz", to_compartments(LIVER_MASK, CRLM_MASK, flr & LIVER_MASK)[0], GEOMETRY)
    return folder


def test_a_calibration_is_of_all_architectures_that_took_part(
    cases: Path, root: Path, store: ModelStore, ct: CT, both: Plan
) -> None:
    out = root / CALIBRATION_NAME
    one = calibrate(cases, out, halves(store))
    two = calibrate(cases, out, halves(store, "stunet"))
    assert [*json.loads(out.read_text())] == ["schema", "nnunet", "nnunet+stunet"]
    assert [*two.models] == ["liver", "crlm", "flr", "flr/stunet"]
    known = two.cases["case-1"]["predicted"].evidence
    assert known.architecture_fractions == pytest.approx({"nnunet": 0.5, "stunet": 0.6}, abs=4e-3)
    assert "architecture_fractions" not in json.loads(out.read_text())["nnunet"]["cases"]["case-1"]["predicted"]
    assert Calibration.read(out, "nnunet", "stunet") is not None
    assert Calibration.read(out, "nnunet", "stunet", "swinunetr") is None
    settings = settings_of_run(False, True)
    with_opinion = both.result.models
    without = {stage: model for stage, model in with_opinion.items() if stage != "flr/stunet"}
    retrained = {**with_opinion, "flr/stunet": replace(with_opinion["flr/stunet"], weights_sha256={"0": "others"})}
    assert two.is_of(with_opinion, settings)
    assert two.is_of({name: with_opinion[name] for name in ("flr", "flr/stunet")}, settings)  # liver and metastases given
    assert one.is_of(without, settings)
    assert not two.is_of(without, settings)
    assert not one.is_of(with_opinion, settings)
    assert not two.is_of(retrained, settings)
    try:
        for cascade, architectures in ((halves(store), 0), (halves(store, "stunet"), 2)):
            interval = run_plan(cascade, ct, {}).interval
            assert interval is not None
            assert "the models met 0 cases with these inputs" in interval.describe()  # label QC is against so small a liver
            assert len(interval.architecture_fractions) == architectures
    finally:
        out.unlink()


def test_cases_that_the_model_of_a_second_opinion_has_learned_from_are_refused(
    cases: Path, root: Path, tmp_path: Path, store: ModelStore
) -> None:
    run = root / "flr" / "stunet" / "fold_1" / "run.json"
    before = run.read_text()
    run.write_text(json.dumps({**json.loads(before), "train_ids": ["case-1"]}))
    try:
        with pytest.raises(SettingsError, match=r"flr/stunet, fold 1 has learned from 1 of these cases \(case-1\)"):
            calibrate(cases, tmp_path / CALIBRATION_NAME, halves(store, "stunet"))
    finally:
        run.write_text(before)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, cases: Path, root: Path, ct: CT) -> Path:
    """A plan by the command, with the networks themselves, liver and metastases given."""
    folder = tmp_path_factory.mktemp("planned")
    for name, mask in (("liver", LIVER_MASK), ("crlm", CRLM_MASK)):
        write_label_map(folder / f"{name}.nii.gz", mask.astype(np.uint8), GEOMETRY)
    assert main(command(folder, cases, root, "--also", "stunet", "--disagreement")) == 0
    return folder


def command(folder: Path, cases: Path, root: Path, *options: str) -> list[str]:
    masks = [word for name in ("liver", "crlm") for word in (f"--{name}", str(folder / f"{name}.nii.gz"))]
    where = ["--out", str(folder / "plans"), "--models", str(root), "--device", "cpu"]
    return ["plan", str(cases / "images" / "case-1.nii.gz"), *masks, *where, *options]


def test_networks_of_another_kind_answer_as_a_second_opinion_and_once(
    planned: Path, root: Path, ct: CT, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((planned / "plans" / "case-1" / "plan.json").read_text())
    assert content["settings"]["second opinions on the remnant"] == "stunet"
    assert content["request"]["options"]["also"] == ["stunet"]
    assert content["models"]["flr/stunet"]["folder"] == "flr/stunet"
    assert content["models"]["flr/stunet"]["weights_sha256"] != content["models"]["flr"]["weights_sha256"]
    ran: list[str] = []
    predict: Any = StagePredictor._predict

    def counted(self: StagePredictor, *arguments: Any) -> Any:
        ran.append(f"{self.stage}/{self.folder.path.name}")
        return predict(self, *arguments)

    monkeypatch.setattr(StagePredictor, "_predict", counted)
    given = {Structure.LIVER: LIVER_MASK, Structure.CRLM: CRLM_MASK}
    store = ModelStore(root)
    by_itself = run_plan(Cascade(store, CascadeSettings("stunet", "cpu", engine=APP_ENGINE)), ct, given, (FLR,))
    fractions = content["interval"]["architecture_flr_fractions"]
    assert fractions["stunet"] == pytest.approx(by_itself.volumes.flr_fraction, abs=1e-3)
    assert fractions["nnunet"] == pytest.approx(content["volumes"]["flr_fraction"], abs=1e-4)
    for _ in range(2):
        both = run_plan(Cascade(store, CascadeSettings(device="cpu", engine=APP_ENGINE, also=("stunet",))), ct, given)
        assert both.interval is not None
        assert both.interval.architecture_fractions == pytest.approx(fractions, abs=1e-3)
    assert ran == ["flr/stunet", "flr/nnunet"], "kept, and not predicted again"


def test_a_plan_with_other_second_opinions_is_another_request(
    planned: Path, cases: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(planned, cases, root, "--also", "stunet", "--disagreement")) == 0
    assert "already planned, kept" in capsys.readouterr().err
    assert main(command(planned, cases, root, "--disagreement")) == 1
    assert "was made of something else (" in (said := capsys.readouterr().err)
    assert "options.also was ['stunet'], is None" in said
    assert main(command(planned, cases, root, "--also", "nnunet")) == 1
    assert "second opinions: nnunet makes the plan itself" in capsys.readouterr().err
