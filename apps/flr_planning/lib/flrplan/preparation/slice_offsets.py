"""How far each slice of a DICOM CT lies from its place on the evenly spaced grid that the CT is read onto.

The CT reader accepts slices up to a quarter of a step off (positions rounded to 0.1 mm, for example) and assumes even steps. A SEG
repeats the slices' own positions, so its frames are compared with the grid as it lies at that slice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flrplan.image import Geometry
from flrplan.image.dicom_files import choose_series, is_dicom
from flrplan.image.volume_file import image_suffix


def slice_offsets_mm(ct: Path, series: str | None, geometry: Geometry) -> NDArray[np.float64]:
    """``(Z,) float64``: position along the normal minus the even one, for each slice of the CT in the folder ``ct``.

    ``geometry``: the grid that the same series was read onto. Zeros for a CT that is no DICOM series.
    Raises: what :func:`choose_series` raises.
    """
    if not ct.is_dir() and not (image_suffix(ct) is None and is_dicom(ct)):
        return np.zeros(geometry.size_xyz[2])
    files = choose_series(ct, series).slices
    positions = np.array([[float(p) for p in file.header.ImagePositionPatient] for file in files])
    along = np.sort((positions - np.asarray(geometry.origin_mm)) @ geometry.direction_matrix[:, 2])
    return np.asarray(along - geometry.spacing_mm[2] * np.arange(geometry.size_xyz[2]))


def grid_at(position_mm: NDArray[np.float64], geometry: Geometry, offsets_mm: NDArray[np.float64]) -> Geometry:
    """The grid, moved along its normal so that the slice nearest to ``position_mm`` lies where the CT's slice does."""
    normal = geometry.direction_matrix[:, 2]
    depth = float((position_mm - np.asarray(geometry.origin_mm)) @ normal)
    nearest = int(np.clip(np.rint(depth / geometry.spacing_mm[2]), 0, geometry.size_xyz[2] - 1))
    x, y, z = np.asarray(geometry.origin_mm) + offsets_mm[nearest] * normal
    return Geometry(geometry.size_xyz, geometry.spacing_mm, (float(x), float(y), float(z)), geometry.direction)
