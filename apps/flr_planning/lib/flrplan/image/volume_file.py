"""One 3D image of scalars from a NIfTI, NRRD or MetaImage file, on the grid that the file states."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from flrplan.errors import ImageError
from flrplan.files import not_utf8
from flrplan.image.geometry import Geometry, straighten
from flrplan.image.nifti_header import Header, check_nifti, nifti_warnings, read_sheared
from flrplan.image.text_header import check_text_header

NIFTI_SUFFIXES = (".nii.gz", ".nii")
IMAGE_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd")
"""Endings of files that hold one image; DICOM files have any ending, or none."""

_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)


@dataclass(frozen=True)
class Volume:
    """A 3D scalar image, its grid, and what is doubtful about its header."""

    image: sitk.Image
    geometry: Geometry
    warnings: tuple[str, ...] = ()


def image_suffix(path: Path) -> str | None:
    """The ending of an image file, ``.nii.gz`` in one piece, lower case; None where the name has none of them."""
    return next((s for s in IMAGE_SUFFIXES if path.name.lower().endswith(s)), None)


def itk_path(path: Path) -> str:
    """A path as ITK takes it. Raises: ImageError for one that is not UTF-8."""
    if shown := not_utf8(path):
        raise ImageError(f"{shown}: the name of this file, or of a folder above it, is not UTF-8; rename it")
    return str(path)


def announced_voxels(path: Path) -> int:
    """How many voxels the header of an image file announces, before any is read or unpacked; 0 where that cannot be read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(itk_path(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 0
    return int(math.prod(reader.GetSize()) * reader.GetNumberOfComponents())


def read_volume(path: Path) -> Volume:
    """Reads an image file; no voxel is changed and the grid is taken as it is.

    Raises: ImageError where the file is missing, of an unknown kind, damaged, not one 3D volume, its geometry is broken, or a
    voxel of a NIfTI file is NaN or infinite (ITK makes it 0; of other formats the caller still sees it).
    """
    if not path.is_file():
        raise ImageError(
            f"{path}: {'a link to a file that is not there' if path.is_symlink() else 'no such file'}; check the path"
        )
    suffix = image_suffix(path)
    if suffix is None:
        raise ImageError(f"{path}: expected a DICOM file or a name that ends in {', '.join(IMAGE_SUFFIXES)}")
    header: Header | None = check_nifti(path) if suffix in NIFTI_SUFFIXES else None
    try:
        image = sitk.ReadImage(itk_path(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if "determinant is 0" in str(error):
            reason = "the axes of its grid lie in one plane: the determinant of its directions is 0"
        if header is not None and "orthonormal" in str(error):
            return _straightened(path, header)
        raise ImageError(
            f"{path}: the file is cut off, damaged or not what its name says ({reason}); copy or export it again"
        ) from error
    volume = scalar_volume(image, str(path))
    if header is not None:
        return replace(volume, warnings=(*volume.warnings, *nifti_warnings(header, volume.geometry)))
    check_text_header(path, suffix)
    return volume


def scalar_volume(image: sitk.Image, source: str) -> Volume:
    """The image as one 3D volume; a trailing axis of one is dropped.

    Raises: ImageError naming ``source`` for colours, vectors, complex numbers, 2D, several volumes and broken geometry.
    """
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1:
        raise ImageError(f"{source}: expected one value per voxel, found {components} (a colour picture or a vector field)")
    if image.GetPixelID() in _COMPLEX:
        raise ImageError(f"{source}: expected real values, found complex numbers (MR raw data?)")
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[(*(slice(None),) * (image.GetDimension() - 1), 0)]
    if image.GetDimension() != 3:
        size = "x".join(map(str, image.GetSize()))
        what = "a 2D picture" if image.GetDimension() < 3 else "several volumes in one file; save the phase to plan on alone"
        raise ImageError(f"{source}: expected one 3D volume, found size {size}: {what}")
    try:
        geometry, warnings = straighten(
            image.GetSize(), image.GetSpacing(), image.GetOrigin(), np.array(image.GetDirection()).reshape(3, 3), source
        )
    except ImageError as error:
        raise error if str(error).startswith(source) else ImageError(f"{source}: {error}") from error
    return Volume(image, geometry, warnings)


def _straightened(path: Path, header: Header) -> Volume:
    """A NIfTI file that ITK refuses for its shear: on the nearest straight grid, where that is near enough."""
    array, spacing_mm, origin_mm, direction = read_sheared(path, header)
    geometry, warnings = straighten(array.shape, spacing_mm, origin_mm, direction, str(path))
    return Volume(geometry.image(np.ascontiguousarray(array.T)), geometry, warnings)
