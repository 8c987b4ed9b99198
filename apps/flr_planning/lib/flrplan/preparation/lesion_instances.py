"""The lesions of a case told apart: ``Tumor_n`` of a SEG, or refined labels divided among the ``Tumor_n`` of the original ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flrplan.errors import LabelError
from flrplan.image import CT, Geometry
from flrplan.metrics.lesions import components
from flrplan.metrics.nearest import nearest_distances_mm
from flrplan.metrics.region import Region, Spacing, regions_of
from flrplan.preparation.seg_frames import SegFrame, open_seg, seg_frames, segment_labels
from flrplan.preparation.segment_roles import SegmentRole, segment_role
from flrplan.preparation.sources import InstanceSource
from flrplan.workfolder import Instances, read_instances
from flrplan.workfolder.instances import MAX_NUMBER

Voxels = NDArray[np.int32]


def frame_voxels(frame: SegFrame) -> Voxels:
    """The voxels of a frame as indices ``(N, 3)`` (z, y, x) of the CT's array."""
    z, y, x = frame.place
    rows, columns = np.nonzero(frame.pixels)
    return np.column_stack([np.full(len(rows), z), rows + y.start, columns + x.start]).astype(np.int32)


def tumour_numbers(labels: Mapping[int, str]) -> dict[int, int]:
    """The number of each tumour segment, by segment: n of ``Tumor_n`` where the labels give each its own, else 1, 2, ... in order."""
    ends = {segment: re.search(r"(\d+)\s*$", label) for segment, label in labels.items()}
    named = {segment: int(end.group(1)) for segment, end in ends.items() if end}
    if len(set(named.values())) == len(labels) and all(1 <= n <= MAX_NUMBER for n in named.values()):
        return named
    return {segment: k for k, segment in enumerate(sorted(labels), 1)}


def instances_of(voxels: Mapping[int, Sequence[Voxels]], labels: Mapping[int, str], geometry: Geometry) -> dict[int, Region]:
    """The lesions by number from the voxels of each tumour segment; a segment without voxels is none."""
    numbers = tumour_numbers(labels)
    found = {}
    for segment, parts in voxels.items():
        if parts and sum(map(len, parts)):
            found[numbers[segment]] = _region(np.concatenate(parts), geometry)
    return dict(sorted(found.items()))


def _region(voxels: Voxels, geometry: Geometry) -> Region:
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    crop = np.zeros(high - low + 1, np.bool_)
    crop[tuple((voxels - low).T)] = True
    start = (int(low[0]), int(low[1]), int(low[2]))
    return Region(crop, start, geometry.shape_zyx, geometry.spacing_zyx_mm, int(np.count_nonzero(crop)))


def read_original(source: InstanceSource, ct: CT, offsets_mm: NDArray[np.float64] | None) -> dict[int, Region]:
    """The lesions of the original labels on the CT's grid. Raises LabelError, GridError or ImageError naming the file."""
    if source.is_layers:
        return read_instances(source.files, ct.geometry, ct.source)
    path = source.files[0]
    seg = open_seg(path)
    labels = {n: name for n, name in segment_labels(seg, str(path)).items() if segment_role(name) is SegmentRole.TUMOUR}
    voxels: dict[int, list[Voxels]] = {n: [] for n in labels}
    for frame in seg_frames(seg, ct.geometry, str(path), offsets_mm):
        if frame.segment in voxels:
            voxels[frame.segment].append(frame_voxels(frame))
    return instances_of(voxels, labels, ct.geometry)


def nearest_instances(crlm: Region, original: Instances, max_distance_mm: float) -> tuple[dict[int, Region], list[str]]:
    """A mask divided among the lesions of other labels on the same grid; and notes, one sentence each.

    A voxel inside one of them is that one's, inside several each one's (they still overlap); any other is the nearest one's in mm
    between voxel centres, equally far ones: the lowest number. A component (26) without a voxel within ``max_distance_mm`` of any
    is a lesion of its own, numbered after the others. Numbers are those of ``original``; one that is left without a voxel vanishes.
    An empty mask has no lesion. Raises: LabelError for more lesions than can be numbered.
    """
    if crlm.is_empty:
        return {}, [f"none of the {len(original)} original tumours is left"] if original else []
    inside = {number: _shared(crlm, lesion) for number, lesion in sorted(original.items())}
    claimed = np.logical_or.reduce([np.zeros_like(crlm.crop_zyx), *inside.values()])
    open_voxels = np.argwhere(crlm.crop_zyx & ~claimed).astype(np.int32)
    number_of, distance_mm = _nearest(open_voxels + np.array(crlm.start_zyx, np.int32), original, crlm.spacing_zyx_mm)

    pieces, sizes = components(crlm)
    is_near = np.zeros(len(sizes) + 1, np.bool_)
    is_near[pieces[claimed]] = True
    piece_of = pieces[tuple(open_voxels.T)]
    is_near[piece_of[distance_mm <= max_distance_mm]] = True
    divided: dict[int, Region] = {}
    for number, mask in inside.items():
        mask[tuple(open_voxels[is_near[piece_of] & (number_of == number)].T)] = True
        if mask.any():
            divided[number] = regions_of(mask.view(np.uint8), crlm.spacing_zyx_mm, crlm)[1]
    gone = [number for number in original if number not in divided]
    notes = [f"original tumours without a voxel left: {', '.join(map(str, gone))}"] if gone else []
    far = (np.flatnonzero(~is_near[1:]) + 1).tolist()
    if far:
        notes.append(
            f"{len(far)} pieces farther than {max_distance_mm:g} mm from every original tumour are lesions of their own"
        )
        of_pieces = regions_of(pieces, crlm.spacing_zyx_mm, crlm)
        divided |= {number: of_pieces[piece] for number, piece in enumerate(far, max(original, default=0) + 1)}
    if max(divided) > MAX_NUMBER:
        raise LabelError(f"the CRLM has lesions up to number {max(divided)}; expected at most {MAX_NUMBER}")
    return divided, notes


def _shared(region: Region, other: Region) -> NDArray[np.bool_]:
    """The voxels of ``region`` that lie in ``other``, on the crop of ``region``."""
    mask = np.zeros_like(region.crop_zyx)
    boxes = region.shared_box(other)
    if boxes is not None:
        mask[boxes[0]] = region.crop_zyx[boxes[0]] & other.crop_zyx[boxes[1]]
    return mask


def _nearest(points: Voxels, lesions: Instances, spacing: Spacing) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The number of the lesion nearest to each voxel ``(N, 3)``, and how far it is; 0 and infinity without lesions."""
    number, distance_mm = np.zeros(len(points), np.int64), np.full(len(points), np.inf)
    if not len(points):
        return number, distance_mm
    for candidate, lesion in sorted(lesions.items()):
        targets = (np.argwhere(lesion.crop_zyx) + lesion.start_zyx).astype(np.int32)
        own = nearest_distances_mm(points, targets, spacing)
        closer = own < distance_mm
        number[closer], distance_mm[closer] = candidate, own[closer]
    return number, distance_mm
