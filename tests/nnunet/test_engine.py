"""Engines: which tiles are needed, networks by OpenVINO and without it, the folds that search where the first one found something."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from numpy.typing import NDArray
from torch import nn

from flrplan.anatomy import Mask, Structure
from flrplan.engine import MODEL_ROOT
from flrplan.errors import ImageError, SettingsError
from flrplan.image import CT, Geometry
from flrplan.method import LIVER, StageInput, build_stage_input
from flrplan.method.engine import ENGINES, Engine, engine_named
from flrplan.metrics.overlap import dice
from flrplan.nnunet.model import ModelFolder, StagePredictor, predictor
from flrplan.nnunet.model.openvino_network import OpenVinoNetwork, openvino
from flrplan.nnunet.model.tiles import needed_tiles

CPU = torch.device("cpu")
DEMO_LIVER = MODEL_ROOT / "demo" / "liver" / "nnunet"
needs_openvino = pytest.mark.skipif(openvino() is None, reason="OpenVINO is not installed")


def test_engines_by_name() -> None:
    assert engine_named("exact") == Engine(openvino=True)
    assert engine_named("fast,bfloat16=false") == Engine(openvino=True, region=True)
    assert [str(e) for e in (*ENGINES.values(), engine_named("nnunet,region=true"))] == ["nnunet", "exact", "fast", "region"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quick", "unknown engine 'quick'; known are nnunet, exact, fast"),
        ("fast,bfloat16=no", "expected SETTING=true or SETTING=false, found 'bfloat16=no'"),
        ("fast,tiles=true", "tiles"),
    ],
)
def test_an_engine_that_is_not_known_is_told(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        engine_named(text)


def test_a_tile_without_a_share_in_the_region_is_left_out() -> None:
    """Tiles of 16 voxels, 8 apart: sigma 2, so where the region ends 8 from the middle of the third the second has weight 1 and the
    third exp(-8), a share of 0.0003; where it ends 4 from both middles both have exp(-2), half each.
    """
    tiles = [(slice(0, 4), slice(0, 4), slice(x, x + 16)) for x in (0, 8, 16, 24)]
    region = np.zeros((4, 4, 40), bool)
    region[1:3, 1:3, 8:17] = True
    assert needed_tiles(tiles, region) == tiles[:2]
    region[1:3, 1:3, 8:21] = True
    assert needed_tiles(tiles, region) == tiles[:3]
    assert needed_tiles(tiles, np.zeros_like(region)) == tiles, "nothing is left out where nothing is known"


@pytest.mark.parametrize("place", range(58, 64))
def test_a_fragment_of_one_voxel_beside_a_large_organ_needs_its_tile(place: int) -> None:
    """Of a large region not every voxel is looked at."""
    tiles = [(slice(0, 48), slice(0, 48), slice(x, x + 32)) for x in (0, 32)]
    region = np.zeros((48, 48, 64), bool)
    region[:, :, :20] = True
    region[24, 24, place] = True
    assert needed_tiles(tiles, region) == tiles


@needs_openvino
def test_openvino_answers_as_pytorch() -> None:
    torch.manual_seed(0)
    network = PlainConvUNet(
        input_channels=2,
        n_stages=3,
        features_per_stage=[4, 8, 8],
        conv_op=nn.Conv3d,
        kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        n_conv_per_stage=1,
        num_classes=1,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
    ).eval()
    image = torch.randn(1, 2, 8, 24, 16)
    converted = OpenVinoNetwork(network, 2, (8, 24, 16), (2, 4, 4), bfloat16=False)
    with torch.inference_mode():
        expected = network(image)
        nn.init.zeros_(next(network.parameters()))
        assert torch.allclose(converted(image), expected, atol=1e-4), (
            "and it keeps its weights when the network gets other ones"
        )
    assert expected.std() > 0.01


@needs_openvino
def test_openvino_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    """openvino sends an event when it is imported, by a package that is installed with it."""
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('telemetry was loaded')")
    code = "from flrplan.nnunet.model.openvino_network import openvino; assert openvino() is not None"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def one_fold() -> ModelFolder:
    return ModelFolder.open(DEMO_LIVER).with_folds((0,))


@pytest.fixture(scope="module")
def by_pytorch(small_ct: CT, one_fold: ModelFolder) -> tuple[StageInput, Mask]:
    given = build_stage_input(small_ct.array_zyx, small_ct.geometry, {}, LIVER)
    return given, StagePredictor(one_fold, CPU).predict(given)[LIVER.target]


@needs_openvino
@pytest.mark.parametrize(("engine", "least"), [("exact", 0.999), ("fast", 0.995)])
def test_engines_agree_with_nnunet(
    by_pytorch: tuple[StageInput, Mask], one_fold: ModelFolder, engine: str, least: float
) -> None:
    given, expected = by_pytorch
    fast = StagePredictor(one_fold, CPU, engine=ENGINES[engine])
    found = fast.predict(given)[LIVER.target]
    assert isinstance(fast._network(0), OpenVinoNetwork)
    assert expected.sum() > 1000
    assert dice(expected, found) >= least


@pytest.mark.parametrize("engine", ["nnunet", "exact", "fast"])
def test_a_ct_smaller_than_a_patch_and_one_of_a_single_slice_are_predicted_by_each_engine(
    one_fold: ModelFolder, engine: str
) -> None:
    predictor = StagePredictor(one_fold, CPU, engine=ENGINES[engine])
    for shape, spacing in (((8, 7, 4), (0.8, 0.8, 2.0)), ((30, 20, 1), (3.0, 3.0, 5.0))):
        grid = Geometry(shape, spacing)
        given = build_stage_input(np.full(grid.shape_zyx, 90, np.int16), grid, {}, LIVER)
        assert predictor.predict(given)[LIVER.target].shape == grid.shape_zyx


def test_a_ct_thinner_than_half_a_voxel_of_the_network_is_told(one_fold: ModelFolder) -> None:
    grid = Geometry((30, 20, 1), (3.0, 3.0, 1.5))
    given = build_stage_input(np.full(grid.shape_zyx, 90, np.int16), grid, {}, LIVER)
    with pytest.raises(ImageError, match=r"measures 1\.5 x 60 x 90 mm \(z, y, x\), this model needs more than 2 x 2 x 2 mm"):
        StagePredictor(one_fold, CPU).predict(given)


@pytest.mark.parametrize("missing", [True, False])
def test_pytorch_predicts_where_openvino_cannot(
    one_fold: ModelFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: bool
) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(predictor, "openvino", lambda: None if missing else "there")
    monkeypatch.setattr(predictor, "OpenVinoNetwork", fails)
    exact = StagePredictor(one_fold, CPU, engine=ENGINES["exact"])
    assert exact._network(0) is exact._predictor.network
    assert missing == ("OpenVINO cannot run this network, PyTorch does (no such operation)" not in caplog.text)


class _Sees(nn.Module):
    """A fold that is sure of what is brighter than this, in HU, and counts its tiles."""

    def __init__(self, hu: float, logit: float) -> None:
        super().__init__()
        seen = ModelFolder.open(DEMO_LIVER).plans["foreground_intensity_properties_per_channel"]["0"]
        self.threshold, self.logit, self.tiles = (hu - seen["mean"]) / seen["std"], logit, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tiles += 1
        return torch.where(x[:, :1] > self.threshold, self.logit, -9.0)


GEOMETRY = Geometry((100, 100, 140), (4.0, 4.0, 4.0), (0, 0, 0))
Search = Callable[[NDArray[np.float32], tuple[float, float]], tuple[NDArray[np.bool_], list[str], list[int]]]


@pytest.fixture
def search() -> Search:
    """Predicts with two folds of these thresholds, the second the surer; the liver, what was said, and the tiles of each fold."""
    found = StagePredictor(ModelFolder.open(DEMO_LIVER), CPU, engine=Engine(region=True))

    def run(hu: NDArray[np.float32], thresholds: tuple[float, float]) -> tuple[NDArray[np.bool_], list[str], list[int]]:
        folds = [_Sees(thresholds[0], 9.0), _Sees(thresholds[1], 20.0)]
        found._network = lambda number: folds[number]  # type: ignore[method-assign]
        said: list[str] = []
        given = build_stage_input(hu, GEOMETRY, {}, LIVER)
        liver = found.predict(given, said.append)[Structure.LIVER]
        return liver, said, [fold.tiles for fold in folds]

    return run


def body(*livers: tuple[slice, ...]) -> NDArray[np.float32]:
    hu = np.full(GEOMETRY.shape_zyx, -1000, np.float32)
    hu[:, 10:90, 10:90] = 0
    for liver in livers:
        hu[liver] = 100
    return hu


LIVERS = {
    "in the middle": (slice(50, 80), slice(30, 60), slice(20, 60)),
    "situs inversus": (slice(50, 80), slice(30, 60), slice(45, 85)),
    "at the edge": (slice(0, 25), slice(10, 40), slice(10, 50)),
    "cut off at the other edge": (slice(120, 140), slice(60, 90), slice(60, 90)),
}


@pytest.mark.parametrize("where", LIVERS)
def test_the_second_fold_searches_where_the_first_found_a_liver(search: Search, where: str) -> None:
    hu = body(LIVERS[where])
    liver, said, (first, second) = search(hu, (50.0, 50.0))
    assert np.array_equal(liver, hu == 100)
    assert said == []
    assert second < first


def test_two_fragments_are_both_found(search: Search) -> None:
    hu = body((slice(5, 20), slice(30, 60), slice(20, 60)), (slice(120, 135), slice(30, 60), slice(20, 60)))
    liver, said, _ = search(hu, (50.0, 50.0))
    assert np.array_equal(liver, hu == 100)
    assert said == []


def test_what_the_first_fold_does_not_see_is_searched_by_all(search: Search) -> None:
    """Two fragments, of which the first fold sees one; a tile of that one shows the second fold a bit of the other."""
    hu = body(LIVERS["in the middle"])
    hu[95:130, 30:60, 20:60] = 60
    liver, said, (first, second) = search(hu, (80.0, 40.0))
    assert np.array_equal(liver, hu >= 60)
    assert said == ["liver: the folds found something where the first saw nothing, so all of them searched the whole CT"]
    assert second > first, "some tiles twice"


def test_no_liver_for_the_first_fold_is_searched_by_all(search: Search) -> None:
    hu = body()
    liver, said, (first, second) = search(hu, (50.0, 50.0))
    assert not liver.any()
    assert said == ["liver: the first fold found next to nothing, so all of them searched the whole CT"]
    assert first == second
