"""What trainings cost on a GPU, from counted FLOPs and an assumed utilization: an estimate, never a measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU by its published peak of dense half-precision matrix arithmetic, in TFLOP/s."""

    name: str
    peak_tflops: float
    source: str


TYPICAL_PATCH = (128, 128, 128)
"""Voxels of the patch that is planned for abdominal CT on a grid of 1.5 mm."""
A100 = Gpu("NVIDIA A100 80 GB", 312.0, "data sheet of the A100: 312 TFLOP/s for BF16 and FP16, dense")
UTILIZATION = 0.10
"""Assumed share of the peak: a 3D U-Net's full-resolution layers have 32 channels and wait for memory, not for arithmetic."""


@dataclass(frozen=True)
class Workload:
    """One training's schedule and the counted cost of its patches (forward; forward and backward), in GFLOP at batch 1."""

    forward_gflop: float
    training_gflop: float
    batch: int
    epochs: int = 200
    iterations_per_epoch: int = 250
    validation_iterations: int = 50

    @property
    def pflop(self) -> float:
        """Arithmetic of one whole training, in PFLOP."""
        steps = self.iterations_per_epoch * self.training_gflop + self.validation_iterations * self.forward_gflop
        return self.epochs * self.batch * steps / 1e6

    def gpu_hours(self, gpu: Gpu = A100, utilization: float = UTILIZATION) -> float:
        """Hours of one training at this share of the GPU's peak."""
        return self.pflop * 1e3 / (gpu.peak_tflops * utilization) / 3600
