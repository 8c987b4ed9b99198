"""On a CUDA device: precision, compiling, memory that runs out, one process under torchrun, predictions as on the CPU, the server."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from flrplan.anatomy import Mask, Structure
from flrplan.cohort import CohortSettings, SyntheticCase, write_cohort
from flrplan.engine import Cascade, CascadeSettings, ModelStore
from flrplan.image import CT
from flrplan.method import CASCADE, FLR, FLR_E2E, Recipe
from flrplan.metrics.overlap import dice
from flrplan.networks import architecture_named
from flrplan.nnunet.environment import nnunet_folders
from flrplan.nnunet.model import load_checkpoint
from flrplan.nnunet.prepare import CONFIGURATION
from flrplan.nnunet.prepare.architecture_plan import plan_training
from flrplan.nnunet.train import FlrTrainer, train_fold
from flrplan.nnunet.train.training_run import StageWork, prepare_stage
from flrplan.workfolder import find_labelled_cases, nnunet_split

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there"),
]
CUDA = torch.device("cuda", 0)
PLAN = {
    "batch_size": 4,
    "features": [8, 16, 32],
    "spacing_zyx_mm": [6, 5, 5],
    "patch_size_zyx": [24, 32, 32],
    "resampling": "torch",
}
TRAINING = {"epochs": 2, "iterations_per_epoch": 3, "validation_iterations": 1, "save_every": 1, "compile": "off", "workers": 0}


def recipe(**training: object) -> Recipe:
    return Recipe.from_mapping({"plan": PLAN, "training": {**TRAINING, **training}})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> StageWork:
    root = tmp_path_factory.mktemp("cuda")
    write_cohort(CohortSettings(cases=4, seed=5, size="small"), root / "cohort", progress=False)
    cases = find_labelled_cases(root / "cohort")
    work = StageWork(root / "work", FLR)
    prepare_stage(cases, work, recipe(), nnunet_split([c.case_id for c in cases], 2))
    return work


@pytest.fixture
def make_trainer(prepared: StageWork) -> Iterator[Callable[..., FlrTrainer]]:
    """Makes a trainer of fold 0 on the GPU, seeded and initialised; arguments replace training settings."""

    def make(**training: object) -> FlrTrainer:
        plans = plan_training(prepared.preprocessed, architecture_named("nnunet"), recipe().plan)
        dataset = json.loads((prepared.preprocessed / "dataset.json").read_text())
        torch.manual_seed(0)
        trainer = FlrTrainer({**plans, "continue_training": False}, CONFIGURATION, 0, dataset, CUDA)
        trainer.apply(recipe(**training).training)
        trainer.initialize()
        return trainer

    with nnunet_folders(prepared.folder):
        yield make


def batch(*patch: int) -> dict[str, Any]:
    """Four patches (of the plan above, else of this size), targets at both resolutions that have an output, the same every time."""
    generator = np.random.default_rng(0)
    data = torch.from_numpy(generator.normal(size=(4, 2, *(patch or (24, 32, 32)))).astype(np.float32))
    target = (data[:, :1] > 1).float()
    return {"data": data, "target": [target, target[..., ::2, ::2, ::2].contiguous()]}


@pytest.mark.parametrize(
    ("setting", "dtype", "scaled"),
    [("auto", torch.float16, True), ("bfloat16", torch.bfloat16, False), ("off", torch.float32, False)],
)
def test_a_step_in_each_precision(
    make_trainer: Callable[..., FlrTrainer], setting: str, dtype: torch.dtype, scaled: bool
) -> None:
    trainer = make_trainer(mixed_precision=setting)
    exact = make_trainer(mixed_precision="off")
    seen: list[torch.dtype] = []
    trainer.network.register_forward_hook(lambda *args: seen.append(args[2][0].dtype))
    losses = [float(t.train_step(batch())["loss"]) for t in (trainer, exact)]
    validated = [float(t.validation_step(batch())["loss"]) for t in (trainer, exact)]
    assert seen == [dtype, dtype]
    assert (trainer.grad_scaler is not None) == scaled
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert validated[0] == pytest.approx(validated[1], rel=0.05)


def test_a_compiled_network_trains_alike(make_trainer: Callable[..., FlrTrainer]) -> None:
    pytest.importorskip("triton")
    plain, compiled = make_trainer(mixed_precision="off"), make_trainer(mixed_precision="off", compile="on")
    losses = [[float(t.train_step(batch())["loss"]) for _ in range(3)] for t in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert set(compiled.plain_weights()) == set(plain.plain_weights())


def test_a_batch_that_does_not_fit_is_computed_in_pieces(
    make_trainer: Callable[..., FlrTrainer], caplog: pytest.LogCaptureFixture
) -> None:
    """The device's own error, at a share of its memory that two patches fit into and four do not; the same loss and weights."""
    whole = make_trainer(mixed_precision="off")
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    large = batch(64, 128, 128)
    loss = float(whole.train_step(large)["loss"])
    needed = torch.cuda.max_memory_allocated() - base
    pieces = make_trainer(mixed_precision="off")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.75 * needed) / total)
        found = float(pieces.train_step(large)["loss"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert pieces.accumulation.size < 4
    assert "out of memory: the batch of 4 is now computed in parts of" in caplog.text
    assert found == pytest.approx(loss, rel=1e-4)


def test_a_fold_is_trained_published_and_says_where(prepared: StageWork, tmp_path: Path) -> None:
    path = train_fold(prepared, 0, recipe(), tmp_path / "flr" / "nnunet", CUDA)
    run = json.loads(path.with_name("run.json").read_text())
    assert run["environment"]["device_name"] == torch.cuda.get_device_name(0)
    assert run["environment"]["peak_memory_bytes"] > 2**20
    assert run["resolved"]["precision"] == "float16"
    weights = load_checkpoint(path)["network_weights"]
    assert all(torch.isfinite(value).all() and value.device.type == "cpu" for value in weights.values())


def test_data_parallel_with_one_process(prepared: StageWork, tmp_path: Path) -> None:
    """NCCL and DistributedDataParallel as with several GPUs, in a group of one."""
    distributed.init_process_group("nccl", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        path = train_fold(prepared, 1, recipe(), tmp_path / "flr" / "nnunet", CUDA)
    finally:
        distributed.destroy_process_group()
    names = load_checkpoint(path)["network_weights"]
    assert not [name for name in names if name.startswith("module.")]


def test_predictions_are_those_of_the_cpu(small_ct: CT, small_truth: dict[Structure, Mask], demo_store: ModelStore) -> None:
    for stage in (*CASCADE, FLR_E2E):
        given = {s: small_truth[s] for s in stage.needs}
        masks = [
            Cascade(demo_store, CascadeSettings(device=device)).run(small_ct, given, (stage,)).masks[stage.target]
            for device in ("cpu", "cuda")
        ]
        assert dice(*masks) >= 0.999, stage.name
        assert masks[0].any()


def test_a_prediction_that_does_not_fit_goes_to_the_cpu_and_says_so(small_ct: CT, demo_store: ModelStore) -> None:
    cascade = Cascade(demo_store, CascadeSettings(device="cuda"))
    expected = cascade.run(small_ct, stages=(CASCADE[0],))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / total)
        result = cascade.run(small_ct, stages=(CASCADE[0],))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    said = [w for w in result.warnings if w not in expected.warnings]
    assert said == ["liver: the memory of cuda ran out; this stage was predicted on the CPU, which takes longer"]
    assert dice(result.masks[Structure.LIVER], expected.masks[Structure.LIVER]) >= 0.999


@pytest.mark.skipif(importlib.util.find_spec("monailabel") is None, reason="MONAI Label is not installed")
def test_the_server_on_cuda(tmp_path: Path, small_case: SyntheticCase) -> None:
    import SimpleITK as sitk
    from monailabel.client import MONAILabelClient

    from flrplan.demo.ohif.background import free_port
    from flrplan.demo.ohif.server import running_server

    studies = tmp_path / "studies"
    studies.mkdir()
    image = small_case.geometry.image(small_case.hu_zyx)
    sitk.WriteImage(image, str(studies / "case.nii.gz"))
    before = torch.cuda.mem_get_info()[0]
    with running_server(str(studies), tmp_path, print, free_port(), 300, {"device": "cuda"}) as server:
        file, _ = MONAILabelClient(server.url).infer("flr", "case", {})
        used = before - torch.cuda.mem_get_info()[0]
    assert Path(file).is_file()
    assert used > 100 * 2**20, "of the server's process, on the GPU"
