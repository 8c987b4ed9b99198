"""Shared by the tests of metrics: random anisotropic masks, and surface-distance made to run under numpy 1.26."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture
def surface_distance(monkeypatch: pytest.MonkeyPatch) -> Any:
    """surface-distance 0.1. It uses ``np.bool``, which numpy 1.24 removed: for the test it gets a numpy that still has it."""
    metrics = pytest.importorskip("surface_distance.metrics", reason="needs the dev dependency surface-distance-based-measures")
    monkeypatch.setattr(metrics, "np", SimpleNamespace(**vars(np) | {"bool": np.bool_, "Inf": np.inf}))
    return metrics


def random_pairs(count: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[float, float, float]]]:
    """Pairs of filled masks of at most 14 voxels an axis: noise, blobs and near copies; spacing 0.5..5 mm, anisotropic."""
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        shape = tuple(int(n) for n in rng.integers(1, 15, 3))
        spacing = tuple(float(s) for s in np.round(rng.uniform(0.5, 5.0, 3), int(rng.integers(0, 4))).clip(0.5))
        blur, level = rng.choice([0.0, 0.7, 1.5]), rng.uniform(0.2, 0.9)

        def mask() -> np.ndarray:
            noise = rng.random(shape)  # noqa: B023 - used at once
            noise = ndimage.gaussian_filter(noise, blur) if blur else noise  # noqa: B023
            return noise > np.quantile(noise, level)  # noqa: B023

        reference, prediction = mask(), mask()
        if rng.random() < 0.5:  # a near copy: most of the surface is shared
            prediction = reference ^ (rng.random(shape) < 0.03)
        if reference.any() and prediction.any():
            made += 1
            yield reference, prediction, (spacing[0], spacing[1], spacing[2])


@pytest.fixture(name="random_pairs")
def random_pairs_fixture() -> Any:
    """The generator :func:`random_pairs`."""
    return random_pairs
