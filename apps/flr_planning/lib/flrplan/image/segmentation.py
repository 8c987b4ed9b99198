"""Label files as viewers save them: a label map, or 3D Slicer's segmentation (``.seg.nrrd``), on the grid of their CT.

A segmentation names its segments in the header (``SegmentN_Name``, ``SegmentN_LabelValue``, ``SegmentN_Layer``); segments that overlap lie
in layers, the components of a vector image; and it is cropped to what is drawn (Slicer's ``vtkMRMLSegmentationStorageNode``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from flrplan.anatomy import PlanningLabel, decode_layers
from flrplan.errors import GridError, ImageError, LabelError, OutputError
from flrplan.files import replacing
from flrplan.image.finite import count_non_finite, require_finite
from flrplan.image.geometry import SAME_GRID_TOLERANCE_VOXELS, Geometry, another_grid
from flrplan.image.text_header import check_text_header
from flrplan.image.volume_file import image_suffix, itk_path, read_volume, scalar_volume
from flrplan.image.write import write_volume

NO_LABELS = ("background", "foreground_scribbles", "background_scribbles")
"""Segments that MONAI Label's module of 3D Slicer makes for itself; they are no part of a label."""

_SEGMENT = re.compile(r"Segment(\d+)_(?:ID|Name)")
_UNIT = 1e-3
"""By how much the cosine between two axes may miss 0 or 1."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What one label file holds: its layers ``(Z, Y, X)`` of integers on ``geometry``.

    names: of each layer, segment name to value, as the header says; None where the file has no such header.
    header: the header's entries about segments, as text.
    """

    layers: tuple[NDArray[Any], ...]
    geometry: Geometry
    source: str
    names: tuple[Mapping[str, int], ...] | None = None
    header: Mapping[str, str] = field(default_factory=dict)

    def on(self, grid: Geometry, grid_of: str) -> Segmentation:
        """The same voxels on ``grid``: axes turned and flipped as needed, what a viewer cropped away is empty.

        Only a segmentation may be cropped; a plain label map must cover the same voxels.
        Raises: GridError where the voxels are none of ``grid``, or a drawn one lies beside it.
        """
        if self.geometry.is_same_grid(grid):
            return self
        way = _way_onto(self.geometry, grid, may_be_cropped=self.names is not None)
        if way is None:
            raise another_grid(grid, self.geometry, grid_of, self.source)
        return replace(self, layers=tuple(way.place(layer, self.source, grid_of) for layer in self.layers), geometry=grid)

    def label(self, grid: Geometry, grid_of: str, names: Mapping[str, int]) -> PlanningLabel:
        """The structures that it holds, on ``grid``. ``names``: what came with the file, for one whose header names no segments.

        Raises: LabelError as :func:`flrplan.anatomy.decode_layers`; GridError as :meth:`on`.
        """
        placed = self.on(grid, grid_of)
        return decode_layers(list(zip(placed.layers, self.names or [names], strict=True)), self.source)

    def write(self, path: Path) -> None:
        """Writes it in the format that ``path`` ends in, with the names of its segments. Raises: OutputError."""
        if self.names is None:
            write_volume(path, self.layers[0], self.geometry)
            return
        whole = " ".join(f"0 {size - 1}" for size in self.geometry.size_xyz)
        layers = [self.geometry.image(layer) for layer in self.layers]
        image = sitk.Compose(layers) if len(layers) > 1 else layers[0]
        for key, text in self.header.items():
            image.SetMetaData(key, whole if key.endswith("_Extent") else text)
        image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
        with replacing(path) as part:
            sitk.WriteImage(image, str(part), useCompression=True)
            written = read_segmentation(part)
            if written.names != self.names or any((a != b).any() for a, b in zip(written.layers, self.layers, strict=True)):
                raise OutputError(f"could not write {path}: read back, it differs from what was written; is the disk full?")


def read_segmentation(path: Path) -> Segmentation:
    """A label map or a segmentation of 3D Slicer, on its own grid.

    Raises: ImageError where the file is missing, damaged, a colour picture or not one 3D volume; LabelError for values that are
        not whole, and a header that contradicts itself.
    """
    path = Path(path)
    suffix = image_suffix(path)
    if suffix not in (".nrrd", ".nhdr") or not path.is_file():
        volume = read_volume(path)
        return Segmentation((whole_numbers(sitk.GetArrayFromImage(volume.image), str(path)),), volume.geometry, str(path))
    try:
        image = sitk.ReadImage(itk_path(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(
            f"{path}: the file is cut off, damaged or not what its name says ({reason}); copy or export it again"
        ) from error
    header = {k: image.GetMetaData(k) for k in image.GetMetaDataKeys() if k.startswith("Segment")}
    if not any(_SEGMENT.fullmatch(key) for key in header):
        if image.GetNumberOfComponentsPerPixel() > 1 and path.name.lower().endswith(".seg.nrrd"):
            raise LabelError(
                f"{path}: its segments overlap and lie in layers, but its header names none; save the segmentation in 3D Slicer again, "
                "as .seg.nrrd"
            )
        volume = scalar_volume(image, str(path))
        check_text_header(path, suffix)
        return Segmentation((whole_numbers(sitk.GetArrayFromImage(volume.image), str(path)),), volume.geometry, str(path))
    count = image.GetNumberOfComponentsPerPixel()
    components = [sitk.VectorIndexSelectionCast(image, i) for i in range(count)] if count > 1 else [image]
    geometry = scalar_volume(components[0], str(path)).geometry
    check_text_header(path, suffix)
    layers = [whole_numbers(sitk.GetArrayFromImage(c), str(path)).reshape(geometry.shape_zyx) for c in components]
    names = _names(header, count, str(path))
    for layer, named in zip(layers, names, strict=True):
        for name in [n for n in named if n in NO_LABELS]:
            layer[layer == named.pop(name)] = 0
    return Segmentation(tuple(layers), geometry, str(path), names, header)


def whole_numbers(array: NDArray[Any], source: str) -> NDArray[Any]:
    """The array as it is, or whole numbers stored as floats as int32. Raises: ImageError for NaN; LabelError for fractions."""
    if array.dtype.kind != "f":
        return array
    require_finite(count_non_finite(array), array.size, source)
    if (array != np.rint(array)).any():
        kind = "a CT" if array.min() < 0 else "a probability map, or resampled with interpolation"
        raise LabelError(
            f"{source}: expected whole numbers as labels, found values {array.min():g} to {array.max():g} with fractions "
            f"({kind}); use nearest neighbour or a threshold"
        )
    return array.astype(np.int32)


def _names(header: Mapping[str, str], layers: int, source: str) -> tuple[dict[str, int], ...]:
    """Of each layer, the names of its segments and their values."""
    numbers = sorted({int(found[1]) for key in header if (found := _SEGMENT.fullmatch(key))})
    called = [header.get(f"Segment{n}_Name") or header.get(f"Segment{n}_ID", "") for n in numbers]
    if len(set(called)) != len(called):
        raise LabelError(f"{source}: its segments {sorted(called)} are not all called differently; rename them")
    names: tuple[dict[str, int], ...] = tuple({} for _ in range(layers))
    for place, (number, name) in enumerate(zip(numbers, called, strict=True)):
        try:
            # Before layers were shared, each segment had one of its own, with the value 1 (Slicer 4.10).
            layer = int(header.get(f"Segment{number}_Layer", str(place if layers > 1 else 0)))
            value = int(
                header[f"Segment{number}_LabelValue"] if layers == 1 else header.get(f"Segment{number}_LabelValue", "1")
            )
        except (KeyError, ValueError) as error:
            raise LabelError(f"{source}: the header names segments without their values ({error}); save it again") from error
        if not 0 <= layer < layers:
            raise LabelError(f"{source}: the header puts {name!r} into layer {layer}, and there are {layers}; save it again")
        names[layer][name] = value
    return names


@dataclass(frozen=True)
class _Way:
    """How the voxels of one grid lie on another one: which axes are turned and flipped, and where the first voxel falls (x, y, z)."""

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    first_xyz: tuple[int, ...]
    grid: Geometry

    def place(self, array_zyx: NDArray[Any], source: str, grid_of: str) -> NDArray[Any]:
        """The array on the grid, 0 where it says nothing. Raises GridError where a voxel that is not 0 lies beside the grid."""
        xyz = np.transpose(array_zyx.transpose(2, 1, 0), self.axes)
        xyz = xyz[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        target = np.zeros(self.grid.size_xyz, array_zyx.dtype)
        low = np.maximum(self.first_xyz, 0)
        high = np.minimum(np.add(self.first_xyz, xyz.shape), self.grid.size_xyz)
        inside = xyz[tuple(slice(max(a - f, 0), max(b - f, 0)) for a, b, f in zip(low, high, self.first_xyz, strict=True))]
        beside = np.count_nonzero(xyz) - np.count_nonzero(inside)
        if beside:
            raise GridError(f"{source}: {beside} drawn voxels lie beside {grid_of}; was it drawn on another image?")
        if (high > low).all():
            target[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = inside
        return np.ascontiguousarray(target.transpose(2, 1, 0))


def _way_onto(own: Geometry, grid: Geometry, may_be_cropped: bool) -> _Way | None:
    """None where the voxels of ``own`` are not those of ``grid``."""
    cosines = grid.direction_matrix.T @ own.direction_matrix
    turned = np.rint(cosines).astype(int)
    if np.abs(cosines - turned).max() > _UNIT or (np.abs(turned).sum(axis=0) != 1).any():
        return None
    axes = tuple(int(a) for a in np.abs(turned).argmax(axis=1))
    size = [own.size_xyz[a] for a in axes]
    if not np.allclose([own.spacing_mm[a] for a in axes], grid.spacing_mm, rtol=0.01):
        return None
    corners = np.array(list(product(*((0, n - 1) for n in own.size_xyz))), float)
    index = (own.world_mm(corners) - np.asarray(grid.origin_mm)) @ grid.direction_matrix / np.asarray(grid.spacing_mm)
    edge = np.asarray(grid.spacing_mm) / min(grid.spacing_mm)
    first = np.rint(index.min(axis=0)).astype(int)
    last = np.rint(index.max(axis=0)).astype(int)
    fits = (np.abs(index - np.rint(index)) * edge).max() <= SAME_GRID_TOLERANCE_VOXELS and (last - first + 1 == size).all()
    covers = (first == 0).all() and tuple(size) == grid.size_xyz
    if not fits or not (covers or may_be_cropped):
        return None
    flipped = tuple(bool(turned[i, axes[i]] < 0) for i in range(3))
    return _Way(axes, flipped, tuple(int(f) for f in first), grid)
