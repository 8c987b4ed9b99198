"""The label file that answers an infer call: the format that the client asked for, on exactly the CT's grid."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.errors import ImageError, OutputError, SettingsError
from flrplan.image import Geometry
from flrplan.image.volume_file import read_volume
from flrplan.server.label_table import APPEARANCE_OF_NAME
from flrplan.server.settings import parse_bool

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True)
class ResultFormat:
    """``result_extension``, ``result_dtype`` and ``result_compress`` of a request.

    ``restore_label_idx`` (MONAI Label: give labels the indices of the task's own list) changes nothing here: a result always
    has those indices, 1 to n. OHIF asks for ``.nrrd, uint8, False, False``, 3D Slicer for ``.nrrd, uint8``.
    """

    extension: str = EXTENSIONS[0]
    dtype: str = DTYPES[0]
    compress: bool = False

    def __post_init__(self) -> None:
        if self.extension not in EXTENSIONS:
            raise SettingsError(f"result_extension must be one of {', '.join(EXTENSIONS)}, got {self.extension!r}")
        if self.dtype not in DTYPES:
            raise SettingsError(f"result_dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> ResultFormat:
        """The format of a request; absent, None and empty values take the defaults. Raises SettingsError."""
        extension = str(request.get("result_extension") or cls.extension).lower()
        return cls(
            extension if extension.startswith(".") else f".{extension}",
            str(request.get("result_dtype") or cls.dtype).removeprefix("np.").removeprefix("numpy."),
            parse_bool(request.get("result_compress") or False, "result_compress"),
        )


def write_result(label_zyx: NDArray[np.uint8], geometry: Geometry, names: Mapping[str, int], wanted: ResultFormat) -> Path:
    """Writes a label ``(Z, Y, X) uint8`` on ``geometry`` to a new temporary file, which MONAI Label deletes once it is sent.

    The label may be empty. Its ``names`` (to index) are written into ``.seg.nrrd`` with their colours.

    Raises: OutputError where it cannot be written (disk full); nothing is left behind.
    """
    image = geometry.image(label_zyx.astype(wanted.dtype))
    if wanted.extension == ".seg.nrrd":
        for key, value in _segment_header(geometry, names).items():
            image.SetMetaData(key, value)
    handle, name = tempfile.mkstemp(prefix="flrplan_", suffix=wanted.extension)
    os.close(handle)
    try:
        sitk.WriteImage(image, name, useCompression=wanted.compress or wanted.extension == ".nii.gz")
        written = read_volume(Path(name))  # ITK's NIfTI writer does not notice a full disk
        if not written.geometry.is_same_grid(geometry) or (sitk.GetArrayViewFromImage(written.image) != label_zyx).any():
            raise OSError("read back, it differs from what was written")
    except (RuntimeError, OSError, ImageError) as error:
        Path(name).unlink(missing_ok=True)
        raise OutputError(
            f"could not write the result to {name}: {error}. Is the disk of {tempfile.gettempdir()} full?"
        ) from error
    return Path(name)


def _segment_header(geometry: Geometry, names: Mapping[str, int]) -> dict[str, str]:
    """3D Slicer's header for a label map of one layer (its documentation, "Segmentation file format")."""
    extent = " ".join(f"0 {size - 1}" for size in geometry.size_xyz)
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, (name, index) in enumerate(sorted(names.items(), key=lambda item: item[1])):
        look = APPEARANCE_OF_NAME.get(name)
        header |= {
            f"Segment{number}_ID": name,
            f"Segment{number}_Name": name,
            f"Segment{number}_LabelValue": str(index),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Extent": extent,
        }
        if look is not None:
            header[f"Segment{number}_Color"] = " ".join(f"{channel / 255:.6g}" for channel in look.rgb)
    return header
