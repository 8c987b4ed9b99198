"""How far saved probabilities can be believed, and what another threshold would give: from counts of voxels by probability.

Probabilities are bytes, ``round(255 p)``: 256 counts of all voxels and of those of the truth hold everything that is needed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flrplan.metrics.empty import Outcome, Undefined
from flrplan.metrics.region import Region

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]
"""``(256,) int64``: voxels by byte value."""

LEVELS = 256
SWEEP_THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Thresholds of the sweep; a voxel is in the mask where p is ABOVE the threshold."""

BINS = 10
"""Bins of the reliability diagram, of equal width over 0..1; 1 lies in the last."""

_P = np.arange(LEVELS) / (LEVELS - 1)
_BIN = np.minimum((_P * BINS).astype(int), BINS - 1)


def first_above(threshold: float) -> int:
    """The lowest byte whose probability is above a threshold."""
    return int(round(threshold * (LEVELS - 1), 6)) + 1  # rounded first: 0.6 x 255 is 153, not 152.99...


def above(values_zyx: Bytes, threshold: float) -> NDArray[np.bool_]:
    """Where the probability is above a threshold."""
    return np.asarray(values_zyx >= first_above(threshold))


@dataclass(frozen=True, eq=False)
class VoxelCounts:
    """Counts of voxels by byte value: ``all``, and ``true``, those of them that lie in the truth."""

    all: Counts
    true: Counts

    @classmethod
    def of(cls, values_zyx: Bytes, truth: Region, inside: Region | None = None) -> VoxelCounts:
        """Counts over the grid of ``values_zyx``, or over the voxels of ``inside`` alone. Raises GridError for different grids."""
        if inside is None:
            everything = sum(
                (_count(plane) for plane in values_zyx), np.zeros(LEVELS, np.int64)
            )  # a plane at a time: bincount widens
            return cls(everything, _count(values_zyx[truth.box][truth.crop_zyx]))
        boxes = inside.shared_box(truth)
        own = values_zyx[inside.box]
        shared = own[:0] if boxes is None else own[boxes[0]][inside.crop_zyx[boxes[0]] & truth.crop_zyx[boxes[1]]]
        return cls(_count(own[inside.crop_zyx]), _count(shared))


def _count(values: Bytes) -> Counts:
    return np.bincount(values.ravel(), minlength=LEVELS)


def dice_sweep(counts: VoxelCounts) -> tuple[float, ...]:
    """Dice at each of :data:`SWEEP_THRESHOLDS`; ``counts`` over the whole grid, so that at 0.5 it is the Dice of the mask.

    0 where truth or mask is empty, NaN where both are (as everywhere, :data:`flrplan.metrics.empty.EMPTY_MASKS`).
    """
    values = []
    for threshold in SWEEP_THRESHOLDS:
        first = first_above(threshold)
        size = int(counts.all[first:].sum() + counts.true.sum())
        values.append(2.0 * int(counts.true[first:].sum()) / size if size else np.nan)
    return tuple(values)


@dataclass(frozen=True, eq=False)
class Reliability:
    """What the reliability diagram shows, by bin ``(BINS,)``: voxels, the sum of their probabilities, and how many are true."""

    voxels: Counts
    probability_sum: NDArray[np.float64]
    true: Counts

    @classmethod
    def of(cls, counts: VoxelCounts) -> Reliability:
        """The bins of some counts."""
        voxels, true = (np.bincount(_BIN, weights, BINS).astype(np.int64) for weights in (counts.all, counts.true))
        return cls(voxels, np.bincount(_BIN, counts.all * _P, BINS).astype(np.float64), true)

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.voxels + other.voxels, self.probability_sum + other.probability_sum, self.true + other.true)

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean over voxels of ``|mean probability - share of true voxels|`` of their bin.

        NaN without voxels. Source: Guo 2017, arXiv:1706.04599, for the probability of the structure.
        """
        total = int(self.voxels.sum())
        return float(np.abs(self.probability_sum - self.true).sum() / total) if total else float("nan")


def calibration_outcomes(counts: VoxelCounts) -> dict[str, Outcome]:
    """``brier``, the mean squared difference of probability and truth (0 or 1), and ``ece`` (:class:`Reliability`) of one case.

    ``counts`` over the region that the network saw; both are undefined where it holds no voxel, whatever the masks are.
    """
    total = int(counts.all.sum())
    if not total:
        return dict.fromkeys(("brier", "ece"), Undefined.NO_REGION)
    squares = counts.true * (1 - _P) ** 2 + (counts.all - counts.true) * _P**2
    return {"brier": float(squares.sum() / total), "ece": Reliability.of(counts).ece}
