"""The estimate of a training's cost, by hand."""

from __future__ import annotations

import pytest

from flrplan.networks.estimate import Gpu, Workload


def test_arithmetic() -> None:
    """2 epochs x batch 3 x (10 x 300 + 5 x 100) GFLOP = 21,000 GFLOP = 0.021 PFLOP; at 10 % of 1 TFLOP/s 210 s."""
    load = Workload(100.0, 300.0, batch=3, epochs=2, iterations_per_epoch=10, validation_iterations=5)
    assert load.pflop == pytest.approx(0.021)
    assert load.gpu_hours(Gpu("one", 1.0, ""), 0.1) == pytest.approx(210 / 3600)
