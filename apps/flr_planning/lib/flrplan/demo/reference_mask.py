"""The reference liver of a real CT: one value of a label file, on the CT's grid, and which voxels of the CT it judges.

A label of another grid (a part of the CT, another resolution) is brought onto the CT's by nearest neighbour in physical space.
Where it does not reach it says nothing: those voxels are not "not liver".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from flrplan.anatomy import Mask, Structure
from flrplan.errors import EmptyLiverError, GridError, LabelError, SettingsError
from flrplan.image import CT, Geometry, read_label_map, read_mask
from flrplan.image.dicom_files import is_dicom
from flrplan.image.volume_file import image_suffix

MAX_SHARE_OUTSIDE = 0.01
"""With more of the reference liver than this outside the CT, the two are not of one scan, or one has a wrong header."""
_NOT_COVERED = 2


@dataclass(frozen=True, eq=False)
class Reference:
    """``liver`` and ``covered``: ``(Z, Y, X) bool`` on the CT's grid; liver lies within covered. notes: what a reader must know."""

    liver: Mask
    covered: Mask
    notes: tuple[str, ...] = ()


def read_reference(path: Path, ct: CT, value: int | None = None) -> Reference:
    """The liver that a label file holds as ``value``, or, without one, as the only value besides 0; or of a DICOM SEG.

    Raises:
        LabelError: several values and none was asked for, or the value is not in the file. EmptyLiverError: no voxel on the CT.
        GridError: the label lies beside the CT, or more than :data:`MAX_SHARE_OUTSIDE` of its liver does.
        SettingsError: a value of a DICOM SEG, whose segments have names. ImageError: missing or damaged.
    """
    path = Path(path)
    if image_suffix(path) is None and path.is_file() and is_dicom(path):
        if value is not None:
            raise SettingsError(f"{path}: a DICOM SEG names its segments; leave out the value {value}")
        liver = read_mask(path, ct, Structure.LIVER)
        return Reference(liver, np.ones_like(liver))
    array, grid = read_label_map(path)
    found = [v for v in np.unique(array).tolist() if v != 0]
    if value is None and len(found) > 1:
        raise LabelError(
            f"{path}: expected a binary liver, found {len(found)} values, {found[:6]}; say which, {path.name}:VALUE"
        )
    liver = array != 0 if value is None else array == value
    if value is not None and value not in found:
        raise LabelError(f"{path}: expected the value {value} for the liver, found {found[:12]}; give the liver's value")
    if not liver.any():
        raise EmptyLiverError(f"{path}: the liver has no voxels; give the file that holds it")
    if ct.geometry.is_same_grid(grid):
        return Reference(liver, np.ones_like(liver))
    return _resampled(liver, grid, ct, str(path))


def _resampled(liver: Mask, grid: Geometry, ct: CT, source: str) -> Reference:
    outside = 1 - float(_lies_in(grid, liver, ct.geometry).mean())
    if outside > MAX_SHARE_OUTSIDE:
        raise GridError(
            f"{source}: {outside:.0%} of its liver lies outside {ct.source}; expected a label of the same scan.\n"
            f"  CT:    {ct.geometry.describe()}\n  label: {grid.describe()}"
        )
    on_ct = sitk.Resample(
        grid.image(liver),
        ct.geometry.image(np.zeros(ct.geometry.shape_zyx, np.uint8)),
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        float(_NOT_COVERED),
    )
    array = sitk.GetArrayFromImage(on_ct)
    mask, covered = array == 1, array != _NOT_COVERED
    if not mask.any():
        raise EmptyLiverError(f"{source}: its liver has no voxel on {ct.source}; it is smaller than the CT's voxels")
    slices = int(covered.any(axis=(1, 2)).sum())
    share = float(covered.sum()) / (slices * covered[0].size)
    size, spacing = "x".join(map(str, grid.size_xyz)), " x ".join(f"{s:.4g}" for s in grid.spacing_mm)
    notes = [
        f"the reference lies on another grid, {size} of {spacing} mm, and was brought onto the CT's by nearest neighbour; it covers "
        f"{slices} of the CT's {len(covered)} slices" + ("" if share > 0.999 else f" and {share:.0%} of their voxels")
    ]
    if any(np.take(liver, end, axis).any() for axis in range(3) for end in (0, -1)):
        notes.append("the reference liver reaches the edge of its own grid, so a part of the liver may lie beyond")
    return Reference(mask, covered, tuple(notes))


def _lies_in(grid: Geometry, mask: Mask, other: Geometry) -> Mask:
    """``(N,) bool``: which of the mask's N voxels have their centre within a voxel of the other grid."""
    world = grid.world_mm(np.argwhere(mask)[:, ::-1].astype(float))
    index = (world - np.asarray(other.origin_mm)) @ other.direction_matrix / np.asarray(other.spacing_mm)
    inside = (index >= -0.5) & (index < np.asarray(other.size_xyz) - 0.5)
    return np.asarray(inside.all(axis=1))
