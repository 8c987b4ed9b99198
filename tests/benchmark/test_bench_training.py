"""The comparison of our trainer with nnU-Net's: unasked, both compute in the same precision."""

from __future__ import annotations

import inspect

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import bench_training


@pytest.mark.parametrize(("device", "expected"), [("cpu", "float32"), ("cuda", "float16")])
def test_both_sides_compute_in_the_same_precision(monkeypatch: pytest.MonkeyPatch, device: str, expected: str) -> None:
    monkeypatch.setattr("torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    settings = bench_training.build_parser().parse_args([]).precision
    found = bench_training.sides(torch.device(device), settings)
    assert found == {bench_training.OURS: ("auto", expected), bench_training.THEIRS: (None, expected)}


def test_what_nnunet_computes_in_is_still_what_is_said() -> None:
    """float16 by autocast on CUDA, nothing elsewhere; a newer nnU-Net may differ."""
    source = inspect.getsource(nnUNetTrainer.train_step)
    assert "autocast(self.device.type, enabled=True) if self.device.type == 'cuda' else dummy_context()" in source
