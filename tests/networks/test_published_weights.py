"""Weights in the published format, written here: what is taken, what is new, what is refused and how it is said."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flrplan.errors import ModelError
from flrplan.networks import STUNET, ChannelMode
from flrplan.networks.published_weights import load_weights, size_of, spread_channels
from flrplan.networks.stunet import STUNet
from flrplan.nnunet.train.pretrained import read_weights

ISOTROPIC = [[1, 1, 1]] + [[2, 2, 2]] * 5
FIRST = ("conv_blocks_context.0.0.conv1.weight", "conv_blocks_context.0.0.conv3.weight")


def network(inputs: int, outputs: int, size: str = "narrow") -> STUNet:
    return STUNet(inputs, outputs, **STUNET.size(size), strides=ISOTROPIC)


def version_1(weights: dict[str, torch.Tensor], prefix: str = "module.") -> dict[str, Any]:
    """What nnU-Net 1 saves: the state under a name of its own, numbers of numpy in the curves."""
    return {
        "epoch": 4000,
        "state_dict": OrderedDict((prefix + name, tensor) for name, tensor in weights.items()),
        "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
        "lr_scheduler_state_dict": None,
        "plot_stuff": ([np.float64(-0.8)], [np.float32(-0.7)], [], [np.float64(0.9)]),
        "best_stuff": (np.float64(0.9), np.float64(-0.7), None),
        "amp_grad_scaler": {"scale": 65536.0, "_growth_tracker": 3},
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", ["v1", "v1 parallel", "v2"])
def test_published_forms(tmp_path: Path, form: str, zipped: bool) -> None:
    published = network(1, 105).state_dict()
    content: dict[str, Any] = {"network_weights": published, "trainer_name": "STUNetTrainer_base", "_best_ema": np.float64(0.9)}
    if form != "v2":
        content = version_1(published, "module." if form == "v1 parallel" else "")
    path = tmp_path / "base_ep4k.model"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_weights(path)
    assert set(found) == set(published)
    target = network(1, 1)
    report = load_weights(target, found, STUNET, 1, path.name)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, published[name]) or name.startswith("seg_outputs."), name
    assert sorted(report.fresh) == sorted(f"seg_outputs.{i}.{kind}" for i in range(5) for kind in ("weight", "bias"))
    assert set(report.skipped.values()) == {"new heads: the file has 105 outputs, this network 1"}
    heads = sum(width + 1 for width in (32, 32, 16, 8, 4))
    assert report.parameters - report.parameters_loaded == heads
    text = "\n".join(report.lines())
    assert "10 skipped" in text
    assert "start at random: seg_outputs.0.weight" in text


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (ChannelMode.REPEAT, [[6.0, 6.0, 6.0]]),
        (ChannelMode.DIVIDE, [[2.0, 2.0, 2.0]]),
        (ChannelMode.ZERO, [[6.0, 0.0, 0.0]]),
    ],
)
def test_more_input_channels(mode: ChannelMode, expected: list[list[float]]) -> None:
    kernel = torch.full((1, 1, 1, 1, 1), 6.0)
    assert spread_channels(kernel, 3, mode).flatten(1).tolist() == expected
    published = network(1, 1).state_dict()
    target = network(3, 1)
    report = load_weights(target, published, STUNET, 3, "file", mode)
    assert set(report.adapted) == set(FIRST)
    assert set(report.adapted.values()) == {f"1 input channel(s) spread over 3 ({mode.value})"}
    taken = target.state_dict()[FIRST[0]]
    assert torch.allclose(taken[:, :1], published[FIRST[0]] / (3 if mode is ChannelMode.DIVIDE else 1), rtol=1e-6)
    assert torch.equal(taken[:, 2], taken[:, 1])


def test_a_divided_kernel_sees_equal_channels_as_one() -> None:
    one, three = network(1, 1).eval(), network(3, 1).eval()
    load_weights(three, one.state_dict(), STUNET, 3, "file", ChannelMode.DIVIDE)
    given = torch.randn(1, 1, 32, 32, 64)
    with torch.no_grad():
        assert torch.allclose(three(given.expand(1, 3, -1, -1, -1))[0], one(given)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("spacing_mm", "warned"),
    [((1.5, 1.5, 1.5), False), ((1.08, 1.08, 2.09), False), ((1.5, 1.06, 1.06), True), ((2.11, 1.5, 1.5), True), (None, False)],
)
def test_published_weights_at_another_spacing(spacing_mm: tuple[float, float, float] | None, warned: bool) -> None:
    """1.5 / 1.4 = 1.071 and 1.5 x 1.4 = 2.1; nnU-Net's augmentation showed the weights no more than that."""
    published, ours = network(1, 105).state_dict(), network(1, 1).state_dict()
    report = load_weights(network(1, 1), published, STUNET, 1, "base_ep4k.model", spacing_mm=spacing_mm)
    assert report.to_json()["warnings"] == list(report.warnings)
    assert bool(report.warnings) == warned
    if spacing_mm is not None and warned:
        planned = " x ".join(map(str, spacing_mm))
        assert report.warnings[0] == (
            f"base_ep4k.model: the published weights of stunet were trained at 1.5 mm, this plan has {planned} mm, more than a factor "
            "1.4 apart; the pretraining may help less. To follow it, plan with spacing_zyx_mm: [1.5, 1.5, 1.5] in another --work folder"
        )
    assert not load_weights(network(1, 1), ours, STUNET, 1, "ours", spacing_mm=spacing_mm).warnings, (
        "a model of ours: its own plan"
    )


def test_the_wrong_size_is_named() -> None:
    with torch.device("meta"):
        base, large = network(1, 105, "base"), network(1, 1, "large")
    assert size_of(base.state_dict(), STUNET) == "base"
    assert size_of(large.state_dict(), STUNET) == "large"
    with pytest.raises(ModelError) as caught:
        load_weights(large, base.state_dict(), STUNET, 1, "base_ep4k.model")
    assert str(caught.value) == (
        "base_ep4k.model does not fit this stunet: conv_blocks_context.0.0.conv1.weight has shape 32x1x3x3x3, expected 64x1x3x3x3; "
        "the file holds stunet base; train with --size base, or give weights of the same architecture, size and plan"
    )


def test_a_missing_weight_is_named_and_nothing_is_loaded() -> None:
    published = network(1, 1).state_dict()
    del published["upsample_layers.3.conv.bias"]
    target = network(1, 1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ModelError, match=r"upsample_layers\.3\.conv\.bias is missing"):
        load_weights(target, published, STUNET, 1, "file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_weights_that_are_not_finite() -> None:
    published = network(1, 1).state_dict()
    published[FIRST[0]][0] = float("nan")
    with pytest.raises(ModelError, match=r"conv1\.weight holds NaN"):
        load_weights(network(1, 1), published, STUNET, 1, "file")


def test_the_plans_file_given_by_mistake(tmp_path: Path) -> None:
    path = tmp_path / "base_ep4k.model.pkl"
    path.write_bytes(pickle.dumps({"init": (), "name": "STUNetTrainer_base", "plans": {"num_stages": 1}}))
    with pytest.raises(
        ModelError, match=r"plans file of a checkpoint, it holds no weights; give the file beside it, base_ep4k\.model$"
    ):
        read_weights(path)
    renamed = path.rename(tmp_path / "base_ep4k.model")
    with pytest.raises(ModelError, match="damaged"):
        read_weights(renamed)


def test_truncated_missing_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "base_ep4k.model"
    with pytest.raises(ModelError, match="is missing"):
        read_weights(path)
    torch.save(version_1(network(1, 3).state_dict()), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match="damaged"):
        read_weights(path)
    torch.save({"epoch": 3, "network_weights": {}}, path)
    with pytest.raises(ModelError, match=r"expected tensors under network_weights or state_dict, found epoch, network_weights"):
        read_weights(path)


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "base_ep4k.model"
    content = {**version_1(network(1, 1).state_dict()), "plot_stuff": Attack(tmp_path / "was_run")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="could run code"):
        read_weights(path)
    assert not (tmp_path / "was_run").exists()
