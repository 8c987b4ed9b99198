"""Out of memory: the same batch in smaller pieces, or which setting to change. Mixed precision is what the setting says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flrplan.errors import SettingsError, TrainingError
from flrplan.hardware.device import is_out_of_memory
from flrplan.method import TrainingSettings
from flrplan.nnunet.train import FlrTrainer
from flrplan.nnunet.train.gradient_accumulation import GradientAccumulation, in_one_piece
from flrplan.nnunet.train.precision import compiles, precision_context, precision_name

CPU = torch.device("cpu")


def batch(trainer: FlrTrainer, size: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    data = torch.randn((size, 2, 16, 24, 24), generator=generator)
    truth = (torch.rand((size, 1, 16, 24, 24), generator=generator) > 0.5).float()
    return {"data": data, "target": [truth, truth[..., ::2, ::2, ::2]][: len(trainer._get_deep_supervision_scales())]}


def room_for(trainer: FlrTrainer, patches: int) -> None:
    """The network runs out of memory on more patches than this."""

    def hook(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > patches:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer.network.register_forward_pre_hook(hook)


@pytest.mark.parametrize("patches", [2, 1])
def test_pieces_give_the_same_step(
    make_trainer: Callable[..., FlrTrainer], patches: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole, pieces = make_trainer(), make_trainer()
    whole.accumulation = GradientAccumulation(3)
    pieces.accumulation = GradientAccumulation(3)
    room_for(pieces, patches)
    with caplog.at_level(logging.WARNING):
        losses = [float(trainer.train_step(batch(trainer))["loss"]) for trainer in (whole, pieces)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert pieces.accumulation.size == patches
    assert "the batch of 3 is now computed in parts of 2" in caplog.text
    for (name, a), b in zip(whole.network.named_parameters(), pieces.network.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-5), name
    validation = [trainer.validation_step(batch(trainer)) for trainer in (whole, pieces)]
    assert float(validation[0]["loss"]) == pytest.approx(float(validation[1]["loss"]), rel=1e-3)


def test_one_patch_that_does_not_fit(make_trainer: Callable[..., FlrTrainer]) -> None:
    trainer = make_trainer()
    room_for(trainer, 0)
    with pytest.raises(
        TrainingError, match=r"out of memory with one patch at a time; set mixed_precision: auto.*patch_size_zyx"
    ):
        trainer.train_step(batch(trainer))


def test_one_of_several_processes_does_not_try_again() -> None:
    def step() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(TrainingError, match="out of memory with 4 patches a process at a time; set"):
        GradientAccumulation(4, divisible=False).attempt(step, lambda: None)


OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def fail(*_: Any, **__: Any) -> None:
    raise OUT


@pytest.mark.parametrize("scaled", [True, False])
def test_a_step_that_does_not_fit_ends_the_training(
    make_trainer: Callable[..., FlrTrainer], monkeypatch: pytest.MonkeyPatch, scaled: bool
) -> None:
    """AdamW makes its moments in the first step. The step is not tried again: a scaler would refuse to unscale twice."""
    trainer = make_trainer()
    trainer.accumulation = GradientAccumulation(3)
    trainer.grad_scaler = torch.amp.GradScaler("cpu") if scaled else None
    monkeypatch.setattr(trainer.optimizer, "step", fail)
    message = (
        r"^out of memory while taking the optimizer's step; set a smaller network in another --work folder \(plan: network_size.*"
        r"amsgrad: false \(training\).*\(CUDA out of memory. Tried"
    )
    with pytest.raises(TrainingError, match=message):
        trainer.train_step(batch(trainer))
    assert trainer.accumulation.size == 3, "smaller pieces would not help"


@pytest.mark.parametrize("scaled", [True, False])
def test_what_a_failed_piece_left_is_not_counted(make_trainer: Callable[..., FlrTrainer], scaled: bool) -> None:
    """Memory runs out on the second piece, when the gradient of the first is there already; each batch takes one step."""
    whole, pieces = make_trainer(), make_trainer()
    whole.accumulation, pieces.accumulation = GradientAccumulation(3), GradientAccumulation(3)
    pieces.accumulation.size = 2
    calls: list[int] = []

    def hook(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        calls.append(len(inputs[0]))
        if len(calls) == 2:
            raise OUT

    pieces.network.register_forward_pre_hook(hook)
    if scaled:
        whole.grad_scaler, pieces.grad_scaler = torch.amp.GradScaler("cpu"), torch.amp.GradScaler("cpu")
    losses = [float(trainer.train_step(batch(trainer))["loss"]) for trainer in (whole, pieces)]
    assert calls == [2, 1, 1, 1, 1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(whole.network.parameters(), pieces.network.parameters(), strict=True):
        assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-5)
    assert {float(state["step"]) for state in pieces.optimizer.state.values()} == {1.0}


def test_a_network_or_a_state_that_does_not_fit(
    new_trainer: Callable[..., FlrTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer()
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "to", fail)
        with pytest.raises(TrainingError, match=r"^out of memory while setting up the network; set a smaller network"):
            trainer.initialize()
    trainer = new_trainer()
    trainer.initialize()
    trainer.save_checkpoint(str(trainer.training_state))
    trainer = new_trainer()
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "to", fail)
        with pytest.raises(TrainingError, match=r"^out of memory while setting up the network; set"):
            trainer.resume()
    trainer = new_trainer()
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Optimizer, "load_state_dict", fail)
        with pytest.raises(TrainingError, match=r"^out of memory while loading .*training_state\.pth; set a smaller network"):
            trainer.resume()
    assert new_trainer().resume(), "the state itself is whole"


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match=r"^unrelated$"), in_one_piece("trying"):
        raise RuntimeError("unrelated")
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def step() -> None:
        raise RuntimeError("mat1 and mat2")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        GradientAccumulation(2).attempt(step, lambda: None)


NATIVE = torch.cpu.get_capabilities().get("avx512_bf16", False)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("off", torch.float32),
        ("auto", torch.float32),
        *((setting, torch.bfloat16 if NATIVE else torch.float32) for setting in ("on", "bfloat16")),
    ],
)
def test_precision_is_the_same_in_training_and_validation(
    make_trainer: Callable[..., FlrTrainer], setting: str, expected: torch.dtype
) -> None:
    trainer = make_trainer(mixed_precision=setting)
    seen: list[torch.dtype] = []
    trainer.network.register_forward_hook(lambda *args: seen.append(args[2][0].dtype))
    trainer.train_step(batch(trainer, 2))
    trainer.validation_step(batch(trainer, 2))
    assert seen == [expected, expected]
    assert precision_name(CPU, setting) == str(expected).removeprefix("torch.")


def test_off_is_off_on_cuda() -> None:
    context = precision_context(torch.device("cuda"), "off")
    assert context._enabled is False
    assert context.device == "cuda"


def test_an_epoch_without_target_leaves_the_moving_average(
    make_trainer: Callable[..., FlrTrainer], recwarn: pytest.WarningsRecorder
) -> None:
    """nnU-Net's average is 0.9 of the old and 0.1 of the new one: 0.9 x 0.5 + 0.1 x 1 = 0.55."""
    trainer = make_trainer()
    for epoch, (tp, fp, fn) in enumerate([(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (2.0, 0.0, 0.0)]):
        trainer.current_epoch = epoch
        counts = {"tp_hard": np.array([tp]), "fp_hard": np.array([fp]), "fn_hard": np.array([fn])}
        trainer.on_validation_epoch_end([{"loss": np.asarray(0.5), **counts}])
    log = trainer.logger.get_checkpoint()
    assert log["mean_fg_dice"] == pytest.approx([np.nan, 0.5, np.nan, 1.0], nan_ok=True)
    assert log["ema_fg_dice"] == pytest.approx([np.nan, 0.5, 0.5, 0.55], nan_ok=True)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_counts_of_the_pseudo_dice(make_trainer: Callable[..., FlrTrainer]) -> None:
    trainer = make_trainer()
    logits = torch.tensor([2.0, 2.0, -2.0, -2.0, 2.0]).reshape(1, 1, 1, 1, 5)
    truth = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]).reshape(1, 1, 1, 1, 5)
    trainer.network = lambda data: [logits]
    counts = trainer.validation_step({"data": torch.zeros(1, 2, 1, 1, 5), "target": [truth]})
    assert (counts["tp_hard"], counts["fp_hard"], counts["fn_hard"]) == (2, 1, 1)
    assert float(counts["loss"]) == pytest.approx((3 * 0.126928 + 2 * 2.126928) / 5, abs=1e-5), "log(1 + e^-2) and 2 more"


def test_compile_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert not compiles(CPU, "auto")
    assert compiles(CPU, "on")
    assert not compiles(cuda, "off")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert compiles(cuda, "auto")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert not compiles(cuda, "auto")


def test_settings_that_are_refused_or_read_from_yaml() -> None:
    for name, value, message in (
        ("workers", "many", "workers must be auto or a whole number in 0..64, got 'many'"),
        ("workers", 65, "workers must be auto or a whole number"),
        ("compile", "yes", "compile must be one of auto, on, off, got 'yes'"),
        ("compile", "bfloat16", "compile must be one of auto, on, off, got 'bfloat16'"),
        ("mixed_precision", "float64", "mixed_precision must be one of auto, on, off, bfloat16, got 'float64'"),
    ):
        with pytest.raises(SettingsError, match=message):
            TrainingSettings(**{name: value})  # type: ignore[arg-type]
    assert TrainingSettings(mixed_precision=False, compile=True) == TrainingSettings(  # type: ignore[arg-type]
        mixed_precision="off", compile="on"
    ), "YAML reads off and on as false and true"


@pytest.mark.slow
def test_a_compiled_network_trains_and_publishes_plain_names(make_trainer: Callable[..., FlrTrainer]) -> None:
    plain = make_trainer()
    trainer = make_trainer(compile="on")
    losses = [float(t.train_step(batch(t, 2))["loss"]) for t in (plain, trainer)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert set(trainer.plain_weights()) == set(plain.plain_weights())
