"""A DICOM SEG back on the grid of its CT. It stores only slices that have voxels, so each frame is placed by its position."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from flrplan.anatomy import Compartment, label_name
from flrplan.errors import GridError, LabelError
from flrplan.image.geometry import SAME_GRID_TOLERANCE_VOXELS, Geometry

_COSINE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3


def read_dicom_layers(seg: Dataset, geometry: Geometry, what: str) -> list[tuple[NDArray[np.uint8], dict[str, int]]]:
    """As few label maps as hold all segments: each ``(Z, Y, X) uint8`` on ``geometry``, with segment label to value (its segment number).

    Voxels outside the stored frames are 0. Nothing is interpolated.

    Raises:
        GridError: a frame does not fall on the CT's voxels.
        LabelError: no BINARY SEG, a broken one, or two segments of one name.
    """
    if seg.get("SegmentationType") != "BINARY":
        raise LabelError(f"{what}: expected a BINARY DICOM SEG, found {seg.get('SegmentationType')!r} ({seg.get('Modality')})")
    try:
        masks = _placed(seg, geometry, what)
        names = _segment_names(seg, what)
    except (AttributeError, KeyError, IndexError, NotImplementedError, RuntimeError) as error:
        raise LabelError(f"{what}: this DICOM SEG is incomplete or cannot be decoded: {error}") from error
    layers: list[tuple[NDArray[np.uint8], dict[str, int]]] = [(np.zeros(geometry.shape_zyx, np.uint8), {})]
    for name, number in names.items():
        mask = masks.get(number)
        free = [layer for layer in layers if mask is None or not layer[0][mask].any()]
        if not free:
            free = [(np.zeros(geometry.shape_zyx, np.uint8), {})]
            layers += free
        label, named = free[0]
        named[name] = number
        if mask is not None:
            label[mask] = number
    return layers


def with_empty_compartments(
    layers: list[tuple[NDArray[np.uint8], dict[str, int]]],
) -> list[tuple[NDArray[np.uint8], dict[str, int]]]:
    """The layers with the compartments named that a SEG left out because they are empty (dcmqi and OHIF store no empty segment).

    Only where remnant and resection are both there: then they are a plan, and it has no metastasis in what is not named.
    """
    known = {label_name(name) for _, names in layers for name in names}
    if not {Compartment.REMNANT.label_name, Compartment.RESECTION.label_name} <= known:
        return layers
    (label, names), *others = layers
    free = (n for n in range(1, np.iinfo(np.uint8).max + 1) if n not in names.values())
    absent = [c.label_name for c in Compartment if c.label_name not in known]
    return [(label, {**names, **dict(zip(absent, free, strict=False))}), *others]


def _placed(seg: Dataset, geometry: Geometry, what: str) -> dict[int, NDArray[np.bool_]]:
    """Of each segment number that has frames, its mask on the grid."""
    masks: dict[int, NDArray[np.bool_]] = {}
    frames = seg.pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    shared = seg.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in seg else Dataset()
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        x, y, z = first_voxel(groups, shared, frame.shape, geometry, what)
        mask = masks.setdefault(number, np.zeros(geometry.shape_zyx, bool))
        mask[z, y : y + frame.shape[0], x : x + frame.shape[1]] |= frame != 0
    return masks


def _segment_names(seg: Dataset, what: str) -> dict[str, int]:
    names: dict[str, int] = {}
    for segment in seg.SegmentSequence:
        name, number = str(segment.SegmentLabel), int(segment.SegmentNumber)
        if name in names:
            raise LabelError(f"{what}: two segments are called {name!r}; expected each name once")
        if number > np.iinfo(np.uint8).max:
            raise LabelError(f"{what}: segment number {number}; expected at most 255 segments")
        names[name] = number
    return names


def group(groups: Dataset, shared: Dataset, keyword: str) -> Any:
    """A functional group of a frame: its own, else the one that all frames share. Raises KeyError where neither has it."""
    return (groups if keyword in groups else shared)[keyword].value[0]


def first_voxel(
    groups: Dataset, shared: Dataset, shape_yx: tuple[int, ...], geometry: Geometry, what: str
) -> tuple[int, int, int]:
    """The CT's voxel index (x, y, z) under the first pixel of a frame."""
    cosines = np.asarray(group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3).T
    row_mm, column_mm = (float(s) for s in group(groups, shared, "PixelMeasuresSequence").PixelSpacing)
    position_mm = np.asarray(group(groups, shared, "PlanePositionSequence").ImagePositionPatient, float)
    direction = geometry.direction_matrix
    aligned = np.allclose(cosines, direction[:, :2], atol=_COSINE_TOLERANCE)
    spaced = np.allclose((column_mm, row_mm), geometry.spacing_mm[:2], rtol=_SPACING_TOLERANCE)
    index = direction.T @ (position_mm - np.asarray(geometry.origin_mm)) / np.asarray(geometry.spacing_mm)
    first = np.rint(index).astype(int)
    on_voxel = np.abs(index - first).max() <= SAME_GRID_TOLERANCE_VOXELS
    last = first + np.array([shape_yx[1], shape_yx[0], 1])
    within = (first >= 0).all() and (last <= np.asarray(geometry.size_xyz)).all()
    if not (aligned and spaced and on_voxel and within):
        raise GridError(
            f"{what} is not on the grid of its CT.\n  expected: {geometry.describe()}\n"
            f"  found a frame of {shape_yx[1]}x{shape_yx[0]}, spacing {column_mm:.4g} x {row_mm:.4g} mm, at voxel "
            f"{np.round(index, 2).tolist()}, axes {np.round(cosines.T, 3).ravel().tolist()}\n"
            "  Save the label on the CT that it was drawn on."
        )
    return int(first[0]), int(first[1]), int(first[2])
