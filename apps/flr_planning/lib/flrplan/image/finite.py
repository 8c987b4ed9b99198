"""Voxels that are NaN, infinite or masked are an error in every image, never a value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import ImageError


def count_non_finite(array: NDArray[Any]) -> int:
    """How many values are NaN or infinite; 0 for integers."""
    return array.size - int(np.count_nonzero(np.isfinite(array)))


def require_unmasked(array: object, source: str) -> None:
    """Raises ImageError naming ``source`` for a masked array of numpy, whose mask everything here would drop in silence."""
    if isinstance(array, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(array).sum())
        raise ImageError(
            f"{source}: expected a plain array, found a masked one (numpy.ma, {masked} of {array.size} voxels masked); say what the masked "
            "voxels are, such as array.filled(0) for a mask or array.filled(-1024) for HU"
        )


def require_finite(non_finite: int, voxels: int, source: str) -> None:
    """Raises ImageError naming ``source`` unless ``non_finite`` of its ``voxels`` is 0."""
    if non_finite:
        raise ImageError(f"{source}: {non_finite} of {voxels} voxels are NaN or infinite; export the image again")
