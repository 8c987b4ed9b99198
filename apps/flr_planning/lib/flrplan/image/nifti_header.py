"""The raw header of a NIfTI file, since ITK repairs in silence what should be an error.

Seen with SimpleITK 2.5 (ITK 5.4): a spacing of 0, NaN or infinity becomes 1, a negative one its absolute value; a file that
was cut off is read with made-up voxels at the end; a voxel that is NaN or infinite is read as 0 (of other formats it is not);
with a wrong scale in the sform the spacing is taken from ``pixdim``. A sform that is sheared by a rounding is refused.
Metres and micrometres (``xyzt_units``) are converted to millimetres, and ``scl_slope``/``scl_inter`` are applied: both right.
"""

from __future__ import annotations

import gzip
import zlib
from io import IOBase
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from flrplan.errors import ImageError
from flrplan.image.finite import count_non_finite, require_finite
from flrplan.image.geometry import SAME_GRID_TOLERANCE_VOXELS, Geometry

SFORM_SCALE_TOLERANCE = 1e-3
"""Relative difference of ``pixdim`` and the sform's column lengths up to which they count as equal.

Float32 rounds at 1e-7; 1e-3 in each of three axes changes a volume by 0.3 %, less than annotators differ.
"""

_CHUNK = 1 << 22
_GZIP_MAGIC = b"\x1f\x8b"
_FLOAT_CODES = (16, 64)  # float32 and float64; ITK reads no longer ones, and complex numbers are refused elsewhere
_LEAST_SLOPE = float(np.finfo(np.float64).eps)
"""Of ``scl_slope``: ITK takes a smaller one for none, nibabel multiplies by it."""
_SINGULAR = 1e-3
"""Volume of a voxel with edges of 1 below which its axes lie in one plane: 0.06 degrees."""
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_LPS_OF_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Header = Nifti1Header | Nifti2Header


def check_nifti(path: Path) -> Header:
    """The raw header of a NIfTI file, once the file is whole, the header's numbers can be trusted and every voxel is finite.

    Raises: ImageError for a file that is cut off or damaged, broken spacing, a broken sform or qform, ambiguous scaling, and
    voxels that are NaN or infinite.
    """
    try:
        header = _read_header(path)
        voxels = _voxels(path, header)
        found_bytes, non_finite = _read_through(path, header, voxels)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"{path}: the file is cut off or damaged ({error}); copy or export it again") from error
    _check_size(path, header, voxels, found_bytes)
    _check_spacing(path, header)
    _check_transforms(path, header)
    _check_scaling(path, header)
    require_finite(non_finite, voxels, str(path))
    return header


def nifti_warnings(header: Header, geometry: Geometry) -> list[str]:
    """What is doubtful about the orientation: two in the file that disagree. ``geometry``: what ITK made of it."""
    qform, sform = _coded(header, "qform"), _coded(header, "sform")
    if qform is None or sform is None:
        return []
    moved_mm = _corner_shift_mm(qform, sform, geometry)
    if moved_mm <= SAME_GRID_TOLERANCE_VOXELS * min(geometry.spacing_mm):
        return []
    used = "sform" if _corner_shift_mm(sform, _affine_ras(geometry), geometry) < moved_mm / 2 else "qform"
    return [
        f"the sform and the qform of the NIfTI header disagree by up to {moved_mm:.2f} mm; the {used} is used, "
        "another program may take the other"
    ]


def read_sheared(path: Path, header: Header) -> tuple[NDArray[Any], tuple[float, ...], tuple[float, ...], NDArray[np.float64]]:
    """Voxels ``(X, Y, Z)`` after their scaling, spacing, origin and direction (LPS) as the sform states them; ITK reads no sheared one.

    Raises: ImageError for other than one 3D volume of real numbers.
    """
    kind = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    with _open(path) as stream:  # by content: nibabel itself goes by the ending
        array = np.asanyarray(kind.from_stream(cast("IOBase", stream)).dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    affine = _coded(header, "sform")
    if array.ndim != 3 or array.dtype.kind not in "iuf" or affine is None:
        raise ImageError(f"{path}: expected one 3D volume of real numbers, found {array.dtype} of size {array.shape}")
    affine = _LPS_OF_RAS @ affine
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    return array, tuple(spacing_mm.tolist()), tuple(affine[:3, 3].tolist()), affine[:3, :3] / spacing_mm


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP_MAGIC
    return gzip.open(path) if compressed else path.open("rb")  # type: ignore[return-value]


def _read_header(path: Path) -> Header:
    with _open(path) as stream:
        start = stream.read(4)
        stream.seek(0)
        kind = Nifti2Header if {int.from_bytes(start, "little"), int.from_bytes(start, "big")} & {540} else Nifti1Header
        try:
            header: Header = kind(stream.read(kind.sizeof_hdr), check=False)  # unchecked: the check would repair it
            if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
                raise HeaderDataError("its magic number is missing")
        except (HeaderDataError, WrapStructError, ValueError) as error:
            raise ImageError(f"{path}: this is not a NIfTI file, whatever its name says ({error}); export it again") from error
    return header


def _voxels(path: Path, header: Header) -> int:
    """How many voxels the header announces."""
    dimensions = header["dim"]
    if not 1 <= int(dimensions[0]) <= 7 or (dimensions[1 : int(dimensions[0]) + 1] < 1).any():
        raise ImageError(f"{path}: the NIfTI header's size is broken (dim {dimensions.tolist()}); export it again")
    if not (np.isfinite(header["vox_offset"]) and header["vox_offset"] >= 0):
        raise ImageError(f"{path}: the NIfTI header's vox_offset is broken ({header['vox_offset']}); export it again")
    return int(np.prod(dimensions[1 : int(dimensions[0]) + 1].astype(object)))


def _read_through(path: Path, header: Header, voxels: int) -> tuple[int, int]:
    """How many bytes the file has after decompression, and how many of its voxels are NaN or infinite.

    Decompressing to the end also checks gzip's checksum. Voxels of integers are not looked at, nor read where nothing is packed.
    """
    with _open(path) as stream:
        packed, non_finite = isinstance(stream, gzip.GzipFile), 0
        if int(header["datatype"]) in _FLOAT_CODES:
            dtype = header.get_data_dtype()
            stream.seek(int(header["vox_offset"]))
            left = voxels * dtype.itemsize
            while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
                left -= len(chunk)
                non_finite += count_non_finite(np.frombuffer(chunk, dtype, len(chunk) // dtype.itemsize))
        while packed and stream.read(_CHUNK):
            pass
        return stream.tell() if packed else path.stat().st_size, non_finite


def _check_size(path: Path, header: Header, voxels: int, found_bytes: int) -> None:
    expected = int(header["vox_offset"]) + voxels * int(header["bitpix"]) // 8
    if found_bytes < expected:
        raise ImageError(
            f"{path}: the file is cut off: its header announces {expected} bytes, found {found_bytes}; copy or export it again"
        )


def _check_spacing(path: Path, header: Header) -> None:
    spacing = header["pixdim"][1 : 1 + min(3, int(header["dim"][0]))]
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ImageError(
            f"{path}: expected a positive spacing, the NIfTI header has pixdim {spacing.tolist()}; "
            "volumes cannot be computed, export the image again"
        )


def _check_transforms(path: Path, header: Header) -> None:
    try:
        affines = [a for a in (_coded(header, "qform"), _coded(header, "sform")) if a is not None]
    except (HeaderDataError, ValueError) as error:
        raise ImageError(f"{path}: the NIfTI header's qform is broken ({error}); export the image again") from error
    if not affines:
        raise ImageError(
            f"{path}: the NIfTI header states no orientation (qform_code and sform_code are 0), so left and right would be a "
            "guess; export the image again, or set its qform"
        )
    if not all(np.isfinite(a).all() for a in affines):
        raise ImageError(f"{path}: the NIfTI header's qform or sform holds NaN or infinity; export the image again")
    sform = _coded(header, "sform")
    if sform is None or int(header["dim"][0]) < 3:
        return
    scale = np.linalg.norm(sform[:3, :3], axis=0)
    spacing = _spacing_mm(header)
    if not np.allclose(scale, spacing, rtol=SFORM_SCALE_TOLERANCE):
        raise ImageError(
            f"{path}: the NIfTI header states two voxel sizes, pixdim {np.round(spacing, 4).tolist()} mm and sform "
            f"{np.round(scale, 4).tolist()} mm; volumes would be a guess, export the image again"
        )
    if abs(np.linalg.det(sform[:3, :3] / scale)) < _SINGULAR:
        raise ImageError(
            f"{path}: the axes of the NIfTI header's sform lie in one plane (its determinant is 0); export the image again, or set its sform"
        )


def _check_scaling(path: Path, header: Header) -> None:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if (slope == 0 or np.isnan(slope)) and (inter == 0 or (np.isnan(inter) and np.isnan(slope))):
        return  # values that are not scaled: 0 is the standard's word, NaN that of nibabel's headers, and ITK reads it so, too
    if not np.isfinite([slope, inter]).all() or abs(slope) < _LEAST_SLOPE:
        raise ImageError(
            f"{path}: scl_slope {slope} with scl_inter {inter} is read as different HU by different programs; "
            "expected two finite numbers and a slope that is not 0, or 0 and 0 for none; export the image again"
        )


def _mm_per_unit(header: Header) -> float:
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def _spacing_mm(header: Header) -> NDArray[np.float64]:
    return np.asarray(header["pixdim"][1:4], np.float64) * _mm_per_unit(header)


def _coded(header: Header, form: str) -> NDArray[np.float64] | None:
    """``(4, 4)`` affine in RAS mm, or None where its code is 0."""
    affine: Any = header.get_qform(coded=True)[0] if form == "qform" else header.get_sform(coded=True)[0]
    if affine is None:
        return None
    return np.asarray(np.diag([_mm_per_unit(header)] * 3 + [1.0]) @ affine, np.float64)


def _affine_ras(geometry: Geometry) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = geometry.direction_matrix * np.asarray(geometry.spacing_mm)
    affine[:3, 3] = geometry.origin_mm
    return np.asarray(_LPS_OF_RAS @ affine)


def _corner_shift_mm(first: NDArray[np.float64], second: NDArray[np.float64], geometry: Geometry) -> float:
    size = np.asarray(geometry.size_xyz) - 1
    corners = np.array([[*(np.array(c) * size), 1.0] for c in np.ndindex(2, 2, 2)])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())
