"""A CT from a file or a DICOM folder, with the checks that keep anything else out. The grid is taken as it is stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import ImageError
from flrplan.geometry import Geometry
from flrplan.io.cases import case_name
from flrplan.io.dicom_series import is_dicom_file, read_series
from flrplan.io.nifti_header import NIFTI_SUFFIXES, check_nifti_header

IMAGE_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd")
SPACING_LIMITS_MM = (0.1, 15.0)
"""No CT of a liver is finer or coarser along any axis."""
IN_PLANE_LIMIT_MM = 6.0
"""The two finest axes; a reconstruction matrix of 512 over 50 cm gives 1 mm."""
AIR_BELOW_HU = -200.0
"""Every CT holds air or padding below this; magnetic resonance and unsigned images do not."""


@dataclass(frozen=True)
class CT:
    """A CT on its own grid.

    array_zyx: ``(Z, Y, X)`` HU, int16 or float32, in the axis order of the file.
    name: case id. source: where it came from, for messages. warnings: what a reader of results should know.
    """

    array_zyx: NDArray[Any]
    geometry: Geometry
    name: str
    source: str
    warnings: tuple[str, ...] = ()


def read_ct(path: Path, series: str | None = None) -> CT:
    """Reads NIfTI, NRRD, MetaImage, or a DICOM series (its folder, or any one of its files).

    series: the SeriesInstanceUID, where a folder holds several CT series.
    Raises: ImageError for anything that is not one whole CT volume; the message names the file and what to do.
    """
    path = Path(path)
    if not path.exists():
        raise ImageError(f"{path} does not exist; give a NIfTI or NRRD file, or a folder with one DICOM series")
    if path.is_dir() or is_dicom_file(path):
        image, warnings = read_series(path, series)
        return ct_from_image(image, case_name(path), str(path), tuple(warnings))
    warnings = check_nifti_header(path) if path.name.lower().endswith(NIFTI_SUFFIXES) else []
    return ct_from_image(read_image(path), case_name(path), str(path), tuple(warnings))


def read_image(path: Path) -> sitk.Image:
    """Any image file as SimpleITK reads it. Raises: ImageError naming the file."""
    if not path.is_file():
        raise ImageError(f"{path} does not exist")
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        raise ImageError(f"{path}: expected a file ending in {', '.join(IMAGE_SUFFIXES)}, or a DICOM folder")
    if not os.access(path, os.R_OK):
        raise ImageError(f"{path} cannot be read: no permission")
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            raise ImageError(
                f"{path}: its header describes a sheared grid (axes that are not at right angles), as an uncorrected gantry "
                "tilt gives; resample it onto a regular grid first"
            ) from error
        raise ImageError(
            f"{path} cannot be read as an image; it is damaged or not what its name says ({_last_line(text)})"
        ) from error


def ct_from_image(image: sitk.Image, name: str, source: str, warnings: tuple[str, ...] = ()) -> CT:
    """A CT from an image in memory, after the checks of :func:`read_ct` that do not need the file.

    Raises: ImageError naming ``source``.
    """
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ImageError(
            f"{source}: expected one HU value per voxel, found {image.GetNumberOfComponentsPerPixel()} components (a colour image "
            "or vectors); give the original CT, not a screenshot"
        )
    image = _three_dimensional(image, source)
    if image.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8):
        raise ImageError(
            f"{source}: 8-bit values cannot hold HU (-1024 to 3071); give the original CT, not a label or a picture"
        )
    if min(image.GetSize()) < 2:
        raise ImageError(f"{source}: a volume is needed, found a single slice (size {image.GetSize()}); give the whole series")
    geometry = _checked_geometry(image, source)
    array = sitk.GetArrayFromImage(image)
    return CT(_checked_values(array, source), geometry, name, source, warnings)


def _three_dimensional(image: sitk.Image, source: str) -> sitk.Image:
    size = image.GetSize()
    if image.GetDimension() == 4 and size[3] == 1:
        return image[:, :, :, 0]
    if image.GetDimension() == 2:
        raise ImageError(f"{source}: a volume is needed, found a single slice (size {size}); give the whole series")
    if image.GetDimension() != 3:
        raise ImageError(
            f"{source}: expected one 3D volume, found {image.GetDimension()} dimensions (size {size}); save one volume of it"
        )
    return image


def _checked_geometry(image: sitk.Image, source: str) -> Geometry:
    try:
        geometry = Geometry.of(image)
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from error
    low, high = SPACING_LIMITS_MM
    spacing = sorted(geometry.spacing_mm)
    if spacing[0] < low or spacing[2] > high or spacing[1] > IN_PLANE_LIMIT_MM:
        raise ImageError(
            f"{source}: spacing {' x '.join(f'{s:.4g}' for s in geometry.spacing_mm)} mm is not that of a CT (expected {low} to {high} mm, "
            f"in plane at most {IN_PLANE_LIMIT_MM} mm); correct the header's voxel size or its unit"
        )
    return geometry


def _checked_values(array: NDArray[Any], source: str) -> NDArray[Any]:
    if np.issubdtype(array.dtype, np.floating):
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise ImageError(f"{source}: {bad} voxels are NaN or infinite; export the CT again, or fill them with -1024")
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise ImageError(f"{source}: every voxel has the value {low:g}; this image is empty, export it again")
    if low > AIR_BELOW_HU:
        shifted = low >= 0 and high > 1500
        looks = (
            "it looks shifted by 1024 (unsigned): subtract 1024"
            if shifted
            else "it looks like another modality or a scaled image"
        )
        raise ImageError(
            f"{source}: expected Hounsfield units with air near -1000, found values from {low:g} to {high:g}; {looks}; give the original CT"
        )
    if np.issubdtype(array.dtype, np.integer):
        if np.iinfo(np.int16).min <= low and high <= np.iinfo(np.int16).max:
            return array.astype(np.int16, copy=False)
        raise ImageError(f"{source}: values from {low:g} to {high:g} are not Hounsfield units; give the original CT")
    return array.astype(np.float32, copy=False)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
