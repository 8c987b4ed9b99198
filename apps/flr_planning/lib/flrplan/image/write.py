"""Volumes and label maps that are either whole or absent, read back before they take their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import ImageError, LabelError, OutputError
from flrplan.files import replacing
from flrplan.image.geometry import Geometry
from flrplan.image.volume_file import read_volume

LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Kinds of label map that are one file; a header apart from its voxels cannot be replaced in one step."""


def write_label_map(path: Path, array_zyx: NDArray[Any], geometry: Geometry) -> None:
    """Writes a label map ``(Z, Y, X)`` uint8 or bool, compressed, with exactly this geometry (NIfTI rounds it to float32).

    Raises: OutputError where it could not be written whole (:func:`write_volume`); GridError for another shape; LabelError for another dtype.
    """
    path = Path(path)
    if not path.name.lower().endswith(LABEL_SUFFIXES):
        raise OutputError(f"could not write {path}: expected a name that ends in {', '.join(LABEL_SUFFIXES)}")
    if array_zyx.dtype not in (np.uint8, np.bool_):
        raise LabelError(
            f"{path}: a label map is written as uint8, got {array_zyx.dtype}; convert it where its values are known"
        )
    write_volume(path, array_zyx, geometry)


def write_volume(path: Path, array_zyx: NDArray[Any], geometry: Geometry, compression_level: int = -1) -> None:
    """Writes any volume ``(Z, Y, X)``, compressed, and reads it back before it takes its place.

    On a full disk, ITK's NIfTI writer returns as if all were well. ``compression_level``: 1 is fast, 9 small, -1 ITK's own.
    Raises: OutputError where it could not be written whole; GridError for another shape.
    """
    image = geometry.image(array_zyx)
    with replacing(path) as part:
        try:
            sitk.WriteImage(image, str(part), useCompression=True, compressionLevel=compression_level)
            written = read_volume(part)
        except (RuntimeError, ImageError) as error:
            raise OutputError(
                f"could not write {path}: it came out incomplete; check that the disk has room and the folder is writable "
                f"({str(error).strip().splitlines()[-1]})"
            ) from error
        if not written.geometry.is_same_grid(geometry) or (sitk.GetArrayViewFromImage(written.image) != array_zyx).any():
            raise OutputError(
                f"could not write {path}: read back, it differs from what was written ({written.geometry.describe()} for "
                f"{geometry.describe()})"
            )
