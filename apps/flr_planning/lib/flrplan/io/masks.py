"""Masks and label maps: on the CT's grid, binary where they must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import EmptyLiverError, ImageError, LabelError
from flrplan.geometry import Geometry, require_same_grid
from flrplan.io.ct import CT, read_image
from flrplan.io.dicom_series import is_dicom_file
from flrplan.io.nifti_header import NIFTI_SUFFIXES, check_nifti_header
from flrplan.labels import Mask, Structure


def read_label_map(path: Path) -> tuple[NDArray[Any], Geometry]:
    """A label map ``(Z, Y, X)`` of integers as it is stored, and its grid.

    Raises: ImageError where it is no 3D image; LabelError where its values are no whole numbers.
    """
    path = Path(path)
    if path.is_file() and is_dicom_file(path):
        raise ImageError(
            f"{path} is a DICOM object; give the mask as NIfTI or NRRD. A DICOM SEG becomes one with dcmqi's "
            "segimage2itkimage, which is installed with this package"
        )
    if path.name.lower().endswith(NIFTI_SUFFIXES) and path.is_file():
        check_nifti_header(path)
    image = read_image(path)
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        raise ImageError(
            f"{path}: expected a 3D label map, found {image.GetDimension()} dimensions, {image.GetNumberOfComponentsPerPixel()} components"
        )
    array = sitk.GetArrayFromImage(image)
    if not np.issubdtype(array.dtype, np.integer):
        whole = array.astype(np.int32) if np.isfinite(array).all() else None
        if whole is None or not np.array_equal(whole, array):
            raise LabelError(
                f"{path}: a label map holds whole numbers, this one does not (a probability map?); threshold it first"
            )
        array = whole
    try:
        return array, Geometry.of(image)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def read_mask(path: Path, ct: CT, structure: Structure) -> Mask:
    """The mask of one structure, ``(Z, Y, X) bool`` on the CT's grid; 0 is outside, one other value is inside.

    An empty mask comes back as it is, but for the liver.
    Raises: GridError where it lies on another grid; LabelError where it is not binary; EmptyLiverError.
    """
    array, geometry = read_label_map(path)
    require_same_grid(ct.geometry, geometry, ct.source, str(path))
    inside = array[array != 0]
    if inside.size and inside.min() != inside.max():
        raise LabelError(
            f"{path}: expected a binary {structure} mask (0 and one other value), found values "
            f"{np.unique(inside)[:6].tolist()}; save the {structure} alone"
        )
    if structure is Structure.LIVER and not inside.size:
        raise EmptyLiverError(f"{path}: the liver mask is empty; draw the liver, or leave the mask out and let it be predicted")
    return np.asarray(array != 0)
