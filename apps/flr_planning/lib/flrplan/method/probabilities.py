"""Probabilities as one byte a voxel: what a network holds for likely, kept beside the mask that it gave."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Probability = NDArray[np.uint8]
"""``round(255 p)``, ``(Z, Y, X) uint8``; 0 outside what the network saw (the crop), and as predicted inside it."""

MASK_FROM = 128
"""The least value of ``p > 0.5``, and so of a voxel of the mask."""


def encode(p: NDArray[np.floating[Any]]) -> Probability:
    """``255 p``, rounded, where halves go down: p = 0.5 is 127, since a mask is p > 0.5, and every greater float32 is 128 or more.

    p: probabilities in 0..1 of any shape.
    """
    return np.asarray(np.ceil(p * np.float32(255) - np.float32(0.5)), np.uint8)
