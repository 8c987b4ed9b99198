"""Files that GDCM can read of what it cannot: a frame of an enhanced CT, and a file that lacks its preamble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_pixel_data_frame
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from flrplan.errors import ImageError
from flrplan.image.dicom_files import CT_IMAGE_STORAGE, DicomFile, lacks_preamble, with_preamble

_PIXEL_TAGS = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
_RESCALE_TAGS = ("RescaleSlope", "RescaleIntercept")


class PlainFiles:
    """Gives each slice as a single-frame file with a preamble: its own, or one in ``scratch`` that holds until the next is asked for.

    So a frame is decoded and rescaled by the same code as a slice, whatever its compression; GDCM itself would apply the rescale
    of the first frame to all.
    """

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "slice.dcm"
        self._whole: dict[Path, tuple[Any, list[bytes]]] = {}

    def of(self, file: DicomFile) -> Path:
        """Path of a file with this slice alone. Raises ImageError where a frame's pixels are not there."""
        if file.frame is not None:
            self._write_frame(file, file.frame)
        elif lacks_preamble(file.path):
            self._path.write_bytes(with_preamble(file.path))
        else:
            return file.path
        return self._path

    def _write_frame(self, file: DicomFile, frame: int) -> None:
        try:
            if file.path not in self._whole:
                self._whole[file.path] = _split(file.path)
            whole, pixels = self._whole[file.path]
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(CT_IMAGE_STORAGE), UID("2.25.1")
            syntax = whole.file_meta.TransferSyntaxUID
            meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == DeflatedExplicitVRLittleEndian else syntax
            data = FileDataset(str(self._path), {}, file_meta=meta, preamble=b"\0" * 128)
            data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
            for keyword, source in (*((k, whole) for k in _PIXEL_TAGS), *((k, file.header) for k in _RESCALE_TAGS)):
                if keyword in source:
                    data.add(source[keyword])
            data.PixelData = encapsulate([pixels[frame]]) if syntax.is_encapsulated else pixels[frame]
        except (AttributeError, ValueError, IndexError, KeyError, EOFError, OSError) as error:
            raise ImageError(
                f"{file.path}: the pixels of frame {frame + 1} cannot be read ({error}): the file is cut off or damaged; export it again"
            ) from error
        data.is_little_endian, data.is_implicit_VR = whole.is_little_endian, whole.is_implicit_VR
        data.save_as(self._path, write_like_original=False)


def _split(path: Path) -> tuple[Any, list[bytes]]:
    """The data set, and the pixel data of each frame."""
    whole = pydicom.dcmread(path, force=True)
    frames = int(whole.NumberOfFrames)
    if whole.file_meta.TransferSyntaxUID.is_encapsulated:
        return whole, list(generate_pixel_data_frame(whole.PixelData, frames))
    size = int(whole.Rows) * int(whole.Columns) * int(whole.BitsAllocated) // 8
    if len(whole.PixelData) < frames * size:
        raise ValueError(f"{frames} frames need {frames * size} bytes, found {len(whole.PixelData)}")
    return whole, [whole.PixelData[n * size : (n + 1) * size] for n in range(frames)]
