"""The comparison with nnU-Net's own commands: widened networks, tiles and GFLOP by hand, a side that fails, the small size as a whole."""

from __future__ import annotations

import importlib
import json
import operator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

import speed
import speed_side
import speed_work
from flrplan.anatomy import Compartment, Structure
from flrplan.engine import DEMO_NAME, MODEL_ROOT
from flrplan.image import CT, Geometry, read_label_map
from flrplan.method import LIVER, CascadeResult, Source, build_stage_input
from flrplan.nnunet.model import ModelFolder
from flrplan.planning import Plan
from speed_report import goals
from widened import widen, write_widened


def unet(features: list[int], seed: int) -> PlainConvUNet:
    """Three resolutions, anisotropic kernels and strides, two channels in, one out."""
    torch.manual_seed(seed)
    network = PlainConvUNet(
        input_channels=2,
        n_stages=3,
        features_per_stage=features,
        conv_op=nn.Conv3d,
        kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        n_conv_per_stage=2,
        num_classes=1,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
    )
    for parameter in network.parameters():  # also norms and biases that are not 1 and 0
        nn.init.uniform_(parameter, 0.5, 1.5) if parameter.ndim == 1 else nn.init.normal_(parameter)
    return network.eval()


def test_a_widened_network_answers_as_the_narrow_one() -> None:
    narrow, wide = unet([2, 3, 4], 0), unet([5, 8, 9], 1)
    image = torch.randn(1, 2, 8, 16, 12)
    with torch.inference_mode():
        expected, before = narrow(image), wide(image)
        wide.load_state_dict(widen(narrow.state_dict(), wide.state_dict()))
        after = wide(image)
    assert expected.std() > 0.1
    assert not torch.allclose(before, expected, atol=0.1)
    assert torch.allclose(after, expected, atol=1e-4)
    added = wide.encoder.stages[0][0].convs[1].conv.weight[2:]
    assert (added != 0).all(), "the added channels compute something, from old channels and new ones"


def test_widening_another_topology_is_refused() -> None:
    narrow = unet([2, 3, 4], 0).state_dict()
    with pytest.raises(KeyError, match="encoder"):
        widen({name: w for name, w in narrow.items() if "stages.2" not in name}, unet([5, 8, 9], 1).state_dict())


def test_a_plan_without_a_trained_network_calls_everything_foreground(tmp_path: Path) -> None:
    plans = json.loads((MODEL_ROOT / DEMO_NAME / "liver" / "nnunet" / "plans.json").read_text())
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    for key, value in {"n_stages": 2, "n_conv_per_stage_decoder": [1]}.items():
        arguments[key] = value
    for key in ("kernel_sizes", "strides", "n_conv_per_stage"):
        arguments[key] = arguments[key][:2]
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    (narrow / "plans.json").write_text(json.dumps(plans))
    (narrow / "dataset.json").write_text((MODEL_ROOT / DEMO_NAME / "liver" / "nnunet" / "dataset.json").read_text())
    assert write_widened(narrow, tmp_path / "wide", 3) is False
    wide = ModelFolder.open(tmp_path / "wide")
    assert wide.folds == (0, 1, 2)
    assert wide.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64]
    weights = torch.load(wide.checkpoint(2), weights_only=True)["network_weights"]
    assert weights["decoder.seg_layers.0.bias"].item() == 100


def test_tiles_by_hand() -> None:
    """nnU-Net's grid: as many steps of at most half a patch as are needed, evenly spread; a small side is padded to one patch."""
    assert speed_work.tile_origins((24, 512, 512), (16, 320, 320)) == [
        (z, y, x) for z in (0, 8) for y in (0, 96, 192) for x in (0, 96, 192)
    ]
    assert speed_work.tile_origins((5, 20, 10), (8, 10, 10)) == [(0, y, 0) for y in (0, 5, 10)]


def test_tiles_that_hold_liver() -> None:
    """The demo model: 4 mm, patch 48 x 80 x 80. 48 x 160 x 80 voxels of 4 mm take three tiles along y, at 0, 40 and 80."""
    folder = ModelFolder.open(MODEL_ROOT / DEMO_NAME / "liver" / "nnunet")
    geometry = Geometry((80, 160, 48), (4, 4, 4))
    given = build_stage_input(np.zeros((48, 160, 80), np.int16), geometry, {}, LIVER)
    liver = np.zeros((48, 160, 80), bool)
    liver[20:25, 90:100, 30:40] = True  # in the tiles at 40 (to 120) and 80, not in that at 0 (to 80)
    work = speed_work.stage_work(folder, given, liver)
    assert (work["tiles"], work["tiles_with_liver"], work["folds"]) == (3, 2, 2)
    assert work["parameters"] == pytest.approx(0.88e6, rel=0.01)
    assert work["gflop"] == pytest.approx(6 * work["gflop_per_tile"])
    assert work["gflop_with_liver"] == pytest.approx(4 * work["gflop_per_tile"])


def test_ratios_are_those_of_peers_to_ours_and_dice_by_hand() -> None:
    sides = {
        "chain": {"wall_s": 60.0, "cpu_s": 90.0, "peak_bytes": 3e9},
        "cold fast": {"wall_s": 20.0, "cpu_s": 45.0, "peak_bytes": 1e9},
    }
    theirs = np.array([[[1, 1, 2, 0]]], np.uint8)  # liver 3, FLR 2
    ours = np.array([[[1, 2, 2, 2]]], np.uint8)  # liver 4, FLR 1
    found = speed.compare(sides, {"chain": theirs, "cold fast": ours}, truth=ours)
    assert found["ratios"] == {"chain / cold fast": {"wall_s": 3.0, "cpu_s": 2.0, "peak_bytes": 3.0}}
    assert found["agreement_dice"]["chain, cold fast"]["liver"] == pytest.approx(6 / 7)
    assert found["agreement_dice"]["chain, cold fast"]["flr"] == pytest.approx(2 / 3)
    assert np.isnan(found["agreement_dice"]["chain, cold fast"]["crlm"])
    assert found["truth_dice"]["cold fast"]["liver"] == 1.0
    assert goals({"size": "default-24", **found}) == [
        "goal: wall, chain / cold fast: 3.00, at least 6",
        "goal: peak memory, chain / cold fast: 3.00, at least 2",
        "goal: agreement, chain and cold fast: 0.6667, at least 0.995",
    ]


@pytest.mark.parametrize(("module", "path"), [f for functions in speed_side.PHASES.values() for f in functions])
def test_what_is_timed_is_there(module: str, path: str) -> None:
    """A function that was renamed would be an error of every side that imports it, and one that moved be missed in silence."""
    assert callable(operator.attrgetter(path)(importlib.import_module(module)))


def test_compared_are_the_masks_of_the_networks_where_a_plan_made_others_of_them(tmp_path: Path) -> None:
    flat, geometry = np.ones((2, 2, 2), bool), Geometry((2, 2, 2), (1.0, 1.0, 3.0))
    one = np.arange(8).reshape(2, 2, 2) < 5

    def result(flr: np.ndarray) -> CascadeResult:
        masks = {Structure.LIVER: flat, Structure.CRLM: ~flat, Structure.FLR: flr}
        ct = CT(np.zeros((2, 2, 2), np.int16), geometry, "case", "test")
        return CascadeResult(ct, masks, dict.fromkeys(masks, Source.PREDICTED), {}, {}, ())

    for plan, remnant in ((Plan(result(flat), raw=result(one)), 5), (Plan(result(flat)), 8)):
        speed_side.write_raw(tmp_path / "planning.nii.gz", plan)
        assert np.count_nonzero(read_label_map(tmp_path / "planning.nii.gz")[0] == Compartment.REMNANT) == remnant


def test_a_side_that_fails_is_named_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "side.py"
    script.write_text("raise SystemExit('no such network')")
    monkeypatch.setattr(speed, "SIDE_SCRIPT", script)
    assert speed.main(["--size", "small", "--sides", "predictor", "cold", "--out", str(tmp_path / "out")]) == 1
    report = json.loads((tmp_path / "out" / "small.json").read_text())
    assert set(report["sides"]) == {"predictor", "cold fast"}
    assert "predictor ended with 1: no such network" in report["sides"]["predictor"]["failed"]
    assert "cold fast    failed" in capsys.readouterr().out


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file")
    assert speed.main(["--size", "small", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "out: cannot be made or written to" in said.err
    assert "chain" not in said.err


def test_a_side_that_is_named_twice_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "side.py").write_text("raise SystemExit('ran')")
    monkeypatch.setattr(speed, "SIDE_SCRIPT", tmp_path / "side.py")
    words = ["--size", "small", "--sides", "cold", "cold", "--engine", "fast", "fast", "--out", str(tmp_path / "out")]
    assert speed.main(words) == 1
    sides = json.loads((tmp_path / "out" / "small.json").read_text())["sides"]
    assert sides["cold fast"]["failed"].endswith("ran"), "not that its folder exists already"


def test_the_single_side_has_the_first_fold_of_each_stage_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "side.py"
    models = "Path(sys.argv[sys.argv.index('--models') + 1])"
    folds = f"sorted(str(f.relative_to({models})) for f in {models}.glob('*/*/fold_*'))"
    script.write_text(f"import sys; from pathlib import Path; raise SystemExit(' '.join({folds}))")
    monkeypatch.setattr(speed, "SIDE_SCRIPT", script)
    monkeypatch.setitem(speed.SIZES, "small", replace(speed.SIZES["small"], folds=2))
    assert speed.main(["--size", "small", "--sides", "cold", "single", "--out", str(tmp_path / "out")]) == 1
    sides = json.loads((tmp_path / "out" / "small.json").read_text())["sides"]
    assert sides["single fast"]["failed"].endswith("crlm/nnunet/fold_0 flr/nnunet/fold_0 liver/nnunet/fold_0")
    assert sides["cold fast"]["failed"].count("fold_") == 6


def test_the_work_of_the_single_side_is_that_of_one_fold() -> None:
    stages = {
        "liver": {"gflop": 60.0, "gflop_with_liver": 40.0, "folds": 5},
        "flr": {"gflop": 20.0, "gflop_with_liver": 20.0, "folds": 2},
    }
    side = {"wall_s": 10.0, "seconds": {"network": 2.0}}
    report = {
        "needed": {"stages": stages, "gflop": 80.0, "gflop_with_liver": 60.0},
        "gemm_peak": {"gflops": 20.0},
        "sides": {"cold fast": dict(side), "single fast": dict(side)},
    }
    speed.reached(report)
    sides: Any = report["sides"]
    assert (sides["cold fast"]["network_gflops"], sides["single fast"]["network_gflops"]) == (40, 11)  # 12 + 10 of 80
    assert report["bound_of_wall"] == pytest.approx({"cold fast": 0.3, "single fast": 0.09})  # (8 + 10) / 20 / 10


def test_slices_are_the_same_height_in_other_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [speed.in_slices(n).slice_mm for n in (24, 48, 240)] == [7.5, 3.75, 0.75]
    assert speed.main(["--slices", "2", "--out", str(tmp_path / "out")]) == 1
    assert "slices-2: --slices: expected 8 or more, got 2" in capsys.readouterr().err


def test_a_ct_of_ones_own_needs_the_demo_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--size", "default-24", "--ct", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "use --ct with --size demo" in capsys.readouterr().err
    assert speed.main(["--slices", "24", "--ct", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "--slices is of the synthetic CT; leave it out, or --ct" in capsys.readouterr().err


def _measured(out: Path, sides: list[str]) -> dict[str, Any]:
    assert speed.main(["--size", "small", "--sides", *sides, "--out", str(out)]) == 0
    assert (out / "small.png").stat().st_size > 10_000
    return dict(json.loads((out / "small.json").read_text()))


def test_our_side_at_the_small_size(tmp_path: Path) -> None:
    report = _measured(tmp_path, ["cold"])
    side = report["sides"]["cold fast"]
    assert side["network_calls"] == sum(w["tiles"] * w["folds"] for w in report["needed"]["stages"].values())
    assert 0 < side["seconds"]["network"] < side["wall_s"]
    assert side["cpu_s"] > 0
    assert side["peak_bytes"] > 3e8
    assert report["truth_dice"]["cold fast"]["liver"] > 0.8


@pytest.mark.slow
def test_all_sides_at_the_small_size(tmp_path: Path) -> None:
    report = _measured(tmp_path, list(speed.BY_DEFAULT))
    assert len({side["network_calls"] for side in report["sides"].values()}) == 1
    assert set(report["ratios"]) == {f"{peer} / {own}" for peer in ("chain", "predictor") for own in ("cold fast", "warm fast")}
    assert min(report["agreement_dice"]["chain, warm fast"].values()) >= 0.995
    assert min(report["agreement_dice"]["predictor, cold fast"].values()) >= 0.995
    walls = [report["sides"][side]["wall_s"] for side in ("warm fast", "cold fast", "chain")]
    assert walls == sorted(walls)
