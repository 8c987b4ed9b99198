"""What a NIfTI header says before ITK repairs it.

Seen with ITK 5.4: a voxel size of 0 or NaN becomes 1 mm, a negative one turns the axis, each without an error; where qform and
sform state different voxel sizes, the qform's are taken; without either the orientation is assumed. Units other than mm are
converted correctly.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np

from flrplan.errors import ImageError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
SAME_SIZE_TOLERANCE = 1e-3
"""Relative; qform and sform state one grid if their voxel sizes agree within it."""
SAME_PLACE_TOLERANCE_MM = 0.5


def check_nifti_header(path: Path) -> list[str]:
    """Warnings about a NIfTI header. Raises: ImageError for voxel sizes or an orientation that cannot be trusted."""
    try:
        header = nibabel.load(str(path)).header
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        OSError,
        EOFError,
        zlib.error,
    ) as error:
        raise ImageError(f"{path} cannot be read as NIfTI; it is damaged or not what its name says ({error})") from error
    sizes = np.asarray(header["pixdim"][1:4], float)
    axes = min(3, int(header["dim"][0]))
    if not np.all(np.isfinite(sizes[:axes]) & (sizes[:axes] > 0)):
        raise ImageError(
            f"{path}: the header's voxel size is {' x '.join(f'{s:g}' for s in sizes)}; expected three positive numbers. "
            "Readers repair this silently to 1 mm, and every volume would be wrong: correct it at the source"
        )
    qform, sform = header.get_qform(coded=True), header.get_sform(coded=True)
    if qform[1] == 0 and sform[1] == 0:
        raise ImageError(
            f"{path}: the header states no orientation (qform_code and sform_code are 0), so left and right are unknown; "
            "convert it again from the DICOM"
        )
    if qform[1] > 0 and sform[1] > 0:
        return _compare_forms(path, qform[0], sform[0])
    if sform[1] > 0:
        _check_sizes(path, np.linalg.norm(sform[0][:3, :3], axis=0), sizes, "sform", "pixdim")
    return []


def _check_sizes(path: Path, one: np.ndarray, other: np.ndarray, one_name: str, other_name: str) -> None:
    if not np.allclose(one, other, rtol=SAME_SIZE_TOLERANCE):
        raise ImageError(
            f"{path}: {one_name} and {other_name} of the header state different voxel sizes, {np.round(one, 4).tolist()} and "
            f"{np.round(other, 4).tolist()} mm; one of them is wrong: convert it again from the DICOM"
        )


def _compare_forms(path: Path, qform: np.ndarray, sform: np.ndarray) -> list[str]:
    sizes = [np.linalg.norm(form[:3, :3], axis=0) for form in (qform, sform)]
    _check_sizes(path, sizes[0], sizes[1], "qform", "sform")
    turned = float(np.abs(qform[:3, :3] / sizes[0] - sform[:3, :3] / sizes[1]).max())
    moved_mm = float(np.linalg.norm(qform[:3, 3] - sform[:3, 3]))
    if turned > SAME_SIZE_TOLERANCE or moved_mm > SAME_PLACE_TOLERANCE_MM:
        return [
            f"qform and sform of the header disagree (axes by {turned:.3f}, origin by {moved_mm:.1f} mm); ITK's choice was taken"
        ]
    return []
