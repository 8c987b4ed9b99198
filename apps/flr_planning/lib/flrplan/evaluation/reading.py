"""Reads truth and predictions as binary masks on one grid. What is not binary, or on another grid, is an error with a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flrplan.anatomy import Mask, resemblance
from flrplan.errors import FlrError, LabelError
from flrplan.image import Canonical, Geometry, read_label_map, require_same_grid

UNREADABLE = (FlrError, OSError, RuntimeError)
"""What a broken file raises; SimpleITK's own errors are RuntimeErrors."""


def read_binary(path: Path, geometry: Geometry | None = None, geometry_name: str = "") -> tuple[Mask, Geometry]:
    """A binary mask ``(Z, Y, X) bool`` and its grid; all 0 is an empty mask, which is fine.

    Raises: LabelError for values other than 0 and 1, GridError where ``geometry`` is given and differs, ImageError for an
    unreadable file or one with NaN or infinity; each names the file.
    """
    array, found = read_label_map(path)
    if geometry is not None:
        require_same_grid(geometry, found, geometry_name, str(path))
    mask = array == 1
    if np.count_nonzero(mask) + np.count_nonzero(array == 0) != array.size:
        values = np.unique(array).tolist()
        others = [v for v in values if v not in (0, 1)]
        raise LabelError(
            f"{path}: a binary mask holds 0 and 1, found {others[:5]}{resemblance(values)}; write one binary file per structure"
        )
    return mask, found


def slice_spacing_mm(geometry: Geometry) -> float:
    """Distance between axial slices, whatever the order of the file's axes."""
    return float(Canonical.of(geometry).target.spacing_mm[2])
