"""The frames of a DICOM SEG whose segments overlap, one at a time, each at its place on the grid of the CT.

:func:`flrplan.image.dicom_seg.read_dicom_layers` holds all segments in label maps. Here nothing is merged: 40 segments of
512x512x240 voxels would be 2.5 GB as masks, so a caller adds each frame to what it needs and forgets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from flrplan.errors import ImageError, LabelError
from flrplan.image import Geometry
from flrplan.image.dicom_seg import first_voxel, group
from flrplan.preparation.slice_offsets import grid_at

Place = tuple[int, slice, slice]


@dataclass(frozen=True, eq=False)
class SegFrame:
    """One slice of one segment: ``pixels (Y, X) bool`` belong at ``place`` (z, y, x) of the CT's array."""

    segment: int
    place: Place
    pixels: NDArray[np.bool_]


def open_seg(path: Path) -> Dataset:
    """A DICOM file as a BINARY SEG. Raises ImageError where it is damaged, LabelError where it is something else."""
    try:
        seg = pydicom.dcmread(path)
        kind = seg.get("SegmentationType")
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ImageError(f"{path}: the DICOM file is cut off or damaged ({error}); download it again") from error
    if kind != "BINARY":
        raise LabelError(f"{path}: expected a BINARY DICOM SEG, found {kind!r} (modality {seg.get('Modality')})")
    return seg


def segment_labels(seg: Dataset, what: str) -> dict[int, str]:
    """Segment number to label; two segments may share a label. Raises LabelError without segments or with a number twice."""
    try:
        pairs = [(int(s.SegmentNumber), str(s.SegmentLabel)) for s in seg.SegmentSequence]
    except (AttributeError, ValueError, TypeError) as error:
        raise LabelError(f"{what}: this DICOM SEG names no segments ({error}); download it again") from error
    if len(dict(pairs)) != len(pairs) or not pairs:
        raise LabelError(f"{what}: expected segments with a number each, found {pairs[:10]}")
    return dict(pairs)


def seg_frames(
    seg: Dataset, geometry: Geometry, what: str, offsets_mm: NDArray[np.float64] | None = None
) -> Iterator[SegFrame]:
    """Every stored frame by its position; slices that the SEG does not store simply do not come.

    ``offsets_mm (Z,)``: how far the CT's slices lie from even steps (:func:`slice_offsets_mm`); None: not at all.

    Raises: GridError where a frame does not fall on the CT's voxels. LabelError for a frame of a segment that the SEG does not
    declare, one stored twice, and pixels that are missing or cannot be decoded.
    """
    known, seen = set(segment_labels(seg, what)), set()
    try:
        shape = (int(seg.Rows), int(seg.Columns))
        shared = seg.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in seg else Dataset()
        per_frame = seg.PerFrameFunctionalGroupsSequence
        if int(seg.get("BitsAllocated", 0)) != 1:
            raise LabelError(f"{what}: a BINARY SEG has 1 bit a pixel, found {seg.get('BitsAllocated')}; download it again")
        pixels = _Pixels(seg, shape, len(per_frame), what)
        for index, groups in enumerate(per_frame):
            number = int(group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            position = np.asarray(group(groups, shared, "PlanePositionSequence").ImagePositionPatient, float)
            grid = geometry if offsets_mm is None else grid_at(position, geometry, offsets_mm)
            x, y, z = first_voxel(groups, shared, shape, grid, what)
            if number not in known or (number, z) in seen:
                state = "is stored twice" if number in known else "belongs to no declared segment"
                raise LabelError(f"{what}: the frame of segment {number} at slice {z} {state}; download it again")
            seen.add((number, z))
            yield SegFrame(number, (z, slice(y, y + shape[0]), slice(x, x + shape[1])), pixels.frame(index))
    except (AttributeError, KeyError, IndexError, NotImplementedError, RuntimeError, TypeError) as error:
        raise LabelError(f"{what}: this DICOM SEG is incomplete or cannot be decoded: {error}") from error


class _Pixels:
    """Frames of one bit a pixel, packed without gaps between them (PS3.5, 8.1.1), unpacked one by one."""

    def __init__(self, seg: Dataset, shape_yx: tuple[int, int], frames: int, what: str) -> None:
        self._shape, self._size = shape_yx, shape_yx[0] * shape_yx[1]
        self._whole: NDArray[np.generic] | None = None
        syntax = seg.file_meta.TransferSyntaxUID
        if syntax.is_compressed or not syntax.is_little_endian:
            self._whole = seg.pixel_array.reshape(frames, *shape_yx)
            return
        self._packed = np.frombuffer(seg.PixelData, np.uint8)
        needed = (frames * self._size + 7) // 8
        if self._packed.size < needed:
            raise LabelError(f"{what}: {frames} frames need {needed} bytes, found {self._packed.size}; download it again")

    def frame(self, index: int) -> NDArray[np.bool_]:
        if self._whole is not None:
            return np.asarray(self._whole[index] != 0)
        first = index * self._size
        part = self._packed[first // 8 : (first + self._size + 7) // 8]
        bits = np.unpackbits(part, bitorder="little")[first % 8 : first % 8 + self._size]
        return bits.reshape(self._shape).astype(np.bool_)
