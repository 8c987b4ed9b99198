"""A CT in HU on its own grid, from any file a clinic or a challenge hands out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import GridError, ImageError, SettingsError
from flrplan.files import readable
from flrplan.image.cases import case_name
from flrplan.image.dicom_files import DicomFile, is_dicom
from flrplan.image.dicom_series import read_dicom_series
from flrplan.image.finite import require_unmasked
from flrplan.image.geometry import Geometry, straighten
from flrplan.image.hounsfield import as_hu, check_grid, check_hu
from flrplan.image.volume_file import image_suffix, itk_path, read_volume


@dataclass(frozen=True, eq=False)
class CT:
    """``array_zyx``: ``(Z, Y, X)`` HU, int16 where that loses nothing, else float32, in the file's own axis order.

    ``geometry``: its voxel grid (LPS, mm). ``name``: case id. ``source``: path or words for messages. ``warnings``: what a person should
    check, one sentence each. What is not UTF-8 in these three becomes :func:`flrplan.files.readable`.
    slices: of a DICOM series, the file or frame of each z; empty for every other source.
    """

    array_zyx: NDArray[Any]
    geometry: Geometry
    name: str
    source: str
    warnings: tuple[str, ...] = ()
    slices: tuple[DicomFile, ...] = ()

    def __post_init__(self) -> None:
        for name, said in (
            ("name", readable(self.name)),
            ("source", readable(self.source)),
            ("warnings", (*map(readable, self.warnings),)),
        ):
            object.__setattr__(self, name, said)
        require_unmasked(self.array_zyx, self.source)
        if not isinstance(self.array_zyx, np.ndarray) or self.array_zyx.dtype.kind not in "iuf":
            found = getattr(self.array_zyx, "dtype", type(self.array_zyx).__name__)
            raise ImageError(f"{self.source}: expected the HU as a numpy array of numbers, found {found}")
        if self.array_zyx.shape != self.geometry.shape_zyx:
            raise GridError(f"{self.source}: shape {self.array_zyx.shape} on a grid of {self.geometry.shape_zyx} (z, y, x)")


def read_ct(path: str | os.PathLike[str], series: str | None = None) -> CT:
    """The CT of a NIfTI, NRRD or MetaImage file, of a DICOM folder (subfolders included), or of one DICOM file's series.

    ``series``: SeriesInstanceUID, needed only where a folder holds several CT volumes. Of a DICOM file, all slices of its
    series in its folder are read. The grid is the input's own: nothing is reoriented or resampled.

    Raises:
        ImageError: missing, damaged or incomplete files; not a CT; broken or absurd geometry; values that are not HU.
        SettingsError: ``series`` for an input that is not DICOM.
    """
    path = Path(path)
    itk_path(path)
    if path.is_dir() or (image_suffix(path) is None and path.is_file() and is_dicom(path)):
        array, geometry, slices, warnings = read_dicom_series(path, series)
        return _checked(array, geometry, case_name(path), str(path), warnings, slices)
    if series is not None:
        raise SettingsError(f"series {series!r} was asked of {path}, but only a DICOM folder has series; leave it out")
    volume = read_volume(path)
    array = sitk.GetArrayFromImage(volume.image)
    return _checked(array, volume.geometry, case_name(path), str(path), volume.warnings)


def read_grid(path: str | os.PathLike[str]) -> Geometry:
    """The grid of what :func:`read_ct` reads; of a file that states a plain 3D grid, without reading its voxels.

    Raises: ImageError as :func:`read_ct`.
    """
    path = Path(path)
    if image_suffix(path) is None or path.is_dir():
        return read_ct(path).geometry
    reader = sitk.ImageFileReader()
    reader.SetFileName(itk_path(path))
    try:
        reader.ReadImageInformation()
        direction = np.array(reader.GetDirection()).reshape(3, 3)
        return straighten(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), direction, str(path))[0]
    except (RuntimeError, ValueError):  # a sheared NIfTI, a trailing axis, or what read_ct has words for
        return read_ct(path).geometry


def _checked(
    array: NDArray[Any],
    geometry: Geometry,
    name: str,
    source: str,
    warnings: tuple[str, ...] = (),
    slices: tuple[DicomFile, ...] = (),
) -> CT:
    check_grid(geometry, source)
    hu = as_hu(np.ascontiguousarray(array), source)
    check_hu(hu, source)
    return CT(hu, geometry, name, source, warnings, slices)
